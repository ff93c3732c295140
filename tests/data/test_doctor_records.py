"""Checks of records, each against rows made by hand."""

import math
import random

import numpy as np
import pytest

from unipref.core.findings import Finding
from unipref.core.statistics import mean
from unipref.data import examine_records, read_records
from unipref.data.doctor._labels import krippendorff_alpha
from unipref.data.doctor._texts import language
from unipref.data.doctor._view import share

GOOD = "a quite sound answer number"
POOR = "some rather poor reply number"


def pair(i: int, chosen: str | None = None, rejected: str | None = None, **more) -> dict:
    prompt = more.pop("prompt", f"Question {i} of {i * 7919 % 1000}?")
    return {"prompt": prompt, "chosen": chosen or f" {GOOD} {i}", "rejected": rejected or f" {POOR} {i}", **more}


def examined(rows, heldout=None, **options) -> dict[str, Finding]:
    records, report = read_records(rows, **options)
    further = None if heldout is None else read_records(heldout)[0]
    return {finding.code: finding for finding in examine_records(records, report, heldout=further)[0]}


def lines(finding: Finding) -> list[int]:
    return [int(place.rpartition(" ")[2]) for place in finding.places]


# ------------------------------------------------------------------------------------------------ rows


def test_rows_set_aside_are_an_error_from_a_fifth_on_and_a_note_below_one_in_a_hundred():
    sound = [pair(i) for i in range(200)]
    assert examined(sound)["rows-set-aside"].level == "fine"
    broken = {**pair(0), "chosen": ""}
    assert [examined([*sound, *[broken] * n])["rows-set-aside"].level for n in (1, 3, 50)] == [
        "note",
        "warning",
        "error",
    ]


def test_the_table_of_rows_set_aside_names_lines_per_reason():
    records, report = read_records(
        [pair(0), {**pair(1), "chosen": " "}, {**pair(2), "weight": -1}, {**pair(3), "chosen": ""}]
    )
    _, facts = examine_records(records, report)
    assert facts["Rows set aside"] == {
        "empty response": {"rows": 2, "lines": "2, 4"},
        "field 'weight' is negative": {"rows": 1, "lines": "3"},
    }
    assert facts["Rows"]["read"] == 4


def test_a_column_of_images_is_an_error_and_one_of_links_a_note():
    assert examined([pair(0, source_url="https://a"), pair(1)])["unused-columns"].level == "note"
    assert examined([pair(0, source_url="https://a"), pair(1)])["media"].level == "fine"
    assert examined([pair(0, tools=[{"name": "weather"}]), pair(1)])["media"].level == "warning"
    found = examined([pair(0, images=["cat.png"]), pair(1)])
    assert found["media"].level == "error"
    assert "images" in found["media"].says


def test_exact_copies_are_counted_once_each_and_near_copies_apart_from_them():
    text = "The mill stands by the river and grinds the corn of the whole valley"
    rows = [pair(0, f" {text}."), pair(1), pair(0, f" {text}."), pair(0, f" {text}!"), pair(0, f" {text}.")]
    found = examined(rows)
    assert (found["duplicates"].n, lines(found["duplicates"])) == (2, [3, 5])
    assert (found["near-duplicates"].n, lines(found["near-duplicates"])) == (1, [4])


def test_one_answer_to_different_questions_is_no_copy_and_neither_are_votes_of_two_people():
    sorry = " I am sorry, but that is something I cannot help you with at all."
    rows = [pair(i, sorry, prompt=p) for i, p in enumerate(["How do I bake bread?", "Where is the next station?"])]
    assert examined(rows)["near-duplicates"].level == "fine"
    votes = [pair(0, sorry, " Certainly, take a left and then a right.", annotator=who) for who in ("ana", "ben")]
    found = examined(votes)
    assert found["duplicates"].level == found["near-duplicates"].level == "fine"


def test_a_long_shared_prompt_does_not_make_copies_of_rows_with_different_answers():
    article = "Sum up this article. " + "The council met and spoke of the bridge. " * 50
    rows = [pair(0, " They spoke about the bridge again.", " Nothing happened in the town.", prompt=article)]
    rows.append(pair(1, " A meeting of the council took place.", " The bridge was painted blue.", prompt=article))
    assert examined(rows)["near-duplicates"].level == "fine"


