"""What asking a judge cost, and what came of it."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from unipref.core.statistics import mean

__all__ = ["Account"]

EXAMPLES = 3  # of what came in place of an answer, kept for people to look at
EXAMPLE_LENGTH = 300

_NUMBERS = (
    "requests",
    "answered",
    "cached",
    "unasked",
    "comparisons",
    "inconsistent",
    "prompt_tokens",
    "completion_tokens",
    "estimated_tokens",
)


@dataclass
class Account:
    """Counts that any number of threads add to.

    Attributes:
        requests: sent, every retry among them. answered: questions that the endpoint answered.
        cached: questions answered from what was known already. unasked: those that the budget had no room for.
        comparisons: verdicts asked for in both orders. inconsistent: those that depended on the order.
        prompt_tokens, completion_tokens: as the endpoint says. estimated_tokens: our guess where it does not, a token
            for four characters.
        by_prompt: of these two, prompt -> [verdicts, those that depended on the order]; verdicts on one prompt are not
            independent, and an interval goes over prompts.
        missing: why a question has no answer -> how many.
        examples: what came in place of the first of them.
    """

    requests: int = 0
    answered: int = 0
    cached: int = 0
    unasked: int = 0
    comparisons: int = 0
    inconsistent: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated_tokens: int = 0
    by_prompt: dict[str, list[int]] = field(default_factory=dict, repr=False)
    missing: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def tokens(self) -> int:
        """All tokens, said or guessed."""
        return self.prompt_tokens + self.completion_tokens + self.estimated_tokens

    def add(self, **numbers: int) -> None:
        """Add to the counts of these names."""
        with self._lock:
            for name, number in numbers.items():
                setattr(self, name, getattr(self, name) + number)

    @property
    def changed(self) -> list[float | None]:
        """Share of the verdicts that depended on the order, with its 95 % interval; None where none was asked twice."""
        with self._lock:
            counts = [tuple(each) for each in self.by_prompt.values()]
        shares, weights = [changed / n for n, changed in counts], [float(n) for n, _ in counts]
        return mean(shares, weights=weights, bounds=(0.0, 1.0)).as_list()

    def compared(self, prompt: str, *, changed: bool) -> None:
        """Count a verdict that was asked for in both orders, and whether it depended on the order."""
        with self._lock:
            self.comparisons += 1
            self.inconsistent += changed
            mine = self.by_prompt.setdefault(prompt, [0, 0])
            mine[0] += 1
            mine[1] += changed

    def miss(self, why: str, *, example: str = "") -> None:
        """Count a question without an answer."""
        with self._lock:
            self.missing[why] += 1
            if example and len(self.examples) < EXAMPLES:
                self.examples.append(example[:EXAMPLE_LENGTH])

    def copy(self) -> "Account":
        """The counts as they are now."""
        with self._lock:
            numbers = {name: getattr(self, name) for name in _NUMBERS}
            by_prompt = {prompt: list(counts) for prompt, counts in self.by_prompt.items()}
            return Account(**numbers, by_prompt=by_prompt, missing=Counter(self.missing), examples=list(self.examples))

    def since(self, before: "Account") -> "Account":
        """What was added after `before`, a copy of this account."""
        now = self.copy()
        numbers = {name: getattr(now, name) - getattr(before, name) for name in _NUMBERS}
        by_prompt = {
            prompt: [new - old for new, old in zip(counts, before.by_prompt.get(prompt, (0, 0)), strict=True)]
            for prompt, counts in now.by_prompt.items()
        }
        return Account(
            **numbers,
            by_prompt={prompt: counts for prompt, counts in by_prompt.items() if counts[0]},
            missing=now.missing - before.missing,
            examples=now.examples[len(before.examples) :],
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with `tokens`, `changed` and `missing_total`."""
        changed = self.changed
        with self._lock:
            told: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
            return told | {
                "tokens": self.tokens,
                "changed": changed,
                "missing": dict(sorted(self.missing.items())),
                "missing_total": sum(self.missing.values()),
                "examples": list(self.examples),
            }

    def __str__(self) -> str:
        told = [f"{self.answered:,} answers from {self.requests:,} requests ({self.tokens:,} tokens)"]
        told.append(f"{self.cached:,} from the cache")
        if self.comparisons:
            share = self.inconsistent / self.comparisons
            told.append(f"{self.inconsistent:,} of {self.comparisons:,} verdicts ({share:.1%}) depended on the order")
        if self.missing:
            reasons = ", ".join(f"{why} ({n:,})" for why, n in sorted(self.missing.items()))
            told.append(f"no answer to {sum(self.missing.values()):,}: {reasons}")
        if self.unasked:
            told.append(f"{self.unasked:,} not asked, the budget is spent")
        return "; ".join(told)
