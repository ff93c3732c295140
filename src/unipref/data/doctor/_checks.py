"""What each check asks, in the order of reading, and from which share on a finding is more than worth knowing."""

__all__ = ["ASKED_OF_RECORDS", "ASKED_OF_TOKENS", "CHECKS", "FEW", "HALF", "MANY", "MOST", "graded", "worst"]

FEW = 0.01  # a warning from here on: below one row in a hundred a fault moves less than the labels' own noise does
MANY = 0.05  # an error from here on, where the affected rows teach something wrong: one or two of every batch of 32
MOST = 0.2  # an error where they teach nothing (they are set aside) or may be meant (a play with speakers)
HALF = 0.5  # an error where noise is to be expected and only a majority makes learning impossible

ASKED_OF_RECORDS = {
    "rows-set-aside": "Which rows could not be read, and why?",
    "unused-columns": "Which columns do the data have that nothing reads?",
    "media": "Do the rows hold images, sound or tool calls, which training on text would leave out?",
    "empty-responses": "Are there responses without a word in them?",
    "identical-responses": "Are there comparisons of a response with itself, or with itself but for white space?",
    "duplicates": "Do rows stand there more than once?",
    "near-duplicates": "Do rows differ by a few characters only?",
    "contradictions": "Is the same response preferred in one row and rejected in another?",
    "near-contradictions": "Do rows that differ by a few characters have opposite verdicts?",
    "intransitive": "Is A preferred to B, B to C, and C to A?",
    "prompt-repeated": "Do responses begin with their own prompt?",
    "template-markers": "Do the texts spell a chat template's markers, as if templated by hand already?",
    "other-speaker": "Do responses go on with the other speaker's turn?",
    "shared-start": "Do chosen and rejected begin with the same long text?",
    "length-bias": "Is the preferred response the longer one more often than not?",
    "position-bias": "Does the response that was shown first win more often than not?",
    "annotators": "Do annotators agree beyond chance?",
    "one-sided": "Do all labels say the same?",
    "constant-columns": "Are there weights, margins or scores that are the same everywhere, or no finite numbers?",
    "languages": "Which languages are the responses in?",
    "mixed-languages": "Are chosen and rejected of one row in different languages?",
    "eval-overlap": "Do evaluation conversations stand in the training data?",
    "eval-near-overlap": "Do evaluation prompts stand in the training data but for a few characters?",
}
ASKED_OF_TOKENS = {
    "chat-template": "Has the tokenizer an end token and, for conversations, a chat template?",
    "template-refuses": "Does the chat template refuse conversations?",
    "prompt-not-prefix": "Is the rendered prompt the beginning of the rendered prompt and response?",
    "turn-boundary": "Does the template open responses for generation with text that training does not see?",
    "template-alters": "Does the chat template change the words of responses?",
    "bos-twice": "Does the token that begins a text stand in it a second time?",
    "turn-end": "Is the token that responses end with one that generation stops at?",
    "padding": "Is padding told from the end token?",
    "cut-contexts": "Which prompts lose their beginning to max_length?",
    "cut-responses": "Which responses lose their end to max_length, and with it the end token?",
    "lost-to-length": "Which responses become empty or identical by max_length or by the tokenizer?",
    "unknown-tokens": "Are there texts that the vocabulary cannot spell?",
    "markers-as-text": "Do the texts spell markers that are no tokens of this tokenizer?",
}
CHECKS = {**ASKED_OF_RECORDS, **ASKED_OF_TOKENS}


def graded(n: int, of: int, *, warning: float = FEW, error: float | None = None) -> str:
    """The level of a finding about `n` among `of`: fine for none, else by its share.

    Example:
        >>> [graded(n, 100, error=MANY) for n in (0, 1, 5)], graded(1, 1000)
        (['fine', 'warning', 'error'], 'note')
    """
    if n == 0:
        return "fine"
    share = n / max(of, 1)
    if error is not None and share >= error:
        return "error"
    return "warning" if share >= warning else "note"


def worst(*levels: str) -> str:
    """The gravest of some levels."""
    return max(levels, key=("fine", "note", "warning", "error").index)