# ---------------------------------------------------------------------------------------------- labels


def test_a_pair_judged_both_ways_is_a_contradiction_and_a_copy_is_none():
    rows = [pair(0, " yes", " no"), pair(0, " no", " yes"), pair(1, " yes", " no"), pair(1, " yes", " no")]
    found = examined(rows)["contradictions"]
    assert (found.n, found.of, lines(found), found.level) == (1, 2, [1, 2], "error")  # half of all
    assert examined([*rows, pair(2)])["contradictions"].level == "warning"


def test_a_preference_below_one_half_names_the_other_side_as_the_winner():
    rows = [pair(0, " yes", " no"), pair(0, " yes", " no", preference=0.2)]
    assert examined(rows)["contradictions"].n == 1
    assert examined([rows[0], {**rows[1], "preference": 0.5}])["contradictions"].n == 0  # a tie opposes nobody


def test_one_completion_with_both_thumbs_is_a_contradiction():
    rows = [{"prompt": "p", "completion": "c", "label": label} for label in (True, False)]
    found = examined([*rows, {"prompt": "p", "completion": "d", "label": True}])["contradictions"]
    assert (found.n, found.of, lines(found)) == (1, 2, [1, 2])


def test_named_annotators_may_differ_without_a_warning_and_one_annotator_may_not():
    ways = (" yes", " no"), (" no", " yes")
    assert (
        examined([pair(0, *w, annotator=a) for w, a in zip(ways, "ab", strict=True)])["contradictions"].level == "note"
    )
    assert examined([pair(0, *w, annotator="a") for w in ways])["contradictions"].level == "error"


def test_verdicts_turned_round_between_near_copies_are_found_in_pairs_and_in_thumbs():
    one, two = " The mill stands by the river and grinds the corn.", " Nobody knows where the miller of the town went."
    rows = [
        pair(0, one, two, prompt="Where is it?"),
        pair(1, two.replace("went.", "went?"), one, prompt="Where is it?"),
    ]
    found = examined(rows)
    assert (found["near-contradictions"].n, lines(found["near-contradictions"])) == (1, [1, 2])
    assert found["contradictions"].n == 0
    thumbs = [{"prompt": "Where is it?", "completion": one, "label": True}]
    thumbs.append({"prompt": "Where is it?", "completion": one.replace("corn.", "corn!"), "label": False})
    assert examined(thumbs)["near-contradictions"].n == 1


@pytest.mark.parametrize(("last", "circles"), [(("c", "a"), 1), (("a", "c"), 0)])
def test_a_circle_of_three_is_found_across_records(last, circles):
    rows = [pair(0, *sides, prompt="Which?") for sides in (("a", "b"), ("b", "c"), last)]
    found = examined([*rows, pair(1)])["intransitive"]
    assert (found.n, found.of) == (circles, 1)
    assert lines(found) == ([1, 2, 3] if circles else [])


def test_circles_are_counted_as_by_trying_all_triples():
    draw = random.Random(0)
    names = [f"answer {c}" for c in "abcdefg"]
    beats = {}
    for i, a in enumerate(names):
        for b in names[:i]:
            if draw.random() < 0.8:
                beats[(a, b) if draw.random() < 0.5 else (b, a)] = True
    found = examined([pair(0, *sides, prompt="Which?") for sides in beats])["intransitive"]
    met = circles = 0
    for i, a in enumerate(names):
        for j, b in enumerate(names[:i]):
            for c in names[:j]:
                met += all((x, y) in beats or (y, x) in beats for x, y in ((a, b), (b, c), (a, c)))
                circles += all(e in beats for e in ((a, b), (b, c), (c, a)))
                circles += all(e in beats for e in ((b, a), (c, b), (a, c)))
    assert circles > 0
    assert (found.n, found.of) == (circles, met)


