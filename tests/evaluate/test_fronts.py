"""Facts about Pareto fronts and hypervolumes of families of runs."""

import random

import moocore
import numpy as np
import pytest

from unipref.core.errors import ConfigError
from unipref.evaluate import differences, fronts, hypervolume, non_dominated, summarise

GOAL = "aux.goal.generations"
AXES = [(GOAL, 1), ("kl", -1)]
N = 40


def row(i, goal, kl, *, n_tokens=10, **more):
    return {
        "id": f"p{i}", "conversation": f"c{i}", "prompt": "?", "text": "w", "n_tokens": n_tokens, "stopped": True,
        "logp": -10.0, "ref_logp": -10.0 - kl, "aux": {"goal": goal}, **more,
    }  # fmt: skip


def made(goal, kl, *, n=N, seed=0, noise=0.3, **more):
    """Rows of a run with these means, up to noise; what a prompt adds is the same for every run of the same `n`."""
    own, prompt = random.Random(f"{goal} {kl} {seed}"), random.Random("prompts")
    rows = []
    for i in range(n):
        easy = prompt.gauss(0, 1)
        rows.append(row(i, goal + easy + own.gauss(0, noise), kl + easy + own.gauss(0, noise), **more))
    return [], rows


def front(rows, families, axes=AXES, **more):
    return fronts(rows, families, axes, designer=["goal"], **{"resamples": 200, **more})


WORLD = {
    "a1": made(1.0, 1.0), "a2": made(2.0, 2.0), "a3": made(3.0, 4.0),
    "b1": made(0.5, 2.0), "b2": made(1.5, 4.0), "b3": made(2.0, 6.0),
}  # fmt: skip
TWO = {"a": ["a1", "a2", "a3"], "b": ["b1", "b2", "b3"]}
BOX = ([-2.0, 10.0], [6.0, 0.0])


def random_points(seed, n, axes):
    return np.random.default_rng(seed).random((n, axes))


# ---- the volume ----


def test_two_corners_cover_what_their_rectangles_do_less_the_overlap():
    assert hypervolume(np.array([[0.5, 1.0], [1.0, 0.25]])).item() == 0.5 * 1.0 + 1.0 * 0.25 - 0.5 * 0.25


def test_three_boxes_cover_what_inclusion_and_exclusion_say():
    boxes = np.array([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]])
    # each 1/4; every two share 1/8, and so do all three
    assert hypervolume(boxes).item() == pytest.approx(3 / 4 - 3 / 8 + 1 / 8, abs=1e-15)


