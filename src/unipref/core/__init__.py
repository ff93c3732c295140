"""Records, tries, batches, cards, statistics, files and errors: what every room speaks of."""
