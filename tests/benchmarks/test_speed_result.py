"""What the speed benchmark makes of repeats: unequal work has no number, targets are met or short, slow ones stay."""

import argparse
import json
import math
from types import SimpleNamespace

import pytest
from benchmarks.speed import __main__ as command
from benchmarks.speed.by_trainers import STEP_END
from benchmarks.speed.cases import CASES, Case, Growth, Target
from benchmarks.speed.profile import kind_of, own_functions, shares
from benchmarks.speed.result import case_of, growth_of, side_results, unequal

STEP = {"pairs": 2, "tokens": 30, "scored": 10}
COUNTS = {"nodes": 20, "seen": 100, "read": 9}


def repeat(seconds=2.0, loss=0.69, gradient=3.0, peak=1000.0, steps=None, rate=1e9):
    return {
        **{"seconds": seconds, "rate": rate, "loss": loss, "gradient": gradient, "trained": 16896},
        **{"steps": [STEP, STEP] if steps is None else steps, "peak_mb": peak, "libraries_mb": 400.0},
    }


def measured(**sides):
    counts = {key: [{**STEP, **COUNTS}] for key in ("warm", "given", "length")}
    return {"sides": sides, "rates": [1e9, 2e9], "counts": counts}


def test_equal_work_is_the_same_tokens_the_same_loss_and_the_same_gradient():
    assert unequal(repeat(loss=0.69001), [STEP, STEP], repeat(), "float32") == ""
    assert "30" in unequal(repeat(steps=[STEP, {**STEP, "tokens": 29}]), [STEP, STEP], repeat(), "float32")
    assert "steps held" in unequal(repeat(), [STEP], repeat(), "float32")
    assert "mean loss" in unequal(repeat(loss=0.691), [STEP, STEP], repeat(), "float32")
    assert "gradient" in unequal(repeat(gradient=3.01), [STEP, STEP], repeat(), "float32")
    assert unequal(repeat(gradient=3.01), [STEP, STEP], repeat(), "bfloat16") == ""


@pytest.mark.parametrize("name", ["loss", "gradient"])
def test_a_number_that_is_none_is_no_equal_work(name):
    assert "nan" in unequal({**repeat(), name: math.nan}, [STEP, STEP], repeat(), "bfloat16")


def test_a_side_is_summed_up_by_median_smallest_and_largest():
    found = side_results("tiny", measured(ours=[repeat(2.0), repeat(1.0), repeat(4.0, peak=1100.0)]))["ours"]
    assert found["pairs_per_second"] == {"median": 1.0, "min": 0.5, "max": 2.0}
    assert found["tokens_per_second"] == {"median": 15, "min": 8, "max": 30}
    assert found["peak_memory_mb"] == 1100
    assert found["memory_above_libraries_mb"] == 700


def test_a_side_with_other_work_has_no_number_and_says_why():
    found = side_results(
        "tiny", measured(ours=[repeat()], trl=[repeat(), repeat(loss=0.7)], loop={"failed": "no room"})
    )
    assert "pairs_per_second" in found["ours"]
    assert "unequal work: it has a mean loss 0.700000 where 0.690000 is expected" in found["trl"]["not_run"]
    assert found["loop"]["not_run"] == "no room"


def side(speed, above=100, share=0.5):
    return {
        "title": "t",
        "pairs_per_second": {"median": speed, "min": speed, "max": speed},
        "share_of_matrix_peak": {"median": share, "min": share, "max": share},
        "memory_above_state_mb": above,
    }


def judged(target, results, peers=("trl",), setting="hh"):
    return case_of(Case("c", "?", setting, "ours", peers, target), results, {})


def test_a_speed_target_is_met_against_all_judged_peers_or_short():
    target = Target("speed", ("trl", "loop"), at_least=4.0)
    results = {"ours": side(8.0), "trl": side(2.0), "loop": side(2.0)}
    found = judged(target, results, ("trl", "loop"))
    assert (found["ratio"], found["met"], found["limit"]) == ({"trl": 4.0, "loop": 4.0}, True, 4.0)
    assert judged(target, {**results, "loop": side(2.5)}, ("trl", "loop"))["met"] is False


def test_a_peer_without_a_number_leaves_the_target_unjudged_and_the_others_shown():
    results = {"ours": side(8.0), "trl": {"title": "TRL", "not_run": "killed"}, "loop": side(2.0)}
    found = judged(Target("speed", ("trl",), at_least=4.0), results, ("trl", "loop"))
    assert found["met"] is None
    assert found["ratio"] == {"loop": 4.0}
    assert found["peers"]["trl"]["not_run"] == "killed"


def test_a_slower_case_keeps_its_ratio_below_one():
    assert judged(None, {"ours": side(1.0), "trl": side(2.0)})["ratio"] == {"trl": 0.5}