def test_lists_count_as_the_comparisons_of_their_responses():
    ranked = [{"prompt": f"q{i}", "responses": ["the longest", "middle", "low"], "ranks": [1, 2, 3]} for i in range(7)]
    found = examined(ranked)
    assert (found["length-bias"].n, found["length-bias"].of) == (21, 21)
    assert found["position-bias"].level == "not_checked"  # sorted by rank: the place says nothing of the judge
    assert found["intransitive"].of == 7


def test_length_bias_is_the_share_of_longer_winners_with_ties_left_out():
    rows = [pair(i, " long enough", " short") for i in range(30)] + [pair(30 + i, " abc", " defgh") for i in range(10)]
    rows += [pair(40 + i, " same", " size") for i in range(5)]
    found = examined(rows)["length-bias"]
    assert (found.n, found.of, found.value[0]) == (30, 40, 0.75)
    assert "5 of equal length left out" in found.says
    assert found.level == "warning"
    assert found.value[1] > 0.5


def test_length_bias_counts_a_conversation_once_however_many_rows_it_has():
    rows = [pair(i, " long enough", " short", prompt="one and the same") for i in range(40)]
    found = examined(rows)["length-bias"]
    assert found.value == (1.0, pytest.approx(0.05), 1.0)  # one cluster proves next to nothing: 1 - 0.95
    assert found.level == "fine"


def test_length_bias_is_given_for_every_domain():
    rows = [pair(i, " long enough", " short", domain="a") for i in range(20)]
    rows += [pair(20 + i, " abc", " defgh", domain="b") for i in range(10)]
    by_domain = examined(rows)["length-bias"].by_domain
    assert [(d, e["n"], e["of"], e["value"][0]) for d, e in by_domain.items()] == [
        ("a", 20, 20, 1.0),
        ("b", 0, 10, 0.0),
    ]


def judged(i: int, preference: float) -> dict:
    return {
        "instruction": f"question {i}",
        "output_1": f"first {i}",
        "output_2": f"second {i}",
        "preference": preference,
    }


def test_position_bias_is_the_share_of_first_outputs_that_win():
    rows = [judged(i, 1) for i in range(45)] + [judged(45 + i, 2) for i in range(15)] + [judged(60, 1.5)]
    found = examined(rows)["position-bias"]
    assert (found.n, found.of, found.value[0], found.level) == (45, 60, 0.75, "warning")
    balanced = examined([judged(i, 1 + i % 2) for i in range(60)])["position-bias"]
    assert (balanced.value[0], balanced.level) == (0.5, "fine")
    always = examined([judged(i, 1) for i in range(60)])["position-bias"]
    assert always.level == "warning"


def test_position_cannot_be_asked_where_the_columns_name_the_winner():
    assert examined([pair(i) for i in range(3)])["position-bias"].level == "not_checked"


def test_alpha_is_that_of_the_papers_examples():
    # Krippendorff 2011, A (binary, two observers) and C (nominal, four observers, some missing)
    assert krippendorff_alpha(list(zip("0100000010", "1110010000", strict=True))).value == pytest.approx(
        0.095, abs=5e-4
    )
    observers = "123321412...", "1233224125.3", ".3332342251.", "12332441251."
    units = [[rating for rating in unit if rating != "."] for unit in zip(*observers, strict=True)]
    alpha = krippendorff_alpha([unit for unit in units if len(unit) > 1])
    assert alpha.value == pytest.approx(0.743, abs=5e-4)
    assert alpha.low < 0.743 < alpha.high


def test_alpha_is_one_for_perfect_agreement_near_zero_for_chance_and_undefined_without_variation():
    assert krippendorff_alpha([("a", "a"), ("b", "b")] * 5).value == 1.0
    draws = np.random.default_rng(0).integers(0, 2, size=(4000, 2))
    chance = krippendorff_alpha([tuple(unit) for unit in draws.tolist()])
    assert chance.low < 0 < chance.high  # seeded; a 95 % interval
    assert chance.agreement == pytest.approx(0.5, abs=0.03)
    assert math.isnan(krippendorff_alpha([("a", "a")] * 5).value)


