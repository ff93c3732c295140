"""How expected a text's letters are: a language model of runs of characters, for any script."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["ORDER", "CharacterModel"]

ORDER = 5
_START, _END = "\x02", "\x03"


@dataclass(frozen=True, eq=False)
class CharacterModel:
    """Counts of runs of up to `order` characters in a corpus of distinct texts, smoothed as Witten and Bell do.

    p(c | h) = (n(hc) + t(h) p(c | h without its first character)) / (n(h) + t(h)), with n the counts, t(h) the number
    of different characters seen after h, and below the empty context an equal share for each known character and one
    more for all unknown ones.

    A text is scored by the others: what it and the texts named with it brought to the counts is taken out first, so
    that no text is called fluent for being in the corpus.

    Source of the smoothing: Witten and Bell 1991, interpolated as in Chen and Goodman 1999, §2.5.
    """

    order: int
    texts: frozenset[str]
    counts: Counter[str]
    after: Counter[str]
    kinds: Counter[str]
    letters: int

    @classmethod
    def of(cls, texts: Iterable[str], *, order: int = ORDER) -> "CharacterModel":
        """The model of the distinct texts of `texts`."""
        distinct = frozenset(text for text in texts if text)
        counts: Counter[str] = Counter()
        for text in distinct:
            counts.update(_runs(text, order))
        after: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        for run, count in counts.items():
            after[run[:-1]] += count
            kinds[run[:-1]] += 1
        return cls(order, distinct, counts, after, kinds, len({run for run in counts if len(run) == 1}) + 1)

    def fluency(self, text: str, *, without: Sequence[str] = ()) -> float:
        """Mean log-probability of a character of `text`, its end among them, in nats; NaN for an empty text.

        Args:
            without: further texts that are taken out of the corpus, such as the other response of the pair.
        """
        if not text:
            return math.nan
        own: Counter[str] = Counter()
        for left in {text, *without} & self.texts:
            own.update(_runs(left, self.order))
        less, fewer = Counter[str](), defaultdict(int)
        for run, count in own.items():
            less[run[:-1]] += count
            fewer[run[:-1]] += self.counts[run] == count  # nobody else follows the context with this character
        padded = _padded(text, self.order)
        total = 0.0
        for i in range(self.order - 1, len(padded)):
            p = 1.0 / self.letters
            for n in range(1, self.order + 1):
                run = padded[i - n + 1 : i + 1]
                context = run[:-1]
                seen = self.after[context] - less[context]
                if not seen:  # nor was any longer context
                    break
                kinds = self.kinds[context] - fewer[context]
                p = (self.counts[run] - own[run] + kinds * p) / (seen + kinds)
            total += math.log(p)
        return total / (len(padded) - self.order + 1)


def _padded(text: str, order: int) -> str:
    return _START * (order - 1) + text + _END


def _runs(text: str, order: int) -> Counter[str]:
    """The runs of 1 to `order` characters of `text` that end in it or in its end mark."""
    padded = _padded(text, order)
    return Counter(padded[i - n + 1 : i + 1] for i in range(order - 1, len(padded)) for n in range(1, order + 1))
