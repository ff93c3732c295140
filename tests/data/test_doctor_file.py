"""The doctor on whole files: every planted fault is found where it stands, and nothing where there is none."""

import json
from importlib import resources

import pytest
from faulty_data import clean_file, faulty_file, heldout_file
from transformers import AutoTokenizer

from unipref.core.findings import LEVELS, Examination
from unipref.data import CHECKS, examine_records, examine_tokens, read_records

GRAVE = ("error", "warning")
# One row in fifty with a shared start is worth knowing and no more; so are a column and two foreign languages.
NOTES = {"unused-columns", "shared-start", "languages", "cut-contexts"}


@pytest.fixture(scope="module")
def bundled():
    return AutoTokenizer.from_pretrained(str(resources.files("unipref") / "assets" / "model"))


def examined(path, tokenizer, *, max_length, heldout=None) -> Examination:
    records, report = read_records(path)
    further = read_records(heldout)[0] if heldout else None
    findings, facts = examine_records(records, report, heldout=further)
    more, tables, rows = examine_tokens(records, tokenizer, max_length=max_length, stop_ids=[tokenizer.eos_token_id])
    return Examination(path, findings + more, facts | tables, rows)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, bundled):
    path, lines = faulty_file(tmp_path_factory.mktemp("faulty") / "faulty.jsonl")
    return examined(path, bundled, max_length=128), lines


def test_every_check_answers_exactly_once_in_the_order_of_reading(faulty):
    assert [finding.code for finding in faulty[0].findings] == list(CHECKS)


PLANTED = [
    *("rows-set-aside", "unused-columns", "media", "empty-responses", "identical-responses", "duplicates"),
    *("near-duplicates", "contradictions", "near-contradictions", "intransitive", "prompt-repeated"),
    *("template-markers", "other-speaker", "shared-start", "length-bias", "annotators", "constant-columns"),
    *("languages", "mixed-languages", "template-refuses", "bos-twice", "cut-contexts", "cut-responses"),
    *("lost-to-length", "markers-as-text"),
]


@pytest.mark.parametrize("code", PLANTED)
def test_every_planted_fault_is_found_on_its_lines(faulty, code):
    examination, lines = faulty
    finding = next(f for f in examination.findings if f.code == code)
    assert finding.level in GRAVE or (code in NOTES and finding.level == "note")
    places = {place.rpartition(" ")[2] for place in finding.places}
    assert {str(line) for line in lines[code]} <= places
    if lines[code] and code not in {"contradictions", "near-duplicates"}:  # annotators who differ are opposed too
        assert places == {str(line) for line in lines[code]}


def test_the_list_above_is_all_that_is_planted(faulty):
    assert set(PLANTED) == set(faulty[1])


def test_a_row_is_found_by_the_checks_it_was_planted_for_and_by_no_other(faulty):
    examination, lines = faulty
    meant = {str(line) for found in lines.values() for line in found}
    other = {"61", "62", "63", "64"}  # votes of two people who differ
    for finding in examination.findings:
        for place in finding.places:
            if "line" in place:
                assert place.rpartition(" ")[2] in meant | other, finding.code


def test_the_same_file_without_faults_gives_no_error_and_no_warning(tmp_path, bundled):
    examination = examined(clean_file(tmp_path / "clean.jsonl"), bundled, max_length=128)
    assert [finding.code for finding in examination.findings] == list(CHECKS)
    assert {f.code: f.level for f in examination.findings if f.level in (*GRAVE, "note")} == {}
    assert {f.code for f in examination.findings if f.level == "not_checked"} == {
        "intransitive",
        "position-bias",
        "annotators",
        "constant-columns",
        "eval-overlap",
        "eval-near-overlap",
    }


def test_evaluation_that_repeats_training_is_found_to_the_letter_and_but_for_a_letter(tmp_path, bundled):
    heldout = heldout_file(tmp_path / "heldout.jsonl")
    examination = examined(clean_file(tmp_path / "clean.jsonl"), bundled, max_length=128, heldout=heldout)
    found = {f.code: f for f in examination.findings}
    exact, near = found["eval-overlap"], found["eval-near-overlap"]
    assert (exact.level, exact.n, exact.of, exact.places) == ("error", 1, 12, (f"{heldout}, line 1",))  # 8 % of 12
    assert (near.level, near.n, near.of, near.places) == ("warning", 1, 12, (f"{heldout}, line 2",))
    assert exact.by_domain["cooking"] == {"n": 1, "of": 8}