def test_agreement_needs_annotators_with_names_and_joins_their_rows():
    votes = [(i, who) for i in range(30) for who in ("ana", "ben")]
    rows = [
        pair(i, " yes", " no", annotator=who) if i % 3 or who == "ana" else pair(i, " no", " yes", annotator=who)
        for i, who in votes
    ]
    found = examined(rows)["annotators"]
    assert (found.n, found.of) == (30, 30)
    assert "agree in 67 %" in found.says  # 20 of 30
    # ratings: 50 of one kind ("no" < "yes" in order of the texts) and 10 of the other; 10 units disagree
    assert found.value[0] == pytest.approx(1 - 59 * 20 / (60**2 - 50**2 - 10**2))
    assert found.level == "warning"
    nameless = [{key: value for key, value in row.items() if key != "annotator"} for row in rows]
    assert examined(nameless)["annotators"].level == "not_checked"


def test_shares_of_votes_are_reported_as_they_are():
    rows = [pair(0, votes_chosen=3, votes_rejected=1), pair(1, votes_chosen=2, votes_rejected=0)]
    found = examined(rows)["annotators"]
    assert (found.level, found.n, found.of) == ("note", 1, 2)
    assert "88 % of the votes" in found.says  # (0.75 + 1) / 2


@pytest.mark.parametrize(("ups", "level"), [(40, "error"), (39, "warning"), (30, "fine"), (0, "error")])
def test_thumbs_of_one_kind_are_an_error_and_nearly_so_a_warning(ups, level):
    rows = [{"prompt": f"p {i}", "completion": f"c {i}", "label": i < ups} for i in range(40)]
    assert examined(rows)["one-sided"].level == level


def test_nothing_but_ties_is_an_error():
    assert examined([pair(i, preference=0.5) for i in range(4)])["one-sided"].level == "error"
    assert examined([pair(i, preference=0.5 if i else 1.0) for i in range(8)])["one-sided"].n == 7
    same = [{"prompt": f"q {i}", "responses": ["a", "b"], "scores": [3, 3]} for i in range(4)]
    assert examined(same)["one-sided"].level == "error"


def test_scores_that_never_change_are_a_warning_and_weights_of_zero_everywhere_an_error():
    found = examined([pair(i, chosen_score=1, rejected_score=1) for i in range(3)])["constant-columns"]
    assert (found.level, found.says) == ("warning", "score is 1 everywhere")
    assert examined([pair(i, chosen_score=i, rejected_score=0) for i in range(3)])["constant-columns"].level == "fine"
    assert examined([pair(i, weight=0) for i in range(3)])["constant-columns"].level == "error"
    assert examined([pair(i, weight=1) for i in range(3)])["constant-columns"].level == "not_checked"
    assert examined([pair(i, margin=2) for i in range(3)])["constant-columns"].says == "margin is 2 everywhere"
    broken = [*(pair(i, margin=i) for i in range(3)), pair(3, margin=math.nan)]
    found = examined(broken)["constant-columns"]
    assert (found.level, lines(found)) == ("warning", [4])


# ----------------------------------------------------------------------------------------------- texts


def test_sides_that_only_white_space_tells_apart_say_nothing():
    found = examined([pair(0, " The mill is old.", " The  mill is old.\n"), *(pair(i) for i in range(1, 5))])
    assert (found["identical-responses"].level, lines(found["identical-responses"])) == ("error", [1])


def test_a_response_that_begins_with_its_prompt_is_found_and_one_with_a_greeting_is_not():
    prompt = "How far is it to the harbour?"
    rows = [pair(0, f"{prompt} A mile.", prompt=prompt), pair(1, "Hi there!", prompt="Hi"), pair(2, prompt=prompt)]
    assert lines(examined(rows)["prompt-repeated"]) == [1]


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user",
        "[INST] Hi [/INST]",
        "<start_of_turn>model",
        "<|begin_of_text|>Hi",
        "so it ends.</s>",
        "<eos>",
    ],
)
def test_markers_of_templates_are_found_in_messages_and_in_text(text):
    rows = [pair(0, prompt=text), *(pair(i) for i in range(1, 10))]
    found = examined(rows)["template-markers"]
    assert (found.level, lines(found)) == ("warning", [1])  # in plain text they may be meant
    turns = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in rows
    ]
    assert examined(turns)["template-markers"].level == "error"  # the template would write them a second time


