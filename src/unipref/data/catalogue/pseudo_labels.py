"""PFPO: labels from what most samples answer, or from the tests that programs pass."""

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Record, plain_text
from unipref.data.operators import LeftOut, Operator, digest, each, rated, responses_of, with_pairs

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
WAYS = ("majority", "passes")


def last_number(text: str) -> str:
    """The last number of `text` as it is written, without thousands separators; empty where there is none."""
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else ""


def majority(answers: list[str]) -> tuple[str, int]:
    """(the most frequent answer, how often), empty ones aside; of several the first to appear. ("", 0) for none."""
    counts = Counter(answer for answer in answers if answer)
    return counts.most_common(1)[0] if counts else ("", 0)


@method(
    "pseudo_labels",
    kind="operator",
    source="arXiv:2411.16345, released code",
    formula="majority / n > tau: agreeing > others; or pass_i / M >= lower and pass_i - pass_j >= margin",
    citation=Citation(
        "Preference Optimization for Reasoning with Pseudo Feedback",
        ("Fangkai Jiao", "Geyang Guo", "Xingxing Zhang", "Nancy F. Chen", "Shafiq Joty", "Furu Wei"),
        2024,
        "2411.16345",
    ),
)
def pseudo_labels(
    *,
    how: str = "majority",
    answer: Callable[[str], str] = last_number,
    tau: float = 0.5,
    passed: str = "passed",
    tests: str = "tests",
    lower: float = 0.5,
    margin: int = 6,
    draw: bool = False,
    seed: int = 0,
) -> Operator:
    """Comparisons of a prompt's samples without anyone's label.

    Responses are compared by the text of their answers; an `answer` function that brings equal answers to one form
    makes that symbolic. Nothing is executed here: how many tests a program passes is a column.

    Args:
        how: "majority": samples with the most frequent answer are preferred to all others. "passes": i is preferred
            to j where it passes at least `lower` of the tests and `margin` tests more.
        answer: response -> final answer, "" for none; an empty answer has no vote and is on the losing side.
        tau: the share of all samples that the majority must exceed, strictly; the source runs 0, 0.5 and 0.6.
        passed, tests: columns of the tests that a response passes, and of their number (`M`).
        lower, margin: 0.5 and 6 in the source for whole programs, 0.8 and 4 for beginnings of programs.
        draw: one pair per record at random in place of all, as the source draws each epoch.
    """
    if how not in WAYS:
        raise ConfigError(f"pseudo labels come from no {how!r}{nearest(how, WAYS)}")
    if not 0 <= tau <= 1 or not 0 <= lower <= 1 or margin < 1:
        raise ConfigError(
            f"tau and lower are shares and margin is 1 or more: tau={tau}, lower={lower}, margin={margin}"
        )

    def pairs_of(record: Record) -> list[tuple[int, int]]:
        if how == "passes":
            n_passed, n_tests = rated(record, passed), rated(record, tests)
            return [
                (i, j)
                for i in n_passed
                for j in n_passed
                if n_passed[i] >= lower * n_tests[i] and n_passed[i] - n_passed[j] >= margin
            ]
        responses = responses_of(record)
        answers = {i: answer(plain_text(record.items[i].response)) for i in responses}
        label, votes = majority(list(answers.values()))
        if votes <= tau * len(responses):
            raise LeftOut("no answer has the majority")
        good = [i for i in responses if answers[i] == label]
        return [(i, j) for i in good for j in responses if answers[j] != label]

    def make(record: Record) -> list[Record]:
        pairs = [(i, j) for i, j in pairs_of(record) if record.items[i].response != record.items[j].response]
        if not pairs:
            raise LeftOut("the samples agree" if how == "majority" else "no two samples differ enough in tests passed")
        if draw:
            pairs = [random.Random(f"pseudo {seed} {digest(record, seed).hex()}").choice(pairs)]
        part = with_pairs(record, dict.fromkeys(pairs))
        items = tuple(replace(item, label=None) if item.role == "response" else item for item in part.items)
        return [replace(part, items=items)]

    options = {
        "how": how,
        "answer": answer,
        "tau": tau,
        "passed": passed,
        "tests": tests,
        "lower": lower,
        "margin": margin,
        "draw": draw,
        "seed": seed,
    }
    return each("pseudo_labels", options, make, changed="compared by pseudo labels")