@pytest.mark.parametrize("axes", [2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_the_volume_is_moocores(axes, n):
    points = random_points(n, n, axes)
    assert hypervolume(points) == pytest.approx(moocore.hypervolume(-points, ref=np.zeros(axes)), abs=1e-12)


def test_the_volume_is_the_share_of_a_grid_whose_cells_some_point_covers():
    points = np.random.default_rng(3).integers(0, 9, size=(8, 3)) / 8  # corners on the grid: the count is exact
    cells = (np.stack(np.meshgrid(*[np.arange(8)] * 3), axis=-1).reshape(-1, 3) + 0.5) / 8
    covered = (points[:, None] >= cells[None]).all(axis=-1).any(axis=0)
    assert hypervolume(points) == pytest.approx(covered.mean(), abs=1e-12)


@pytest.mark.parametrize("axes", [2, 3])
def test_volumes_of_a_batch_are_those_of_its_members(axes):
    batch = np.random.default_rng(0).random((5, 6, axes))
    assert hypervolume(batch).tolist() == pytest.approx([hypervolume(points).item() for points in batch], abs=1e-15)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_further_point_never_lowers_the_volume_and_a_dominated_one_does_not_change_it(axes):
    points = random_points(1, 6, axes)
    before = hypervolume(points).item()
    for further in random_points(2, 20, axes):
        assert hypervolume(np.vstack([points, further])).item() >= before - 1e-15
    for dominated in (points[0], points[0] * 0.9, np.zeros(axes)):
        assert hypervolume(np.vstack([points, dominated])).item() == pytest.approx(before, abs=1e-15)


def test_a_point_with_a_negative_or_unknown_coordinate_has_no_volume():
    assert hypervolume(np.array([[-0.1, 1.0], [np.nan, 1.0]])).item() == 0.0
    assert hypervolume(np.zeros((0, 2))).item() == 0.0


@pytest.mark.parametrize("axes", [2, 3])
def test_the_points_no_other_beats_are_moocores(axes):
    points = np.random.default_rng(5).integers(0, 4, size=(40, axes)).astype(float)  # many equal points among them
    expected = moocore.is_nondominated(-points, keep_weakly=True)
    assert non_dominated(points).tolist() == expected.tolist()


# ---- fronts of runs ----


def test_values_are_those_of_the_summary_and_kl_is_an_axis_to_make_small():
    found = front(WORLD, TWO)
    summary = summarise(*WORLD["a2"], designer=["goal"], resamples=200)
    assert found["points"]["a2"]["values"] == {GOAL: summary["aux"]["goal"]["generations"], "kl": summary["kl"]}
    assert [run for run, point in found["points"].items() if point["on_front"]] == ["a1", "a2", "a3"]
    assert found["families"]["b"]["front"] == ["b1", "b2", "b3"]  # within its family each has its use


def test_the_box_spans_all_intervals_of_all_runs_and_of_the_start():
    start = made(4.0, 0.0)
    found = front(WORLD, TWO, reference=start)
    ends = [point["values"] for point in found["points"].values()]
    assert set(found["points"]) == {*WORLD, "reference"}
    assert found["points"]["reference"]["family"] is None
    assert found["reference_point"] == [min(v[GOAL][1] for v in ends), max(v["kl"][2] for v in ends)]
    assert found["ideal_point"] == [max(v[GOAL][2] for v in ends), min(v["kl"][1] for v in ends)]
    assert not any(found["points"][run]["on_front"] for run in WORLD)  # the start beats them all


def test_a_hypervolume_is_the_share_of_the_box_by_hand():
    flat = {"low": ([], [row(i, 1.0, 2.0) for i in range(8)]), "far": ([], [row(i, 3.0, 6.0) for i in range(8)])}
    found = front(flat, {"both": ["low", "far"]}, box=([0.0, 8.0], [4.0, 0.0]))
    # in the box: (1/4, 6/8) and (3/4, 2/8); their rectangles overlap in 1/4 * 2/8
    assert found["families"]["both"]["hypervolume"][0] == pytest.approx(1 / 4 * 6 / 8 + 3 / 4 * 2 / 8 - 1 / 4 * 2 / 8)


def test_a_family_that_is_better_everywhere_is_told_apart():
    found = front(WORLD, TWO)
    [difference] = found["differences"]
    volumes = [found["families"][family]["hypervolume"] for family in "ab"]
    assert (difference["a"], difference["b"]) == ("a", "b")
    assert difference["hypervolume"][0] == pytest.approx(volumes[0][0] - volumes[1][0])
    assert difference["hypervolume"][1] > 0
    assert all(0 <= x <= 1 for volume in volumes for x in volume)


def test_a_family_and_its_copy_have_a_difference_of_exactly_zero():
    rows = {**WORLD, **{f"copy of {run}": WORLD[run] for run in TWO["a"]}}
    found = front(rows, {"a": TWO["a"], "copy": [f"copy of {run}" for run in TWO["a"]]})
    assert found["differences"][0]["hypervolume"] == [0.0, None, None]  # no resample differs: nothing to draw
    assert all(point["on_front"] and point["on_front_share"] > 0 for point in found["points"].values())


def test_one_resample_draws_the_same_prompts_for_every_run():
    """Prompts differ by far more than runs do: unpaired, the difference would drown."""
    paired = front(WORLD, TWO)["differences"][0]["hypervolume"]
    moved = {run: (pairs, [{**r, "conversation": f"{run} {r['conversation']}"} for r in texts])
             for run, (pairs, texts) in WORLD.items()}  # fmt: skip
    unpaired = front(moved, TWO, box=(front(WORLD, TWO)["reference_point"], front(WORLD, TWO)["ideal_point"]))
    low, high = unpaired["differences"][0]["hypervolume"][1:]
    assert high - low > 2 * (paired[2] - paired[1])


def test_seeds_of_one_prompt_are_drawn_together():
    """Copies of the rows under further seeds hold no further evidence: nothing becomes narrower."""
    several = {run: (pairs, [{**r, "seed": seed} for seed in (0, 1, 2) for r in texts])
               for run, (pairs, texts) in WORLD.items()}  # fmt: skip
    one, three = front(WORLD, TWO), front(several, TWO)
    assert three["differences"][0]["hypervolume"] == pytest.approx(one["differences"][0]["hypervolume"], abs=1e-12)


def test_the_order_of_runs_and_of_rows_changes_nothing():
    shuffled = {run: (WORLD[run][0], random.Random(0).sample(WORLD[run][1], N)) for run in reversed(WORLD)}
    there, back = front(WORLD, TWO), front(shuffled, {"a": TWO["a"][::-1], "b": TWO["b"][::-1]})
    assert back["points"] == {run: back["points"][run] for run in there["points"]}
    for run in there["points"]:
        assert back["points"][run] == there["points"][run]
    for family in TWO:
        assert back["families"][family]["hypervolume"] == pytest.approx(there["families"][family]["hypervolume"])


def test_other_units_on_an_axis_change_no_hypervolume():
    scaled = {run: (pairs, [{**r, "aux": {"goal": 100 * r["aux"]["goal"]}} for r in texts])
              for run, (pairs, texts) in WORLD.items()}  # fmt: skip
    there, back = front(WORLD, TWO), front(scaled, TWO)
    assert back["reference_point"][0] == pytest.approx(100 * there["reference_point"][0])
    for family in TWO:
        assert back["families"][family]["hypervolume"] == pytest.approx(there["families"][family]["hypervolume"])


def test_more_is_better_with_the_sign_turned_is_less_is_better():
    turned = {run: (pairs, [{**r, "aux": {"goal": -r["aux"]["goal"]}} for r in texts])
              for run, (pairs, texts) in WORLD.items()}  # fmt: skip
    there, back = front(WORLD, TWO), front(turned, TWO, [(GOAL, -1), ("kl", -1)])
    assert [p["on_front_share"] for p in back["points"].values()] == [
        p["on_front_share"] for p in there["points"].values()
    ]
    assert back["differences"][0]["hypervolume"] == pytest.approx(there["differences"][0]["hypervolume"])


def test_in_one_box_a_further_run_never_lowers_a_family_and_a_dominated_one_leaves_it():
    before = front(WORLD, {"a": ["a1", "a3"]}, box=BOX)["families"]["a"]["hypervolume"][0]
    better = front(WORLD, {"a": ["a1", "a2", "a3"]}, box=BOX)["families"]["a"]["hypervolume"][0]
    rows = {**WORLD, "worse": ([], [row(i, -1.5, 9.0) for i in range(N)])}
    assert better > before
    assert front(rows, {"a": ["a1", "a3", "worse"]}, box=BOX)["families"]["a"]["hypervolume"][0] == before


def test_the_share_of_resamples_on_the_front_is_near_a_half_for_two_equal_runs_and_zero_for_a_beaten_one():
    rows = {"x": made(1.0, 1.0, seed=1), "y": made(1.0, 1.0, seed=2), "far": made(-9.0, 20.0)}
    shares = {run: p["on_front_share"] for run, p in front(rows, {"all": list(rows)}, resamples=500)["points"].items()}
    assert shares["far"] == 0.0
    assert shares["x"] + shares["y"] >= 1.0  # one of two is always there, both where neither dominates
    assert min(shares["x"], shares["y"]) > 0.01


def test_five_runs_as_good_as_one_are_seldom_called_better():
    """The best of five is better by luck. Our interval leaves zero out in 7 % of such worlds, so that 11 or more of 60
    have a chance of 0.3 %; the plain percentile interval does in 26 %."""
    wrong = 0
    generator = np.random.default_rng(0)
    for _ in range(60):
        values = generator.normal(size=(6, 64, 2)) + generator.normal(size=(1, 64, 2))
        rows = {f"r{k}": ([], [row(i, *values[k, i]) for i in range(64)]) for k in range(6)}
        families = {"many": [f"r{k}" for k in range(5)], "one": ["r5"]}
        found = front(rows, families, box=([-0.5, 0.5], [0.5, -0.5]), resamples=150)
        low, high = found["differences"][0]["hypervolume"][1:]
        wrong += not low <= 0 <= high
    assert wrong < 11


def test_a_run_without_a_score_is_left_out_by_name_and_the_rest_stands():
    rows = {**WORLD, "b3": ([], [row(i, None, 1.0) for i in range(N)])}
    found = front(rows, TWO)
    assert found["left_out"] == {"b3": f"no value of {GOAL}: none of its {N} generations has one"}
    assert found["families"]["b"]["runs"] == ["b1", "b2"]
    assert "b3" not in found["points"]
    alone = front(rows, {"a": TWO["a"], "none": ["b3"]})
    assert alone["families"]["none"] == {"runs": [], "front": [], "hypervolume": [None, None, None]}
    assert alone["differences"] == []


def test_some_missing_scores_are_left_out_of_the_means_alone():
    texts = [{**r, "aux": {"goal": None}} if i % 4 == 0 else r for i, r in enumerate(WORLD["a2"][1])]
    found = front({**WORLD, "a2": ([], texts)}, TWO)["points"]["a2"]["values"]
    kept = [r["aux"]["goal"] for r in texts if r["aux"]["goal"] is not None]
    assert found[GOAL][0] == pytest.approx(sum(kept) / len(kept))
    assert found["kl"] == front(WORLD, TWO)["points"]["a2"]["values"]["kl"]


def test_runs_that_agree_on_an_axis_are_told_apart_by_the_others():
    rows = {"x": ([], [row(i, 1.0 + i % 2, 2.0) for i in range(N)]), "y": ([], [row(i, 0.0, 2.0) for i in range(N)])}
    found = front(rows, {"x": ["x"], "y": ["y"]})
    assert found["families"]["x"]["hypervolume"][0] == pytest.approx((1.5 - 0.0) / (found["ideal_point"][0] - 0.0))
    assert found["families"]["y"]["hypervolume"][0] == 0.0


def test_three_axes_and_single_runs_are_families_too():
    axes = [*AXES, ("length", -1)]
    rows = {
        "short": made(1.0, 1.0, n_tokens=5),
        "long": made(2.0, 1.0, n_tokens=50),
        "bad": made(0.0, 3.0, n_tokens=60),
    }
    found = front(rows, {run: [run] for run in rows}, axes)
    assert [found["points"][run]["on_front"] for run in rows] == [True, True, False]
    assert len(found["differences"]) == 3
    assert found["families"]["bad"]["hypervolume"][0] < found["families"]["long"]["hypervolume"][0]


def test_every_metric_of_a_difference_can_be_an_axis():
    pairs = [{
        "id": f"p{i}", "conversation": f"c{i}", "weight": 1.0, "logp_chosen": -20.0 + i % 3, "logp_rejected": -20.0,
        "ref_logp_chosen": -20.0, "ref_logp_rejected": -19.0 - i % 2, "len_chosen": 10, "len_rejected": 5,
        "words": [30, 30], "aux": {"goal": [0.1 * i, 0.5]},
    } for i in range(N)]  # fmt: skip
    rows = {run: (pairs, texts) for run, (_, texts) in WORLD.items()}
    names = {entry["metric"] for entry in differences(rows, {"a1": "a2"}, designer=["goal"], resamples=10)}
    for metric in sorted(names - {GOAL}):
        found = front(rows, {"a": ["a1"], "b": ["b1"]}, [(GOAL, 1), (metric, 1)], resamples=20)
        assert found["points"]["a1"]["values"][metric][0] is not None


@pytest.mark.parametrize(
    ("families", "axes", "told"),
    [
        (TWO, [(GOAL, 1)], "two or three axes, got 1"),
        (TWO, [(GOAL, 1), ("kl", -1), ("length", 1), ("accuracy", 1)], "two or three axes, got 4"),
        (TWO, [(GOAL, 1), ("kll", -1)], "no axis 'kll' (did you mean 'kl'?); there are accuracy"),
        (TWO, [(GOAL, 1), ("kl", 0)], "axis kl: better is 1"),
        (TWO, [(GOAL, 1), (GOAL, -1)], "an axis stands twice"),
        ({}, AXES, "at least one family"),
        ({"a": []}, AXES, "family 'a' has no runs; name at least one of a1"),
        ({"a": ["a9"]}, AXES, "names the run 'a9', which does not exist (did you mean 'a"),
        ({"a": ["a1"], "b": ["a1"]}, AXES, "the run 'a1' is in 'a' and 'b'"),
        ({"a": ["a1", "a1"]}, AXES, "the run 'a1' is twice in 'a'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(families, axes, told):
    with pytest.raises(ConfigError, match=r"^[^\n]+$") as refusal:
        front(WORLD, families, axes)
    assert told in str(refusal.value)
