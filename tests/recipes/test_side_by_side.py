"""Finished runs side by side: which rows count, what differs, what may be compared."""

import json
import math

import pytest
from rich.console import Console
from run_folders import DESCRIBED, read, write_run

from unipref.core.errors import ConfigError, DataError
from unipref.core.io import write_json
from unipref.evaluate import against_baseline, fronts, summarise
from unipref.recipes import load_recipe
from unipref.recipes.align import align
from unipref.recipes.compare import compare, parse_methods
from unipref.recipes.side_by_side import parse_axes, parse_families, side_by_side
from unipref.report import write_report

DPO, WIDE = {"method": "dpo", "options": {"beta": 0.1}}, {"method": "dpo", "options": {"beta": 0.5}}
OFF = {"method": "upo", "options": {"base": "dpo", "lam": 0.0}}
UPO = {"method": "upo", "options": {"base": "dpo", "lam": 2.0}}
GOAL = "aux.goal.generations"


def together(folders, to, **options):
    folder = side_by_side([str(folder) for folder in folders], output=to, **options)
    return read(folder)


def rows_of(folder, run):
    saved = json.loads((folder / run / "evaluation.json").read_text(encoding="utf-8"))
    return saved["pairs"], saved["generations"]


def difference(found, a, metric):
    [entry] = [entry for entry in found["differences"] if (entry["a"], entry["metric"]) == (a, metric)]
    return entry


def write_one(home):
    return write_run(home / "one", {"dpo": (DPO, 0.5, 0.0, 1.0), "upo": (UPO, 0.4, 1.0, 2.0)})


def write_two(home):
    return write_run(home / "two", {"dpo": (WIDE, 0.5, 0.0, 1.0), "off": (OFF, 0.4, 0.2, 2.0)})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def one(home):
    return write_one(home)


@pytest.fixture(scope="module")
def two(home):
    return write_two(home)


@pytest.fixture(scope="module")
def both(one, two, home):
    return together([one, two], home / "both")


# ---- numbers ----


def test_runs_judged_on_the_same_rows_have_the_numbers_of_their_own_summaries(one, two, both):
    found = both
    for name, place in (("one/dpo", one / "dpo"), ("upo", one / "upo"), ("two/dpo", two / "dpo")):
        expected = summarise(*rows_of(place.parent, place.name), designer=["goal"])
        for metric in ("accuracy", "kl", "length", "aux", "n", "by_seed"):
            assert found["runs"][name][metric] == expected[metric]
    assert found["heldout"]["pairs"] == {
        "shared": 30, "conversations": 30, "of": dict.fromkeys(found["runs"], 30),
        "conversations_of": dict.fromkeys(found["runs"], 30),
    }  # fmt: skip


def test_differences_are_paired_and_holms_over_all_runs(one, two, both):
    found = both
    assert found["baseline"] == "one/dpo"
    rows = {"one/dpo": rows_of(one, "dpo"), "upo": rows_of(one, "upo"), "two/dpo": rows_of(two, "dpo"),
            "off": rows_of(two, "off")}  # fmt: skip
    for entry in against_baseline(rows, "one/dpo", designer=["goal"]):
        ours = difference(found, entry["a"], entry["metric"])
        assert ours["value"] == entry["value"]
        assert (ours["p"], ours["p_holm"], ours["paired"]) == (entry["p"], entry["p_holm"], True)
    assert len(found["differences"]) == 3 * len({entry["metric"] for entry in found["differences"]})
    gain = difference(found, "upo", GOAL)
    assert gain["value"][1] > 0.8  # 1.0 with a deviation of 0.1 and what a prompt adds cancelled
    assert gain["p_holm"] < 0.01


