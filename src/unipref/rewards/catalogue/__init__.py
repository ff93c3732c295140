"""Preference models, one file each: a card and a composition of parts. All files here are found by themselves."""
