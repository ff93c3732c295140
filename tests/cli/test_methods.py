"""`unipref methods`: a list that can be read, and one method in full."""

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from unipref.cli import main
from unipref.cli.methods import HEADINGS, limit_in_words
from unipref.core import cards
from unipref.core.cards import KINDS, Limit, get_method, list_methods


def printed(capsys, *words):
    assert main(["methods", *words]) == 0
    return capsys.readouterr().out


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry that a test may change."""
    import unipref.objectives  # noqa: F401 (fills it)

    monkeypatch.setattr(cards, "_REGISTRY", dict(cards._REGISTRY))
    return cards._REGISTRY


def test_every_kind_of_method_has_a_heading():
    assert set(HEADINGS) == set(KINDS)


def test_the_list_has_one_line_per_method_under_its_kind(capsys):
    lines = printed(capsys).splitlines()
    kind = ""
    shown = {}
    for line in lines:
        found = next((k for k, heading in HEADINGS.items() if line.startswith(heading)), None)
        kind = found or kind
        if line.startswith(("  ", "~ ")):
            shown[kind, line[2:].split()[0]] = line
    assert set(shown) == {(card.kind, card.key) for card in list_methods()}
    row = shown["objective", "dpo"]
    assert re.split(" {2,}", row) == ["", "dpo", "pairs, reference", get_method("dpo").title]


def test_a_reconstructed_method_is_marked_in_the_list_and_can_be_listed_alone(capsys):
    rows = {line[2:].split()[0]: line for line in printed(capsys).splitlines() if line.startswith(("  ", "~ "))}
    assert rows["upo"].startswith("~ ")
    assert rows["dpo"].startswith("  ")
    only = json.loads(printed(capsys, "--json", "--status", "reconstructed"))
    assert "upo" in {card["key"] for card in only}
    assert {card["status"] for card in only} == {"reconstructed"}
    both = [len(json.loads(printed(capsys, "--json", "--status", status))) for status in cards.STATUSES]
    assert sum(both) == len(list_methods())


def test_the_long_list_has_formula_source_and_columns(capsys):
    [entry] = [e for e in printed(capsys, "--long").split("\n\n") if e.startswith("dpo (objective)")]
    for shown in ("-log sigmoid(beta * dh)", "arXiv:2305.18290 Eq. 7 (verified)", "chosen, rejected, ref_logp"):
        assert shown in entry


def test_json_has_every_card_of_a_kind(capsys):
    found = {card["key"]: card for card in json.loads(printed(capsys, "--json", "--kind", "objective"))}
    assert set(found) == {card.key for card in list_methods("objective")}
    assert {card["kind"] for card in found.values()} == {"objective"}
    assert found["dpo"]["needs"] == ["chosen", "rejected", "ref_logp"]
    assert found["dpo"]["options"] == {"beta": 0.1}
    assert "2305.18290" in found["dpo"]["citation"]
    assert found["dpo"]["inferred"] == ""
    assert found["upo"]["inferred"].startswith("Reconstructed: ")


def test_one_method_is_shown_in_full(capsys):
    page = printed(capsys, "upo")
    for shown in (
        "(reconstructed)",
        "Reconstructed: ",
        "lam = 5.0: inverse temperature of its weights.",
        "value = 'expectile'",
        "coupling  statistic",
        "reward: add `objectives:` with a scorer",
        "0.5 * pointwise('advantage', score=mean_logp()",
        "kto: no term 'advantage'; no term 'value'",
        "laws it breaks",
        "@misc{badrinath",
    ):
        assert shown in page


def test_what_does_not_apply_to_a_method_is_not_mentioned(capsys):
    page = printed(capsys, "length")
    assert "relatives" not in page
    assert "coupling" not in page
    assert "special cases" not in page
    assert "Reconstructed" not in page


def test_a_special_case_reads_as_an_equation(capsys, registry):
    dpo = get_method("dpo")
    limit = Limit({"beta": 0.2}, "simpo", {"gamma": 0.0}, 0.5, -1.0, {"reward": 0.3}, note="so it is said")
    said = "dpo(beta=0.2) = 0.5 * simpo(gamma=0.0) - 1; where reward is 0.3 everywhere; so it is said"
    assert limit_in_words(dpo, limit) == said
    assert limit_in_words(dpo, Limit({}, "simpo", tolerance=1e-3)) == "dpo() ≈ simpo()"
    registry["objective", "dpo"] = replace(dpo, limits=(limit,))
    assert "special cases\n  dpo(beta=0.2) = 0.5 * simpo(gamma=0.0) - 1" in printed(capsys, "dpo")


def test_on_a_narrow_terminal_titles_are_cut_and_every_method_keeps_its_one_line():
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": "90", "TERM": "dumb"}
    words = [sys.executable, "-m", "unipref", "methods", "--kind", "objective"]
    with subprocess.Popen(words, stdout=child, env=environment, stdin=subprocess.DEVNULL) as process:
        os.close(child)
        text = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not part:
                break
            text += part
        assert process.wait() == 0
    os.close(parent)
    lines = text.decode().replace("\r", "").splitlines()
    rows = [line for line in lines if line.startswith(("  ", "~ "))]
    assert [row[2:].split()[0] for row in rows] == [card.key for card in list_methods("objective")]
    assert all(len(line) <= 90 for line in rows)
    [cut] = [row for row in rows if row[2:].split()[0] == "upo"]
    assert cut.endswith("…")


def test_unknown_names_are_met_with_the_nearest(capsys):
    for words, hint in (
        (["modpoo"], "did you mean 'modpo'?"),
        (["--kind", "objektive"], "did you mean 'objective'?"),
        (["--status", "reconstruct"], "did you mean 'reconstructed'?"),
    ):
        assert main(["methods", *words]) == 2
        assert hint in capsys.readouterr().err