def test_only_rows_that_all_runs_have_count_and_their_number_is_said(one, tmp_path):
    moved = write_run(tmp_path / "moved", {"later": (DPO, 0.5, 0.0, 1.0)}, start=10, n_prompts=15)
    found = together([one, moved], tmp_path / "both")
    assert found["heldout"]["pairs"]["shared"] == 20  # 10 to 29
    assert found["heldout"]["generations"]["shared"] == 15  # 10 to 24
    pairs, texts = rows_of(one, "dpo")
    expected = summarise(pairs[10:], texts[10:25], designer=["goal"])
    assert found["runs"]["dpo"]["accuracy"] == expected["accuracy"]
    assert found["runs"]["dpo"]["kl"] == expected["kl"]
    assert difference(found, "later", "accuracy")["n"] == 20
    assert (
        "All runs share 20 held-out pairs, and only these count; they had dpo 30, upo 30, later 30." in found["notes"]
    )
    assert [row["id"] for row in json.loads((tmp_path / "both" / "texts.json").read_text())] == [
        f"r{i}" for i in range(10, 25)
    ]


def test_runs_that_share_no_row_are_each_judged_on_their_own_and_differ_unpaired(one, tmp_path):
    other = write_run(tmp_path / "other", {"far": (DPO, 0.5, 3.0, 1.0)}, start=500, n=40)
    found = together([one, other], tmp_path / "both")
    assert found["heldout"]["pairs"]["shared"] == 0
    assert found["runs"]["far"]["accuracy"] == summarise(*rows_of(other, "far"), designer=["goal"])["accuracy"]
    entry = difference(found, "far", GOAL)
    means = [found["runs"][run]["aux"]["goal"]["generations"][0] for run in ("far", "dpo")]
    assert entry["value"][0] == pytest.approx(means[0] - means[1])
    assert (entry["paired"], entry["p"], entry["p_holm"], entry["by_seed"]) == (False, None, None, {})
    # two means over prompts of deviation 1: their difference has one of about sqrt(1/40 + 1/30)
    half = (entry["value"][2] - entry["value"][1]) / 2
    assert half == pytest.approx(1.96 * math.sqrt(1 / 40 + 1 / 30), rel=0.35)
    assert any(note.startswith("The runs share no held-out pairs") for note in found["notes"])
    assert difference(found, "upo", GOAL)["paired"] is True  # that pair does share its rows
    assert "not paired" in (tmp_path / "both" / "report.html").read_text(encoding="utf-8")


def test_a_pair_with_another_text_under_the_same_id_is_not_the_same_pair(one, tmp_path):
    other = write_run(tmp_path / "other", {"ipo": ({"method": "ipo"}, 0.5, 0.0, 1.0)})
    path = other / "ipo" / "evaluation.json"
    saved = json.loads(path.read_text())
    for row in saved["pairs"][:5]:
        row["words"] = row["words"][::-1]  # the label was turned round
    write_json(path, saved)
    assert together([one, other], tmp_path / "both")["heldout"]["pairs"]["shared"] == 25


def test_the_order_in_which_runs_are_named_changes_no_number(one, two, both, tmp_path):
    back = together([two, one], tmp_path / "back", baseline="one/dpo")
    assert back["runs"] == {name: both["runs"][name] for name in back["runs"]}
    assert difference(back, "upo", GOAL) == difference(both, "upo", GOAL)


def test_seeds_are_pooled_and_their_spread_is_kept(one, tmp_path):
    several = write_run(tmp_path / "several", {"upo3": (UPO, 0.5, 1.0, 1.0)}, seeds=(0, 1, 2))
    found = together([one, several], tmp_path / "both")
    assert found["runs"]["upo3"]["n"]["generations"] == 90
    assert list(found["runs"]["upo3"]["by_seed"]) == ["0", "1", "2"]
    assert any("different numbers of seeds" in note for note in found["notes"])
    curves = json.loads((tmp_path / "both" / "curves.json").read_text())
    assert [curve["seed"] for curve in curves if curve["run"] == "upo3"] == ["seed-0", "seed-1", "seed-2"]


# ---- what differs, and what may be compared ----


def test_only_settings_that_differ_are_listed_with_defaults_filled_in(one, tmp_path):
    plain = write_run(tmp_path / "plain", {"plain": ({"method": "dpo"}, 0.5, 0.0, 1.0)}, train={"learning_rate": 3e-4})
    differ = together([one / "dpo", plain], tmp_path / "both")["settings"]["differ"]
    assert differ == {"train.learning_rate": {"dpo": "1e-05", "plain": "0.0003"}}  # dpo's beta is 0.1 by default too


