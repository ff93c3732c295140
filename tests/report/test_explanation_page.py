"""Facts about the page of an explanation that need no browser."""

import json
import math
import re

import pytest
from example_explanation import OWN, SHARED, TRUSTED, UNSTABLE, N, entry, example, weights, write_example
from example_run import HOSTILE
from test_page import Page

from unipref.core.errors import DataError
from unipref.core.io import write_json
from unipref.report import _explained, _explanation, write_explanation, write_report
from unipref.report._words import MINUS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    write_example(folder)
    return folder


@pytest.fixture(scope="module")
def told(folder):
    return json.loads((folder / "explanation.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(folder):
    path = write_explanation(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def numbers(figure, names=("value", "low", "high")):
    return [float(figure[f"data-{name}"]) if figure[f"data-{name}"] else None for name in names]


def text(page):
    return " ".join("".join(page.texts).split())


def remade(told, tmp_path):
    write_json(tmp_path / "explanation.json", told)
    return Page(write_explanation(tmp_path).read_text(encoding="utf-8"))


# ---- numbers ----


def test_every_shared_bar_holds_the_numbers_of_its_mechanism_unrounded(page, told):
    drawn = {(f["data-mechanism"], f["data-concept"]): f for f in page.figures("shared")}
    assert len(drawn) == len(page.figures("shared")) == sum(len(each) for each in SHARED.values())
    for (mechanism, concept), figure in drawn.items():
        entry = told["mechanisms"][mechanism]["shared"][concept]
        assert numbers(figure) == [entry["weight"], entry["low"], entry["high"]]
        assert float(figure["data-lift"]) == entry["lift"]
        assert figure["data-drives"] == str(entry["drives"]).lower()
        assert float(figure["data-stability"]) == entry["stability"]


def test_every_domain_bar_holds_its_weight_and_its_own_part(page, told):
    drawn = {(f["data-mechanism"], f["data-domain"], f["data-concept"]): f for f in page.figures("domain")}
    several = {name: each["domains"] for name, each in told["mechanisms"].items() if len(each["domains"]) > 1}
    expected = {(m, d, c): e for m, ds in several.items() for d, es in ds.items() for c, e in es.items()}
    assert set(drawn) == set(expected)
    assert len(page.figures("domain")) == len(drawn)
    for key, figure in drawn.items():
        assert numbers(figure, ["value", "specific"]) == [expected[key]["weight"], expected[key]["specific"]]


def test_a_domain_bar_is_a_light_shared_part_and_a_dark_part_of_its_own_that_ends_at_the_weight(told):
    rows = {row["key"]: row for row in _explanation._domains(told, told["mechanisms"]["people"])["law"]["rows"]}
    panel = _explanation._domains(told, told["mechanisms"]["people"])["law"]
    axis_zero = panel["zero"]
    turned = rows["characters"]  # 0.4 shared, -0.5 here: from +0.4 back beyond 0
    common, own = turned["pieces"]
    assert common["word"] == "common"
    assert own["word"] == "own"
    assert common["x"] == pytest.approx(axis_zero, abs=0.011)
    assert own["x"] + own["width"] == pytest.approx(common["x"] + common["width"], abs=0.011)
    assert own["width"] / common["width"] == pytest.approx(0.5 / 0.4, rel=1e-3)
    assert turned["arrow"] == {"at": own["x"], "right": False}
    alone = rows["says:lex"]
    assert [piece["word"] for piece in alone["pieces"]] == ["own"]
    assert alone["arrow"]["right"]
    assert rows["clarity"]["arrow"] is None  # nothing of its own in law
    assert alone["parts"] == "all of it here"
    assert turned["parts"] == f"+20.0 shared, {MINUS}25.0 here"


def test_what_a_domain_has_of_its_own_stands_before_what_it_shares(told):
    rows = _explanation._domains(told, told["mechanisms"]["people"])["law"]["rows"]
    n_own = len(OWN["people"]["law"])
    assert all(row["own"] for row in rows[:n_own])
    assert not any(row["own"] for row in rows[n_own:])


def test_the_trust_box_comes_first_and_holds_every_accuracy(page, told):
    sections = [a["id"] for tag, a in page.elements if tag == "section"]
    assert sections[:7] == ["trust", "shared", "domains", "mechanisms", "bias", "pairs", "use"]
    accuracy = told["accuracy"]
    shown = {f["data-run"]: numbers(f) for f in page.figures("dot") if f["data-metric"] == "accuracy"}
    assert shown["this explanation"] == accuracy["heldout"]
    for name, triple in accuracy["baselines"].items():
        assert shown[_explained.BASELINES[name]] == triple
    for key in ("by_domain", "leave_one_domain_out"):
        assert {f["data-run"]: numbers(f) for f in page.figures("dot") if f["data-metric"] == key} == accuracy[key]
    sure = {f["data-run"]: numbers(f) for f in page.figures("dot") if f["data-metric"] == "calibration"}
    assert sure == {"1": [0.52, 0.4, 0.64], "2": [0.85, 0.75, 0.92]}
    assert "55.0 % sure" in text(page)
    checks = {f["data-check"]: f for f in page.figures("check")}
    assert {name: numbers(f) for name, f in checks.items()} == {
        name: accuracy["differences"][name] for name in ("majority", "length_only")
    }


def test_contributions_of_a_pair_sum_to_its_logit_and_the_rest_is_told_as_one(page, told):
    for pair in told["pairs"]:
        steps = [f for f in page.figures("contribution") if f["data-pair"] == pair["id"]]
        (logit,) = [f for f in page.figures("logit") if f["data-pair"] == pair["id"]] or [None]
        if not pair["contributions"]:
            assert logit is None
            continue
        assert float(logit["data-value"]) == pair["logit"]
        assert float(logit["data-predicted"]) == pair["predicted"]
        assert math.fsum(float(f["data-value"]) for f in steps) == pytest.approx(pair["logit"], abs=1e-12)
        named = [[f["data-concept"], float(f["data-x"]), float(f["data-value"])] for f in steps if f["data-concept"]]
        assert named == pair["contributions"][:10]
        assert len(steps) == min(len(pair["contributions"]), 11)


def test_steps_of_a_waterfall_hang_together_and_end_where_the_total_ends(told):
    pair = _explanation._pair(told, told["pairs"][2])
    ends = [pair["zero"]]
    for step in pair["steps"]:
        left, right = step["piece"]["x"], step["piece"]["x"] + step["piece"]["width"]
        start, end = (left, right) if step["value"] > 0 else (right, left)
        assert start == pytest.approx(ends[-1], abs=0.03)
        ends.append(end)
    total = pair["total"]
    assert ends[-1] == pytest.approx(total["x"] + (total["width"] if pair["logit"] > 0 else 0), abs=0.03)


def test_comparisons_of_mechanisms_hold_weights_and_what_each_overlooks(page, told):
    lanes = {(f["data-mechanism"], f["data-concept"]): numbers(f)[0] for f in page.figures("compared")}
    assert lanes["people", "characters"] == 0.4
    assert lanes["judge", "hedges"] == 0.0  # it has the concept, and the penalty left it at 0
    assert lanes["model", "questions"] is None  # it does not have it
    rows = [(f["data-concept"], float(f["data-value"])) for f in page.figures("overlooked")]
    assert sorted(rows) == sorted((e["concept"], e["difference"]) for b in told["between"] for e in b["overlooked"])
    similarity = {(f["data-a"], f["data-b"]): f["data-value"] for f in page.figures("similarity")}
    assert similarity == {("people", "judge"): "0.5", ("people", "model"): "", ("judge", "model"): "-0.25"}


def test_bias_is_drawn_alone_and_beside_content(page, told):
    dots = [f for f in page.figures("dot") if f["data-metric"].startswith("bias.")]
    assert len(dots) == 2 * 2 * len(TRUSTED)  # of which tables, without a number anywhere, are none
    alone = next(f for f in dots if (f["data-run"], f["data-metric"]) == ("position", "bias.alone"))
    assert numbers(alone) == told["bias"]["position"]["alone"]
    unknown = next(f for f in dots if (f["data-run"], f["data-metric"]) == ("characters", "bias.beside_content"))
    assert numbers(unknown) == [None, None, None]
    words = text(page)
    assert words.count("the concepts separate the held-out pairs") == len(TRUSTED)
    for name in TRUSTED:
        assert f"Not known for {name}: tables (only 2 held-out pairs differ)." in words


def test_how_often_a_verdict_changes_with_the_order_is_in_the_header_and_of_every_mechanism(page, told, tmp_path):
    shown = {f.get("data-mechanism") or f["data-judge"]: numbers(f) for f in page.figures("order")}
    assert shown == {"people": [None, None, None], "a-model": [0.07, 0.05, 0.09]}
    words = text(page)
    header = words[: words.index("May it be trusted?")]
    assert "not asked in both orders; what a-model said of concepts: 7.0 %" in header
    assert "7.0 % of 900 verdicts asked in both orders, 5.0 to 9.0" in header
    each = {f["data-mechanism"]: numbers(f) for f in page.figures("mechanism-order")}
    assert each == {"people": [None] * 3, "judge": [0.275, 0.15, 0.42], "model": [None] * 3}
    alone = {**json.loads(json.dumps(told)), "main": "judge", "judge": {}}
    assert (
        "27.5 % of 40 pairs asked in both orders, 15.0 to 42.0; the first won both times in 8, the second in 2"
        in text(remade(alone, tmp_path))
    )


def test_what_a_judge_said_stands_beside_its_pair_and_nowhere_else(page, told):
    said = [a for _, a in page.elements if a.get("class") == "evidence"]
    assert len(said) == sum(bool(pair["evidence"]) for pair in told["pairs"]) == len(TRUSTED)
    words = text(page)
    for name in TRUSTED:
        assert f"Said by {name}: the first is clearer, 猫 {HOSTILE}" in words


def test_concepts_of_which_only_the_sum_is_known_say_so_and_give_its_interval(tmp_path, told):
    close = json.loads(json.dumps(told))
    of_sum = {"with": [["clarity", 1]], "r": 0.97, "weight": 0.65, "low": 0.5, "high": 0.8}
    why = "on these held-out pairs it goes together with clarity (|r| up to 0.97)"
    close["mechanisms"]["people"]["shared"]["characters"] |= {
        "low": None, "high": None, "no_interval": why, "together": of_sum
    }  # fmt: skip
    words = text(remade(close, tmp_path))
    assert f"no interval: {why}; of their sum +25.0 to +40.0" in words
    assert "stands for tokens, too" in words


def test_breaking_ties_with_a_model_tells_who_was_asked_what_it_cost_and_how_the_hints_did(page, told):
    words = text(page)
    assert "a-model was asked again about pairs that a mechanism could not decide" in words
    assert "20 of 31 pairs, drawn by a hash." in words
    assert "Overlooked over random: +12.0 points, +2.0 to +22.0." in words
    assert (
        "190 requests (1,900 tokens), 10 answers kept from before; 40.0 % of 97 verdicts asked in both orders, 30.0 to "
        "50.0, changed with the order." in words
    )
    again = told["applications"]["tie_break_live"]["mechanisms"]["judge"]
    [plain] = [f for f in page.figures("dot") if f["data-run"] == "asked plainly, without a hint"]
    assert numbers(plain) == again["plain"]


def test_applications_are_drawn_with_their_difference_or_say_why_not(page):
    words = text(page)
    assert "Leading over random: +15.0 points, +5.0 to +25.0." in words
    assert "Not tested: 1 concept has a weight; the test needs 2." in words
    assert "more characters, less hedges" in words
    assert {tuple(numbers(f)) for f in page.figures("difference")} == {(0.15, 0.05, 0.25), (0.12, 0.02, 0.22)}


def test_guidance_that_was_tried_with_a_model_names_it_and_what_was_missing(tmp_path, told):
    live = json.loads(json.dumps(told))
    live["applications"]["guidance_live"] = {
        "mechanism": "people", "model": "a-model", "k": 4, "n": 20, "missing": 3, "concepts": [["clarity", 1]],
        "top": [0.8, 0.6, 0.9], "random": [0.5, 0.4, 0.6], "difference": [0.3, 0.1, 0.5],
    }  # fmt: skip
    words = text(remade(live, tmp_path))
    assert "a-model answered held-out prompts plainly" in words
    assert "people, 20 prompts, 4 concepts each" in words
    assert "Leading over random: +30.0 points, +10.0 to +50.0." in words
    assert "3 verdicts missing and left out." in words
    assert "which may favour what it was told" in words


def test_the_glossary_has_every_concept_with_what_it_means(page, told):
    rows = [a["data-concept"] for tag, a in page.elements if tag == "tr" and "data-concept" in a and len(a) == 1]
    assert rows == list(told["concepts"])
    assert {f["data-concept"]: numbers(f) for f in page.figures("alone")} == {
        key: concept["alone"]["share"] for key, concept in told["concepts"].items()
    }
    assert "Nearly the same: tokens." in text(page)
    assert "High: easy to follow. Low: hard to follow." in text(page)


def test_agreement_of_judges_has_a_column_where_some_concept_has_one(tmp_path, page, told):
    assert "agreement" not in page.texts
    judged = json.loads(json.dumps(told))
    judged["concepts"]["clarity"]["agreement"] = 0.375
    shown = remade(judged, tmp_path).texts
    assert "agreement" in shown
    assert "0.375" in shown


# ---- words ----


def test_findings_name_only_what_drives_and_is_confirmed_on_other_prompts(told):
    findings = _explained.findings(told)
    assert findings[0] == (
        "In all domains, what people prefer has more of: characters (+20.0 %). 1 further concept keeps the sign in "
        "refits, but held-out prompts do not confirm it."
    )
    assert "Only in law, what people prefer has more of: “lex” (+15.0 %)." in findings
    assert not any("hedges" in each or "extra" in each for each in findings)  # unstable
    assert "model: the explanation is not trusted, so no concept is said to drive." in findings
    assert (
        f"People lean more than judge towards questions (0.0 % against {MINUS}12.5 %) and clarity "
        "(+12.5 % against +2.5 %)." in findings
    )
    assert not any("model" in each and "lean" in each for each in findings)


def test_a_shared_weight_that_a_domain_turns_round_is_said_where_it_is_confirmed(told):
    told = json.loads(json.dumps(told))
    told["mechanisms"]["people"]["domains"]["law"]["characters"]["high"] = -0.01
    assert (
        f"In law, characters counts the other way round for people: {MINUS}5.0 % there, +20.0 % shared."
        in _explained.findings(told)
    )


def test_where_nothing_is_trusted_nothing_drives_and_the_page_says_so_first(tmp_path):
    page = remade(example(names=("model",)), tmp_path)
    words = text(page)
    assert "No trusted explanation of what model prefers" in words
    assert "Do not build on this explanation" in words
    assert "So nothing below may be said to drive preferences" in words
    assert {f["data-drives"] for f in page.figures("shared")} == {"false"}
    assert not re.search(r"\bdrives; ", words)
    assert all("unclear" in f["class"] for f in page.figures("shared"))
    (verdict,) = [a for _, a in page.elements if a.get("id") == "verdict"]
    assert verdict["data-trusted"] == "false"
    passed = {f["data-check"]: f["data-passed"] for f in page.figures("check")}
    assert passed == {"majority": "true", "length_only": "false"}


def test_a_domain_that_is_not_trusted_says_so_in_its_panel_with_its_own_numbers(page):
    trusted = {(f["data-mechanism"], f["data-domain"]): f["data-passed"] for f in page.figures("trusted-in")}
    assert trusted == {
        (name, domain): str(domain == "law").lower() for name in ("people", "judge") for domain in OWN[name]
    }
    drives = {f["data-domain"] for f in page.figures("domain") if f["data-drives"] == "true"}
    assert drives == {"law"}
    assert (
        "Not trusted here. Right on 72.0 % (60.0 to 80.0) of its held-out pairs: +21.0 points against the side that "
        "wins more often (+15.0 to +27.0) and +5.0 points against length alone (+1.0 to +9.0)." in text(page)
    )


def test_shared_weights_that_do_not_predict_a_left_out_domain_are_said_not_to_travel(tmp_path, told):
    stuck = json.loads(json.dumps(told))
    for mechanism in stuck["mechanisms"].values():
        mechanism["accuracy"]["left_out_domains"] = [0.52, 0.48, 0.56]
        for weight in mechanism["shared"].values():
            weight["drives"] = False
    words = text(remade(stuck, tmp_path))
    assert "Not shown to travel. Weights shared by the other domains are right on 52.0 % (48.0 to 56.0)" in words
    assert "so no concept is said to drive everywhere" in words
    assert "Not shown to travel" not in text(remade(told, tmp_path))


def test_a_stable_sign_that_held_out_prompts_do_not_confirm_says_so():
    characters = _explained.standing(entry("characters", 0.4, True), trusted=True)
    assert characters["told"] == "drives; same sign in 99 % of refits"
    clarity = _explained.standing(entry("clarity", 0.25, True), trusted=True)
    assert clarity["told"] == "drives; same sign in 99 % of refits, but the interval does not confirm it"
    unstable = _explained.standing(entry(UNSTABLE[0], 0.25, True), trusted=True)
    assert unstable == {"word": "unclear", "told": "not shown to drive; same sign in 71 % of refits",
                        "interval": "+6.2 to +21.9"}  # fmt: skip
    questions = _explained.standing(entry("questions", -0.25, True), trusted=True)
    assert questions["interval"] == "no interval: only 3 held-out pairs differ in it"
    assert questions["told"] == "drives; same sign in 99 % of refits"


def test_length_that_was_not_compared_is_unknown_and_not_passed(told):
    mechanism = json.loads(json.dumps(told["mechanisms"]["people"]))
    del mechanism["accuracy"]["differences"]["length_only"], mechanism["accuracy"]["baselines"]["length_only"]
    checks = {check["name"]: check for check in _explained.trust(mechanism)["checks"]}
    assert checks["length_only"]["passed"] is None
    assert "no concept of these is the length" in checks["length_only"]["sentence"]


@pytest.mark.parametrize(
    ("key", "old", "new", "told_as"),
    [
        ("characters", 1.5, 0.25, "the first response were less far ahead in characters (+1.50 to +0.25)"),
        (
            "characters",
            -1.5,
            -2.5,
            f"the second response were further ahead in characters ({MINUS}1.50 to {MINUS}2.50)",
        ),
        (
            "characters",
            1.5,
            -0.25,
            f"the second response, not the first, had more of characters (+1.50 to {MINUS}0.25)",
        ),
        ("characters", 0.0, 0.5, "the first response had more of characters (0.00 to +0.50)"),
        ("characters", 0.5, 0.001, "the two were level in characters (+0.50 to 0.00)"),
        ("says:lex", 1.0, -1.0, f"the second response, not the first, said “lex” (+1.00 to {MINUS}1.00)"),
        ("says:lex", 0.0, 1.0, "the first response alone said “lex” (0.00 to +1.00)"),
        ("says:lex", 1.0, 0.0, "both or neither said “lex” (+1.00 to 0.00)"),
    ],
)
def test_a_flip_says_what_would_have_to_move_and_which_way(told, key, old, new, told_as):
    pair = {"logit": 1.0, "flip": {"found": True, "changes": [[key, old, new]]}}
    expected = f"The verdict would turn if {told_as}. Numbers are first minus second, in spreads."
    assert _explained.changes(told, pair) == expected


def test_several_changes_are_all_needed_and_none_is_said_where_none_suffices(told):
    pair = {"logit": 1.0, "flip": {"found": True, "changes": [["characters", 1.0, 0.5], ["clarity", 0.0, -0.5]]}}
    assert ", and the second response had more of clarity" in _explained.changes(told, pair)
    stuck = {**pair, "flip": {"found": False, "changes": []}}
    assert _explained.changes(told, stuck).startswith("No change of concepts within what the data hold")
    assert _explained.changes(told, {**stuck, "logit": 0}).startswith("There is no verdict to turn")


@pytest.mark.parametrize(
    ("p", "predicted", "verdict"),
    [(1.0, 0.7, "right"), (0.3, 0.7, "wrong"), (0.0, 0.2, "right"), (0.5, 0.7, "tie"), (1.0, 0.5, "undecided")],
)
def test_a_pair_is_right_where_the_side_that_was_preferred_is_predicted(p, predicted, verdict):
    assert _explanation._verdict({"p": p, "predicted": predicted}) == verdict


def test_a_mechanism_without_a_name_is_not_given_one(tmp_path):
    told = json.loads(json.dumps(example(names=("people",))).replace('"people"', '"all"'))
    words = text(remade(told, tmp_path))
    assert "What is preferred has more of: characters" in words
    assert "not named in the data" in words


def test_causes_are_denied_and_never_claimed(page):
    words = text(page)
    assert "Not causal" in words
    assert not re.search(r"\b(because of|caused by|makes (people|judge)|leads to)\b", words)


def test_notes_settings_source_and_command_are_on_the_page(page):
    words = text(page)
    assert "unipref explain law=law.jsonl food=food.jsonl" in words
    assert "ab" * 32 in words
    assert "Ten people judged." in words
    assert "are left out: tax (4)" in words
    assert "36 held-out pairs of 300" in words


# ---- the file ----


def test_nothing_is_loaded_from_anywhere(page, folder):
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", html)
    assert "default-src 'none'" in html
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "action", "data"} & set(attributes), (tag, attributes)


def test_text_of_data_and_names_of_concepts_cannot_become_markup(page):
    assert sum(tag == "script" for tag, _ in page.elements) == 2
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert not any(tag == "img" for tag, _ in page.elements)
    # of each mechanism a prompt, a response; the concept in bars, steps, tables and the glossary
    assert "".join(page.texts).count(HOSTILE) > 2 * len(TRUSTED)


def test_ids_are_unique_and_every_tab_controls_a_panel(page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    tabs = [a for _, a in page.elements if a.get("role") == "tab"]
    assert len(tabs) == 3 * len(TRUSTED)  # shared, domains, bias
    panels = {a["id"]: a for _, a in page.elements if a.get("role") == "tabpanel"}
    assert {a["aria-controls"] for a in tabs} == set(panels)
    assert {panel["aria-labelledby"] for panel in panels.values()} == {a["id"] for a in tabs}
    anchors = {a["href"][1:] for tag, a in page.elements if tag == "a" and a["href"].startswith("#")}
    assert anchors <= set(ids)


def test_one_mechanism_of_one_domain_has_no_empty_sections(tmp_path):
    page = remade(example(names=("model",)), tmp_path)
    sections = [a["id"] for tag, a in page.elements if tag == "section"]
    assert "domains" not in sections
    assert "mechanisms" not in sections
    assert not any(a.get("role") == "tab" for _, a in page.elements)
    assert page.figures("mechanism") == []


def test_a_study_without_weights_pairs_bias_and_applications_is_still_a_page(tmp_path, told):
    bare = json.loads(json.dumps(told))
    for mechanism in bare["mechanisms"].values():
        mechanism |= {"shared": {}, "bias": {}, "domains": {name: {} for name in mechanism["domains"]}}
    bare |= {"pairs": [], "applications": {}, "between": []}
    words = text(remade(bare, tmp_path))
    assert "No concept has a weight: the penalty that predicts best leaves none." in words
    assert "no concept is confirmed" in words


def test_unknown_bias_is_said_and_not_drawn(tmp_path, told):
    unknown = json.loads(json.dumps(told))
    nothing = {"alone": [None] * 3, "beside_content": [None] * 3}
    unknown["mechanisms"]["judge"]["bias"] = {"position": nothing}
    assert "Not known for judge:" in text(remade(unknown, tmp_path))


def test_an_interval_far_wider_than_the_bars_does_not_flatten_them(told):
    wide = {"characters": {**told["shared"]["characters"], "low": -60.0, "high": 90.0}}
    (row,) = _explanation._bars(told, wide.items(), True)["rows"]
    assert row["pieces"][0]["width"] > 10
    assert row["whisker"] == (0.0, 100.0) or row["whisker"][1] - row["whisker"][0] > 80


def test_the_sums_of_the_example_are_right(told):
    for pair in told["pairs"]:
        assert math.fsum(part[2] for part in pair["contributions"]) == pytest.approx(pair["logit"], abs=1e-15)
        w = weights(pair["mechanism"], pair["domain"])
        assert all(part[2] == pytest.approx(w[part[0]] * part[1]) for part in pair["contributions"])
    assert len(told["pairs"]) == N * len(TRUSTED)


def test_write_report_chooses_the_page_and_a_folder_without_a_whole_file_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"holds no explanation\.json; run `unipref explain` to its end first"):
        write_explanation(tmp_path)
    (tmp_path / "explanation.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        write_report(tmp_path)
    write_example(tmp_path)
    assert "What drives preferences: small" in write_report(tmp_path).read_text(encoding="utf-8")
