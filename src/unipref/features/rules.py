"""Rules by name, and the values of concepts that name one.

A rule of a concept is written as it is read: `tokens`, `minus repeated_trigrams`, `tokens from 25 to 60`. With bounds
the value is 1 inside and 0 outside (the upper bound is outside), without them it is the number itself, a count n as
log(1 + n).
"""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from unipref.core.errors import ConfigError, DataError, nearest
from unipref.features.concepts import SHARES, Concept, PairValues
from unipref.features.fluency import CharacterModel
from unipref.features.surface import SURFACE, surface, tokens

__all__ = ["RULES", "Rule", "length_label", "parse_rule", "rule_columns", "rule_of", "rule_values"]

# shorter response in words -> the least words at which the longer one is longer, for people
_LONGER = (1, 3, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19)
_RULE = re.compile(r"(minus\s+)?([\w]+)(?:\s+from\s+(\S+))?(?:\s+to\s+(\S+))?")


def length_label(first: int, second: int) -> int:
    """Which of two responses is clearly longer, by their words: 1 the first, -1 the second, 0 neither.

    The shorter one is at most 0.7 of the longer and 10 words behind, or 0.8 and 20, or 0.9 and 40. Where it has fewer
    than 12 words a table decides.

    Source: the authors' code for arXiv:2402.11296.

    Example:
        >>> length_label(10, 16), length_label(10, 17), length_label(100, 50)
        (0, -1, 1)
    """
    shorter, longer = sorted((first, second))
    if shorter < 0:
        raise DataError(f"a response has 0 words or more, got {shorter}")
    if shorter < len(_LONGER):
        clear = longer >= _LONGER[shorter]
    else:
        gap = longer - shorter  # shares in tenths, as 0.7 * 10 is not 7 in binary
        clear = any(10 * shorter <= tenths * longer and gap >= least for tenths, least in ((7, 10), (8, 20), (9, 40)))
    return (1 if first > second else -1) if clear else 0