def test_options_of_one_method_alone_are_listed_where_they_were_written(one, tmp_path):
    differ = together([one], tmp_path / "both")["settings"]["differ"]
    assert differ["method"] == {"dpo": "dpo", "upo": "upo"}
    assert differ["options.lam"] == {"dpo": None, "upo": "2.0"}
    assert "options.gamma" not in differ  # upo's default; nobody wrote it


def test_other_data_of_the_same_name_differ_by_their_hash(one, tmp_path):
    two = write_two(tmp_path)
    summary = json.loads((two / "summary.json").read_text())
    summary["data"]["train"]["sources"]["bundled:hh-harmless"]["sha256"] = "a1"
    write_json(two / "summary.json", summary)
    differ = together([one, two], tmp_path / "both")["settings"]["differ"]
    assert differ["training rows.bundled:hh-harmless"] == {"one/dpo": "0f", "upo": "0f", "two/dpo": "a1", "off": "a1"}


@pytest.mark.parametrize(
    "change",
    [
        {"description": "Length(cap=90)"},
        {"scale": {"shift": 1.0, "width": 2.0}, "normalise": "zscore"},
        {"clip": [0.0, None]},
        {"weight": -1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_objective_that_is_measured_otherwise_is_named_and_not_compared(one, tmp_path, change):
    both = {"goal": {**DESCRIBED, **change}, "same": DESCRIBED}
    other = write_run(tmp_path / "other", {"ipo": ({"method": "ipo"}, 0.5, 0.0, 1.0)}, designer=both)
    found = together([one, other], tmp_path / "both")
    assert [objective["name"] for objective in found["not_comparable"]] == ["goal"]
    assert list(found["designer"]) == ["same"]
    assert not any("goal" in entry["metric"] for entry in found["differences"])
    assert any(note.startswith("goal is not compared, because") for note in found["notes"])
    assert "same was not measured for dpo, upo." in found["notes"]
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert 'data-metric="aux.goal.generations"' not in page
    with pytest.raises(ConfigError, match="not every run measures 'goal', or not in the same way"):
        together([one, other], tmp_path / "again", axes=[((GOAL, 1), ("kl", -1))])


def test_another_weight_of_the_same_measure_is_compared(one, tmp_path):
    heavier = {"goal": {**DESCRIBED, "weight": 5.0}}
    other = write_run(tmp_path / "other", {"ipo": ({"method": "ipo"}, 0.5, 0.0, 1.0)}, designer=heavier)
    found = together([one, other], tmp_path / "both")
    assert found["not_comparable"] == []
    assert difference(found, "ipo", GOAL)["n"] == 30


def test_the_start_is_shown_where_it_wrote_the_same_for_all(one, both, tmp_path):
    assert both["reference"]["aux"]["goal"]["generations"][0] is not None
    other = write_run(tmp_path / "other", {"ipo": ({"method": "ipo"}, 0.5, 0.0, 1.0)}, before="in the beginning")
    found = together([one, other], tmp_path / "all")
    assert found["reference"] is None
    assert any("each against the run's own start" in note for note in found["notes"])


def test_other_sampling_is_said_to_be_a_reason_for_differences(one, tmp_path):
    other = write_run(tmp_path / "other", {"ipo": ({"method": "ipo"}, 0.5, 0.0, 1.0)}, sampling={"max_new_tokens": 128})
    notes = together([one, other], tmp_path / "both")["notes"]
    assert any(note.startswith("Answers were drawn with different max_new_tokens") for note in notes)


# ---- fronts ----


def test_fronts_are_those_of_evaluate_with_a_family_per_method(one, two, both):
    [front] = both["fronts"]
    assert {family: entry["runs"] for family, entry in front["families"].items()} == {
        "dpo": ["one/dpo", "two/dpo"], "upo:base=dpo": ["upo"], "upo:base=dpo;lam=0": ["off"],
    }  # fmt: skip
    rows = {"one/dpo": rows_of(one, "dpo"), "upo": rows_of(one, "upo"), "two/dpo": rows_of(two, "dpo"),
            "off": rows_of(two, "off")}  # fmt: skip
    before = json.loads((one / "shared" / "reference.json").read_text())["generations"]
    expected = fronts(
        rows, {"dpo": ["one/dpo", "two/dpo"], "upo:base=dpo": ["upo"], "upo:base=dpo;lam=0": ["off"]},
        [(GOAL, 1), ("kl", -1)], designer=["goal"], reference=([], before), name="goal against kl",
    )  # fmt: skip
    assert front == expected


def test_families_and_axes_can_be_given(one, two, tmp_path):
    found = together(
        [one, two], tmp_path / "both", axes=[parse_axes("kl,-; length,-;accuracy,+")],
        families=parse_families("mine=one/upo,two/off; theirs=one/dpo"),
    )  # fmt: skip
    [front] = found["fronts"]
    assert front["axes"] == [
        {"metric": "kl", "better": -1}, {"metric": "length", "better": -1}, {"metric": "accuracy", "better": 1},
    ]  # fmt: skip
    assert {family: entry["runs"] for family, entry in front["families"].items()} == {
        "mine": ["upo", "off"], "theirs": ["one/dpo"],
    }  # fmt: skip


@pytest.mark.parametrize("text", ["kl", "kl,", "kl,-;", "kl,up", ",-"])
def test_axes_that_cannot_be_read_are_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="such as 'kl,-;accuracy,"):
        parse_axes(text)


@pytest.mark.parametrize("text", ["upo", "upo=", "=one", "a=x;a=y"])
def test_families_that_cannot_be_read_are_refused(text):
    with pytest.raises(ConfigError, match="expected NAME=RUN,RUN"):
        parse_families(text)


# ---- names and mix-ups ----


def test_runs_are_called_by_the_shortest_name_that_no_other_has(tmp_path):
    first = write_run(tmp_path / "a" / "quick", {"dpo": (DPO, 0.5, 0.0, 1.0), "upo": (UPO, 0.4, 1.0, 2.0)})
    second = write_run(tmp_path / "b" / "quick", {"dpo": (DPO, 0.5, 0.0, 1.0)})
    third = write_run(tmp_path / "slow", {"dpo": (DPO, 0.5, 0.0, 1.0)})
    found = together([first, second, third], tmp_path / "all")
    assert list(found["runs"]) == ["a/quick/dpo", "upo", "b/quick/dpo", "slow/dpo"]


def test_one_run_of_a_folder_can_be_taken_and_names_are_looked_up_in_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "one", {"dpo": (DPO, 0.5, 0.0, 1.0), "upo": (UPO, 0.4, 1.0, 2.0)})
    write_run(tmp_path / "runs" / "two", {"dpo": (WIDE, 0.5, 0.0, 1.0), "off": (OFF, 0.4, 0.2, 2.0)})
    folder = side_by_side(["one/upo", "runs/two/off", "two/dpo"], baseline="two/off")
    assert list(read(folder)["runs"]) == ["upo", "off", "dpo"]
    assert read(folder)["baseline"] == "off"
    assert folder.parent.name == "runs"
    assert side_by_side(["one/upo", "two/off", "two/dpo"]) == folder  # the same runs have the same folder


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["one"], "compare needs two runs or more, got 1"),
        (["one", "one"], "is named twice; name every run once"),
        (["one", "one/dpo"], "is named twice"),
        (["one", "two/dp"], r"two has no finished run 'dp' \(did you mean 'dpo'\?\); it has dpo, off"),
        (["one", "half"], "half is not finished: .* --resume"),
        (["one", "empty"], "empty is no run folder"),
        (["one", "nowhere"], r"no run folder 'nowhere', here or in runs/ .known: one, two"),
        (["one", "quickstart"], "quickstart is a recipe, and without --methods finished runs are compared"),
        (["one", "mine.yaml"], "mine.yaml is a recipe"),
        (["one", "two/dpo"], None),
    ],
)
def test_mix_ups_are_refused_with_the_next_step(tmp_path, monkeypatch, names, told):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "one", {"dpo": (DPO, 0.5, 0.0, 1.0)})
    write_run(tmp_path / "runs" / "two", {"dpo": (WIDE, 0.5, 0.0, 1.0), "off": (OFF, 0.4, 0.2, 2.0)})
    (tmp_path / "runs" / "half").mkdir()
    (tmp_path / "runs" / "half" / "recipe.yaml").write_text("name: half\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.yaml").write_text("model: bundled\n")
    if told is None:
        side_by_side(names)
        return
    with pytest.raises(ConfigError, match=told):
        side_by_side(names)
    assert not list((tmp_path / "runs").glob("compared-*"))