def test_the_bundled_data_give_no_error_and_their_known_numbers(bundled):
    records, report = read_records("bundled:hh-harmless")
    findings, facts = examine_records(records, report)
    more, _, _ = examine_tokens(records[:400], bundled, max_length=384, stop_ids=[bundled.eos_token_id])
    assert [f.code for f in findings + more if f.level == "error"] == []
    found = {f.code: f for f in findings}
    assert (found["rows-set-aside"].n, found["rows-set-aside"].of) == (4, 2312)
    assert [place.rpartition(" ")[2] for place in found["empty-responses"].places] == ["87", "517", "926", "1104"]
    value, low, high = found["length-bias"].value
    assert value == 1023 / 2297  # 2,308 comparisons, 11 of equal length
    assert low < value < high < 0.5
    assert found["length-bias"].level == "note"  # away from one half, by less than ten points
    assert facts["Rows"]["records"] == 2308


def test_findings_are_the_same_whatever_ran_before_and_are_plain_json(faulty, tmp_path, bundled):
    path, _ = faulty_file(tmp_path / "faulty.jsonl")
    again = examined(path, bundled, max_length=128).to_dict()
    first = json.loads(json.dumps(faulty[0].to_dict(), allow_nan=False).replace(faulty[0].subject, path))
    assert json.loads(json.dumps(again)) == first


def test_domains_add_up_to_the_whole(faulty):
    for finding in faulty[0].findings:
        if finding.by_domain and finding.code not in {"contradictions", "near-contradictions", "intransitive"}:
            domains = [entry["of"] for entry in finding.by_domain.values() if "of" in entry]
            aside = {"media", "empty-responses", "identical-responses"}  # what was set aside has no domain
            if domains and finding.code not in aside:
                assert sum(domains) == finding.of, finding.code


def test_every_level_but_fine_says_what_to_do_next(faulty):
    for finding in faulty[0].findings:
        assert finding.level in LEVELS
        if finding.level in GRAVE:
            assert finding.advice, finding.code
        assert finding.says


TEXT = {"prompt": "How far is it?", "chosen": " A mile or so.", "rejected": " I cannot say that."}
KINDS = {
    "preference": TEXT,
    "no prompt": {"chosen": "The mill is old.", "rejected": "The mill was sold."},
    "hh": {
        side: f"\n\nHuman: How far?\n\nAssistant: {text}" for side, text in (("chosen", "Far."), ("rejected", "No."))
    },
    "joint": {"prompt_chosen": "a", "response_chosen": " b", "prompt_rejected": "c", "response_rejected": " d"},
    "rationale": {**TEXT, "rationale": "The first one is an answer.", "gold": " One mile."},
    "segments": {**TEXT, "chosen_segment_scores": [1.0], "rejected_segment_scores": [0.0]},
    "alpaca": {"instruction": "How far?", "output_1": "Far.", "output_2": "No.", "preference": 1},
    "ranked": {"prompt": "How far?", "responses": [" a", " b", " c"], "ranks": [2, 1, 2]},
    "rated": {"prompt": "How far?", "responses": [" a", " b"], "ratings": {"help": [1, 2], "tone": [3, 4]}},
    "stepwise": {"prompt": "Solve.\n", "completions": ["First.", "Then."], "labels": [True, False]},
    "unpaired": {"prompt": "How far?", "completion": " A mile.", "label": True},
    "prompt_completion": {"prompt": "How far?", "completion": " A mile."},
    "messages": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
    "tree": {
        "prompt": "Solve.\n",
        "nodes": [{"id": 1, "text": "a", "reward": 1}, {"id": 2, "text": "b", "parent": 1, "reward": 1}],
    },
    "text": {"text": "The mill is old."},
    "prompt_only": {"prompt": "How far is it?"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_row_gets_every_answer_even_where_there_is_one_row(bundled, kind):
    records, report = read_records([KINDS[kind]])
    findings, facts = examine_records(records, report)
    more, tables, _ = examine_tokens(records, bundled, max_length=64, stop_ids=[bundled.eos_token_id])
    assert [finding.code for finding in findings + more] == list(CHECKS)
    assert json.loads(json.dumps(facts | tables, allow_nan=False)) == facts | tables
    one_sided = kind in ("unpaired",)  # a single thumb is all thumbs
    assert {f.code for f in findings + more if f.level == "error"} == ({"one-sided"} if one_sided else set())