@lru_cache(maxsize=1 << 14)
def _script(character: str) -> str:
    name = unicodedata.name(character, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
    if character in "\u3005\u3006\u3007":  # 々〆〇 stand among kanji
        return "CJK"
    return name.split(" ")[0].split("-")[0]


def _letters(script: str) -> Callable[[str, str], float]:
    return lambda text, prompt: float(sum(_script(character) == script for character in text))


def _letter_share(script: str) -> Callable[[str, str], float]:
    def share(text: str, prompt: str) -> float:
        seen = [character for character in text if not character.isspace()]
        return sum(_script(character) == script for character in seen) / len(seen) if seen else math.nan

    return share


def _copied_run(text: str, prompt: str) -> float:
    """The longest run of tokens that stands in the prompt as it is, as a share of the response's tokens."""
    own, source = tokens(text), tokens(prompt)
    if not own or not source:
        return math.nan
    # a run of n words in common holds one of n - 1, so that the longest is found by halving
    longest, most = 0, min(len(own), len(source))
    while longest < most:
        n = (longest + most + 1) // 2
        known = {tuple(source[i : i + n]) for i in range(len(source) - n + 1)}
        if any(tuple(own[i : i + n]) in known for i in range(len(own) - n + 1)):
            longest = n
        else:
            most = n - 1
    return longest / len(own)


@dataclass(frozen=True)
class _Own:
    """A rule of single responses that is not among the surface features."""

    meaning: str
    value: Callable[[str, str], float]
    share: bool = False


_OWN = {
    "kanji": _Own("more kanji (Chinese characters)", _letters("CJK")),
    "hiragana": _Own("more hiragana", _letters("HIRAGANA")),
    "katakana": _Own("more katakana", _letters("KATAKANA")),
    "latin": _Own("more Latin letters", _letters("LATIN")),
    "kanji_share": _Own("more kanji, as a share of the characters", _letter_share("CJK"), share=True),
    "hiragana_share": _Own("more hiragana, as a share of the characters", _letter_share("HIRAGANA"), share=True),
    "katakana_share": _Own("more katakana, as a share of the characters", _letter_share("KATAKANA"), share=True),
    "latin_share": _Own("more Latin letters, as a share of the characters", _letter_share("LATIN"), share=True),
    "lenticular_brackets": _Own("more spans in lenticular brackets \u3010\u3011", lambda text, _: text.count("\u3010")),
    "copied_run": _Own("a longer run of words copied from the prompt, as a share", _copied_run, share=True),
}
# name -> what a high value means
RULES: dict[str, str] = {
    **SURFACE,
    **{name: own.meaning for name, own in _OWN.items()},
    "fluency": "letters that are more expected after those before them, by the other texts of the study",
    "length_label": "clearly longer than the other response, in words: 1, 0 or -1 between the two",
}
_OF_PAIRS = ("length_label",)  # no number of a response by itself
_OF_CORPORA = ("fluency",)


@dataclass(frozen=True)
class Rule:
    """A named rule, with its sign and bounds."""

    name: str
    minus: bool = False
    low: float = -math.inf
    high: float = math.inf

    @property
    def bounded(self) -> bool:
        """Whether the value is 1 inside bounds and 0 outside."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    @property
    def share(self) -> bool:
        """Whether the value is a share, a mean or a yes; other rules count."""
        own = _OWN.get(self.name)
        return self.bounded or self.name in SHARES or self.name in _OF_CORPORA or (own is not None and own.share)


def parse_rule(text: str) -> Rule:
    """The rule that `text` means.

    Raises:
        ConfigError: no such rule, or bounds that are no numbers or the wrong way round.

    Example:
        >>> parse_rule("minus tokens from 25 to 60")
        Rule(name='tokens', minus=True, low=25.0, high=60.0)
    """
    match = _RULE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"a rule is written as NAME, minus NAME or NAME from LOW to HIGH, not {text!r}")
    minus, name, low, high = match.groups()
    if name not in RULES:
        raise ConfigError(f"no rule named {name!r}{nearest(name, RULES)}")
    try:
        bounds = float(low or "-inf"), float(high or "inf")
    except ValueError:
        raise ConfigError(f"the bounds of the rule {text!r} are numbers") from None
    if not bounds[0] < bounds[1]:
        raise ConfigError(f"the rule {text!r} has its lower bound first, and below the upper one")
    if name in _OF_PAIRS and any(map(math.isfinite, bounds)):
        raise ConfigError(f"the rule {name!r} is of two responses and has no bounds")
    return Rule(name, minus is not None, *bounds)


def rule_of(concept: Concept) -> Rule | None:
    """The rule of a concept: what it names, or what its key names; None for concepts of other kinds."""
    if concept.rule:
        return parse_rule(concept.rule)
    return Rule(concept.key) if concept.kind == "rule" and concept.key in RULES else None


def rule_values(
    concepts: Sequence[Concept], prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
) -> PairValues:
    """Values of concepts with rules, for N pairs.

    `fluency` is by a model of all texts given here, without the two of the pair. A rule of pairs (`length_label`) has
    its verdict as the difference, and half of it on each side.

    Raises:
        ConfigError: a concept has no rule.
    """
    a, b, _ = rule_columns(concepts, prompts, first, second)
    return PairValues(tuple(concepts), a - b, a, b)


def rule_columns(
    concepts: Sequence[Concept], prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, tuple[bool, ...]]:
    """(N, C) values of the first and of the second responses, and which concepts are shares (others are counts)."""
    rules = []
    for concept in concepts:
        rule = rule_of(concept)
        if rule is None:
            raise ConfigError(
                f"the concept {concept.key} is of the kind {concept.kind} and names no rule; leave it to a judge, or "
                "give it `rule: NAME`"
            )
        rules.append(rule)
    names = {rule.name for rule in rules}
    at = {name: j for j, name in enumerate(SURFACE)}
    counted = [surface(texts, prompts) if names & set(SURFACE) else None for texts in (first, second)]
    pairs = list(zip(prompts, first, second, strict=True))

    @cache
    def numbers(name: str) -> tuple[np.ndarray, np.ndarray]:
        if name in at:
            return tuple(side[:, at[name]] for side in counted)  # type: ignore[index, return-value]
        if name in _OWN:
            value = _OWN[name].value
            found = [(value(a, prompt), value(b, prompt)) for prompt, a, b in pairs]
        elif name == "fluency":
            model = CharacterModel.of([*first, *second])
            found = [(model.fluency(a, without=[b]), model.fluency(b, without=[a])) for _, a, b in pairs]
        else:
            halves = [length_label(len(tokens(a)), len(tokens(b))) / 2 for _, a, b in pairs]
            found = [(half, -half) for half in halves]
        columns = np.array(found, dtype=float).reshape(-1, 2)
        return columns[:, 0], columns[:, 1]

    sides: list[list[np.ndarray]] = [[], []]
    for rule in rules:
        for side, values in zip(sides, numbers(rule.name), strict=True):
            if rule.bounded:
                values = np.where(np.isnan(values), np.nan, (values >= rule.low) & (values < rule.high))
            elif not rule.share and rule.name not in _OF_PAIRS:
                values = np.log1p(values)
            side.append(-values if rule.minus else values)
    a, b = (np.stack(side, axis=1) if side else np.zeros((len(pairs), 0)) for side in sides)
    return a, b, tuple(rule.share for rule in rules)
