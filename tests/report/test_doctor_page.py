"""The doctor's page and its words in the terminal say what the JSON says."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from test_page import Page

from unipref.core.findings import LEVELS, Examination, Finding, TokenRow
from unipref.core.io import to_json
from unipref.report import render_doctor, write_doctor_page
from unipref.report._words import NOTHING

HOSTILE = '<script>document.title="broken"</script>'


def examination(**changes):
    """One finding of every level, two of them with domains, places or an interval."""
    findings = [
        Finding("length-bias", "note", "The longer one wins in 61.0 %.", n=40, of=66, value=(0.61, 0.48, 0.72)),
        Finding("duplicates", "fine", "No row stands twice.", n=0, of=66),
        Finding(
            "bos-twice",
            "error",
            "The token <s> begins 12 of 20 rows twice.",
            "take it out of the text.",
            n=12,
            of=20,
            by_domain={"books": {"n": 10, "of": 12}, HOSTILE: {"n": 2, "of": 8}},
            places=tuple(f"data.jsonl, line {i}" for i in (3, 7, 8, 9, 11)),
        ),
        Finding("languages", "warning", f"Two languages, one in {HOSTILE}.", "split the file."),
        Finding("position-bias", "not_checked", "The columns name the winner."),
    ]
    tokens = [
        TokenRow(
            "data.jsonl, line 3",
            "chosen",
            "template",
            (("<s>", 0, "context"), ("Hi\n", 5, "context"), (HOSTILE, 6, "scored"), ("", 7, "scored"), ("x", 8, "cut")),
        )
    ]
    facts = {"Rows": {"read": 66, "kept": 64}, "Tokens": {"context": {"median": 12, "share": [0.5, 0.4, None]}}}
    whole = Examination("data.jsonl", findings, facts, tokens, questions={"bos-twice": "Does BOS stand twice?"})
    return replace(whole, **changes)


@pytest.fixture
def page(tmp_path):
    path = write_doctor_page(examination().to_dict(), tmp_path / "doctor.html")
    return Page(path.read_text(encoding="utf-8"))


def number(text):
    return None if text == "" else float(text)


def test_every_number_of_the_page_is_that_of_the_json(page):
    found = json.loads(to_json(examination().to_dict()))
    assert {f["data-level"]: int(f["data-value"]) for f in page.figures("count")} == found["counts"]
    shown = {f["data-code"]: f for f in page.figures("finding")}
    assert len(page.figures("finding")) == len(found["findings"])
    for one in found["findings"]:
        figure = shown[one["code"]]
        assert figure["data-level"] == one["level"]
        assert [number(figure[f"data-{name}"]) for name in ("n", "of")] == [one["n"], one["of"]]
        triple = [number(figure[f"data-{name}"]) for name in ("value", "low", "high")]
        assert triple == (one["value"] or [None] * 3)
    domains = {
        (f["data-code"], f["data-domain"]): (int(f["data-n"]), int(f["data-of"])) for f in page.figures("domain")
    }
    assert domains == {("bos-twice", "books"): (10, 12), ("bos-twice", HOSTILE): (2, 8)}


def test_findings_stand_in_the_order_of_their_levels_whatever_order_they_were_made_in(page):
    assert [f["data-level"] for f in page.figures("finding")] == list(LEVELS)


def test_the_page_loads_nothing_and_shows_markup_as_text(page):
    loading = {"src", "srcset", "poster", "action", "formaction", "background"}
    assert not any(loading & set(attributes) for _, attributes in page.elements)
    assert page.text.count(HOSTILE) == 3  # a sentence, a domain, a token
    assert sum(tag == "script" for tag, _ in page.elements) == 1


def test_the_page_says_the_verdict_first_and_every_row_and_question(page):
    assert "Training would be wrong: 1 error, 1 warning, 1 note." in page.text
    assert "data.jsonl, lines 3, 7, 8, 9, 11 and 7 more" in page.texts
    assert "Does BOS stand twice?" in page.text


def test_tokens_stand_in_groups_that_are_named_without_colour(page):
    groups = [a for _, a in page.elements if a.get("role") == "group" and "piece" in a.get("class", "")]
    assert [g["aria-label"] for g in groups] == ["context, 2 tokens", "scored, 2 tokens", "cut, 1 tokens"]
    ids = [a["title"] for tag, a in page.elements if tag == "i" and "title" in a]
    assert ids == ["0", "5", "6", "7", "8"]
    assert "Hi⏎\n" in page.texts  # the line break is marked
    assert "∅" in page.texts  # and so is a token without text


def printed(found, *, width=100, **options):
    console = Console(width=width, file=io.StringIO())
    console.print(render_doctor(found, **options))
    return console.file.getvalue()


def test_the_terminal_says_the_worst_first_the_rest_by_code_and_facts_last():
    text = printed(examination().to_dict())
    order = ["Training would be wrong: 1 error", "bos-twice: The token", "languages: Two", "length-bias: The longer"]
    order += ["Fine (1): duplicates", "Not checked (1)", "position-bias: The columns name", "Rows", "Tokens"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "data.jsonl, lines 3, 7, 8 and 9 more" in text  # three places of twelve rows
    assert "by domain: books 10 of 12; " in text
    assert f"[0.4, {NOTHING}]" in text


def test_long_names_every_place_and_prints_the_tokens():
    text = printed(examination().to_dict(), long=True)
    assert "lines 3, 7, 8, 9, 11 and 7 more" in text
    assert "No row stands twice." in text
    assert "Hi⏎" in text
    assert "Hi⏎" not in printed(examination().to_dict())


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width):
    assert all(len(line.rstrip()) <= width for line in printed(examination().to_dict(), width=width).splitlines())


def test_an_accepted_error_is_no_reason_against_training_and_is_named():
    whole = examination(accepted=("bos-twice",))
    assert whole.errors == []
    text = printed(whole.to_dict())
    assert "Nothing that would make training wrong: 1 warning, 1 note." in text
    assert "Accepted in spite of an error: bos-twice." in text
    assert "(accepted in the recipe)" in text


def test_a_clean_examination_says_how_many_checks_found_nothing():
    clean = Examination("d.jsonl", [Finding("duplicates", "fine", "None."), Finding("media", "not_checked", "No.")])
    assert "Nothing found in 1 check." in printed(clean.to_dict())