@pytest.mark.parametrize(
    "text", ["a < b and [1] is a list", "<b>bold</b> [link](x)", "x <| y |> z", "<think>so</think>"]
)
def test_ordinary_brackets_are_no_markers(text):
    assert examined([pair(0, prompt=text)])["template-markers"].level == "fine"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" Sure.\n\nHuman: And then?", True),
        (" Sure.\n\nUser: And then?\n\nAssistant: Yes.", True),
        (" Sure.\n### Instruction:\nGo on", True),
        (" The setting is called\nUser: admin", False),
        (" To be Human: what does it mean?", False),
    ],
)
def test_the_next_speakers_turn_is_found_at_the_start_of_a_paragraph(text, found):
    assert (examined([pair(0, text)])["other-speaker"].n == 1) is found


def test_sides_that_share_half_of_themselves_are_counted_and_their_parting_inside_a_word():
    start = " It opens at nine on weekdays, and tickets are sold until the after"
    rows = [pair(0, start + "noon.", start + "math."), pair(1, start + " bell.", start + ", then."), pair(2)]
    found = examined(rows)["shared-start"]
    assert (found.n, lines(found), found.level) == (2, [1, 2], "warning")
    assert "in 1 they part in the middle of a word" in found.says
    start = "駅の裏にとてもおいしい食堂があります。ぜひ一度行ってみてください。" * 2
    found = examined([pair(0, start + "お願い。", start + "頼む。"), pair(1)])["shared-start"]
    assert (found.n, "in 0 they part" in found.says) == (1, True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The stone bridge by the old mill is the oldest one in town.", "en"),
        ("Die steinerne Brücke an der alten Mühle ist die älteste.", "de"),
        ("駅の裏にとてもおいしい食堂があります。ぜひ行ってみてください。", "ja"),
        ("Yes.", "unsure"),
        ("12 345 678 901 234 567 890 123 456 789", "unsure"),
    ],
)
def test_languages_are_told_where_the_text_is_long_enough(text, name):
    assert language(text) == name


def test_a_german_answer_against_an_english_one_is_found_on_its_line():
    german = " Die steinerne Brücke an der alten Mühle ist wohl die älteste in dieser Stadt."
    english = " The stone bridge by the old mill is probably the oldest one in this town."
    rows = [pair(i, english, english.replace("old", "big")) for i in range(3)] + [pair(3, english, german)]
    found = examined(rows)["mixed-languages"]
    assert (found.n, found.of, lines(found)) == (1, 4, [4])


# ------------------------------------------------------------------------------------------- intervals


def test_above_the_bootstraps_limit_the_interval_is_the_same_to_a_tenth_of_its_width():
    values = (np.random.default_rng(0).random(3000) < 0.6).astype(float).tolist()
    many = [f"c{i}" for i in range(3000)]
    by_formula, by_bootstrap = share(values, many), mean(values, clusters=many, bounds=(0.0, 1.0))
    width = by_bootstrap.high - by_bootstrap.low
    assert by_formula == pytest.approx(by_bootstrap.as_list(), abs=width / 10)
    n, p = 3000, sum(values) / 3000  # every row its own cluster: the textbook interval
    assert by_formula[2] - by_formula[0] == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / (n - 1)))


def test_the_same_data_give_the_same_findings_in_any_domain_order_of_rows():
    rows = [pair(i, domain="ab"[i % 2]) for i in range(6)]
    found, turned = examined(rows), examined(rows[::-1])
    assert {code: (f.level, f.n, f.of) for code, f in found.items()} == {
        code: (f.level, f.n, f.of) for code, f in turned.items()
    }


def test_prompts_without_responses_are_examined_without_a_fault():
    found = examined([{"prompt": f"{word}?"} for word in ("Why", "What for", "How far", "Where to")])
    assert {f.level for f in found.values()} <= {"fine", "not_checked"}