def test_where_there_is_no_run_yet_the_first_step_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="runs/ holds none yet, and `unipref align quickstart` makes one"):
        side_by_side(["mine", "yours"])


def test_a_comparison_of_runs_is_no_run(one, home, both):
    with pytest.raises(ConfigError, match="is itself a comparison of runs"):
        side_by_side([str(one), str(home / "both")])


def test_a_folder_of_something_else_is_not_written_into(one, tmp_path):
    with pytest.raises(ConfigError, match="is not empty and not a comparison of runs"):
        together([one], one)
    together([one], tmp_path / "both")
    together([one], tmp_path / "both")  # its own kind is written again


@pytest.mark.parametrize(
    ("baseline", "told"),
    [("up", "'up' is none of the runs .did you mean 'upo'"), ("dpo", "'dpo' may be one/dpo or two/dpo; say which")],
)
def test_a_baseline_that_is_none_of_the_runs_or_several_is_refused(one, two, tmp_path, baseline, told):
    with pytest.raises(ConfigError, match=told):
        together([one, two], tmp_path / "both", baseline=baseline)


def test_rows_that_are_gone_are_named(tmp_path):
    one = write_one(tmp_path)
    (one / "upo" / "evaluation.json").unlink()
    with pytest.raises(DataError, match=r"upo/evaluation.json is gone"):
        together([one], tmp_path / "both")


