"""The table of claims is whole, and says what the tests that it names assert."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from claims import CLAIMS, ELSEWHERE, VERDICTS

import unipref.objectives  # noqa: F401  the catalogue
from unipref.core.cards import list_methods

HERE = Path(__file__).resolve().parent


@cache
def definitions(file):
    """Name -> node of every function, class and constant at the top of a test file."""
    found = {}
    for node in ast.parse((HERE / file).read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        for target in targets:
            name = getattr(target, "id", None) or getattr(target, "name", None)
            found |= {name: node} if name else {}
    return found


def numbers_behind(file, test):
    """Sizes of all numbers written in a test, and in what it uses of its file."""
    known, seen, waiting, sizes = definitions(file), set(), [test], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        for node in ast.walk(known[name]):
            if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
                sizes.add(float(node.value))
            elif isinstance(node, ast.Name):
                waiting.append(node.id)
    return sizes


def test_every_objective_has_a_row_and_every_row_an_objective():
    assert {claim.method for claim in CLAIMS} == {card.key for card in list_methods("objective")}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.method}: {claim.says}")
def test_a_row_names_a_test_that_there_is_and_only_numbers_that_stand_in_it(claim):
    assert claim.verdict in VERDICTS
    if not claim.test:
        assert claim.verdict == ELSEWHERE
        return
    file, test = claim.test.split("::")
    assert test in definitions(file)
    said = {abs(float(n)) for n in re.findall(r"(?<![\w.^])\d*\.?\d+(?:e-?\d+)?(?!\w)", claim.result)}
    assert said <= numbers_behind(file, test)