def test_memory_is_judged_above_the_state_and_at_most():
    target = Target("memory", ("trl",), at_most=0.5)
    assert judged(target, {"ours": side(1, 50), "trl": side(1, 100)})["met"] is True
    found = judged(target, {"ours": side(1, 51), "trl": side(1, 100)})
    assert (found["value"], found["met"]) == ({"trl": 0.51}, False)


def test_the_gain_of_a_list_is_judged_as_a_share_of_its_bound():
    target = Target("bound", ("rows_cached",), at_least=0.85)
    found = judged(target, {"ours": side(2.7), "rows_cached": side(1.0)}, ("rows_cached",), "lists_8")
    assert (found["bound"], found["value"], found["met"]) == (3.0, {"rows_cached": 0.9}, True)


def test_the_share_of_the_matrix_rate_is_our_own():
    assert judged(Target("peak", at_least=0.7), {"ours": side(1, share=0.69)}, ())["met"] is False


def test_a_curve_has_the_points_that_were_measured():
    growth = Growth("k", "responses", {2: "k_2", 4: "k_4"})
    found = growth_of(growth, {"k_4": {"ours_cached": side(2.0), "trl_cached": side(1.0)}})
    assert [point["at"] for point in found["points"]] == [4]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["aten::mm", "aten::linear"], "matrix products"),
        (["aten::mm", "_TokenLogpBackward", "autograd::engine::evaluate_function"], "head"),
        (["aten::mul", "_Attend"], "attention"),
        (["aten::exp", "_AttendBackward", "autograd::engine::evaluate_function"], "attention"),
        (["aten::exp_", "benchmark: head"], "head"),
        (["aten::_scaled_dot_product_flash_attention_for_cpu"], "attention"),
        (["aten::mul", "Optimizer.step#AdamW.step"], "optimiser"),
        (["aten::stack", "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"], "data"),
        (["aten::silu"], "elementwise"),
    ],
)
def test_an_operator_counts_as_what_it_was_called_for(names, kind):
    assert kind_of(names, {"_tokenlogp": "head", "_attend": "attention"}) == kind


def event(name, start, own, parent=None):
    return SimpleNamespace(
        name=name, time_range=SimpleNamespace(start=start), self_cpu_time_total=own, cpu_parent=parent
    )


def test_shares_are_of_the_steps_that_are_timed_and_what_no_operator_took_is_python():
    above = event("Optimizer.step#AdamW.step", 60, 0)
    events = [
        event("aten::mm", 5, 9e5),  # warms up
        event(STEP_END, 10, 0),
        event("aten::mm", 20, 5e5),
        event("aten::mul", 65, 2e5, above),
        event(STEP_END, 90, 0),
        event("aten::mm", 95, 9e5),
    ]
    found = shares(events, 1.0, {})
    assert {kind: share for kind, share in found.items() if share} == {
        "matrix products": 0.5,
        "optimiser": 0.2,
        "Python and other": 0.3,
    }


def test_our_functions_of_head_and_attention_are_known_by_their_modules():
    import unipref.engine.policy  # noqa: F401  # where they are

    found = own_functions()
    assert found["_tokenlogp"] == "head"
    assert "attention" in found.values()


def test_a_case_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(SystemExit, match=r"no case named hhh; there are hh, .*growth:prompt"):
        command.wanted("hh,hhh", CASES)
    cases, curves = command.wanted("memory,growth:k", CASES)
    assert ([case.name for case in cases], curves) == (["memory"], ["k"])


def test_a_resumed_run_measures_only_what_its_file_lacks(tmp_path, monkeypatch):
    class Bench:
        def __init__(self):
            self.measured = []

        def tell(self, words):
            pass

        def measure(self, name, sides, repeats):
            self.measured.append(name)
            return measured(**{s: [repeat()] for s in sides})

        def profile(self, name, side):
            return {"shares": {"matrix products": 1.0}}

    monkeypatch.setattr(command, "machine", lambda device: {})
    asked = argparse.Namespace(
        device="cpu", resume=True, json=tmp_path / "found.json", threads=2, repeats=3, quick=False
    )
    one, two = command.wanted("lists_2", CASES)[0], command.wanted("lists_2,lists_16", CASES)[0]
    monkeypatch.setattr(command, "details", lambda name, told: {"data": {"name": name}})
    bench = Bench()
    command.measure(bench, asked, one, [])
    before = json.loads(asked.json.read_text())
    found = command.measure(bench, asked, two, [])
    assert bench.measured == ["lists_2", "lists_16"]
    asked.repeats = 2  # what was measured otherwise is measured again
    command.measure(bench, asked, one, [])
    assert bench.measured == ["lists_2", "lists_16", "lists_2"]
    assert found["settings"]["lists_2"] == before["settings"]["lists_2"]
    assert [case["name"] for case in found["cases"]] == ["lists_2", "lists_16"]