# ---- real folders ----


@pytest.fixture(scope="module")
def real(small_model, tmp_path_factory):
    """A folder of `align` with two runs, and one of `compare` with two methods, on the same held-out rows."""
    home = tmp_path_factory.mktemp("real")
    values = {
        "name": "small", "model": str(small_model),
        "data": {"train": "bundled:hh-harmless", "limit": 16, "eval_limit": 10, "max_length": 128},
        "objectives": {"detail": {"scorer": "length", "options": {"cap": 60}}},
        "train": {"learning_rate": 1e-3, "batch_size": 8, "precision": "float32", "logging_steps": 1},
        "runs": {"dpo": [DPO], "upo": [UPO]}, "sampling": {"prompts": 6, "max_new_tokens": 4},
    }  # fmt: skip
    silent = Console(quiet=True)
    aligned = align(load_recipe(values), output=home / "aligned", console=silent)
    methods = compare(
        load_recipe(values), parse_methods("dpo:beta=0.5,ipo"), learning_rates=[1e-2, 3e-2], output=home / "methods",
        console=silent,
    )  # fmt: skip
    return aligned, methods


def test_folders_of_align_and_of_compare_stand_side_by_side(real, tmp_path):
    aligned, methods = real
    found = together(real, tmp_path / "both")
    assert list(found["runs"]) == ["dpo", "upo", "dpo-beta-0.5", "ipo"]
    summary = json.loads((aligned / "summary.json").read_text())
    comparison = json.loads((methods / "comparison.json").read_text())
    assert found["runs"]["upo"]["accuracy"] == summary["runs"]["upo"]["accuracy"]
    assert found["runs"]["ipo"]["kl"] == comparison["methods"]["ipo"]["kl"]
    assert found["heldout"]["generations"]["shared"] == 6
    differ = found["settings"]["differ"]
    assert float(differ["train.learning_rate"]["ipo"]) == comparison["methods"]["ipo"]["learning_rate"]
    assert found["reference"]["aux"] == summary["reference"]["aux"]  # one model, one draw
    curves = json.loads((tmp_path / "both" / "curves.json").read_text())
    assert {curve["run"] for curve in curves} == set(found["runs"])
    assert all(math.isfinite(row["loss"]) for curve in curves for row in curve["rows"])


def test_the_report_is_written_again_from_the_folder_alone(home, both, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("runs.json", "curves.json", "texts.json"):
        (alone / name).write_bytes((home / "both" / name).read_bytes())
    before = (home / "both" / "report.html").read_text(encoding="utf-8")
    assert write_report(alone).read_text(encoding="utf-8") == before
