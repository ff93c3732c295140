"""Facts about verdicts and axes."""

import pytest

from unipref.report._figures import axis, panel
from unipref.report._folder import Curve
from unipref.report._words import Metric, found, judge, metric_of, verdicts


def summary_with(aux, accuracy=(0.0, -0.01, 0.01), **designer):
    designer = {"easy": {"weight": 1.0}, **designer}
    values = {"accuracy": accuracy, "kl": (0.0, -1.0, 1.0), **{f"aux.{k}.generations": v for k, v in aux.items()}}
    entries = [{"a": "u", "b": "c", "metric": key, "value": list(value), "n": 9} for key, value in values.items()]
    return {"designer": designer, "runs": {"u": {"method": "upo"}, "c": {}}, "differences": entries}


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ((0.1, 0.05, 0.15), "gain", "u gains on easy over c, with no clear change in held-out reward accuracy."),
        ((-0.1, -0.2, -0.05), "loss", "u loses on easy against c, with no clear change"),
        ((0.1, -0.1, 0.3), "none", "u shows no clear gain over c on any designer objective, with no clear change"),
        ((0.0, None, None), "unknown", "Too little was measured to tell u from c"),
    ],
)
def test_the_verdict_claims_what_the_interval_leaves_and_no_more(value, kind, words):
    (verdict,) = verdicts(summary_with({"easy": value}))
    assert verdict.kind == kind
    assert verdict.headline.startswith(words)


def test_a_gain_at_the_cost_of_accuracy_or_of_another_objective_says_so():
    (verdict,) = verdicts(summary_with({"easy": (0.1, 0.05, 0.15)}, accuracy=(-0.1, -0.2, -0.05)))
    assert verdict.headline == "u gains on easy over c, at a cost in held-out reward accuracy."
    both = {"easy": (0.1, 0.05, 0.15), "short": (0.2, 0.1, 0.3)}
    (verdict,) = verdicts(summary_with(both, short={"weight": -1.0}))  # less is better
    assert verdict.kind == "mixed"
    assert verdict.headline.startswith("u gains on easy and loses on short against c")


def test_the_detail_gives_gains_and_costs_with_their_intervals():
    summary = summary_with({"easy": (0.1, 0.05, 0.15)}, accuracy=(-0.1, -0.2, -0.05))
    (verdict,) = verdicts(summary)
    assert "Objectives on generations: easy +0.100 [+0.050, +0.150], better." in verdict.detail
    minus = "\N{MINUS SIGN}"
    cost = f"What it costs: reward accuracy {minus}10.0 [{minus}20.0, {minus}5.0] points, worse; "
    assert cost + f"KL to the reference +0.00 [{minus}1.00, +1.00] nats, unclear." in verdict.detail


def test_the_detail_says_in_how_many_seeds_it_is_so_or_that_there_is_one():
    summary = summary_with({"easy": (0.1, 0.05, 0.15)})
    for run, easy in (("u", (0.5, 0.7, 0.1)), ("c", (0.4, 0.5, 0.2))):
        seeds = {str(i): {"accuracy": None, "aux": {"easy": value}} for i, value in enumerate(easy)}
        summary["runs"][run] |= {"by_seed": seeds, "seeds": [0, 1, 2]}
    (verdict,) = verdicts(summary)
    assert "better; same sign in 2 of 3 seeds." in verdict.detail
    assert "One training seed" not in verdict.detail
    summary["runs"]["u"] |= {"seeds": [0], "by_seed": {}}
    assert "One training seed: the luck of training is not in" in verdicts(summary)[0].detail


def test_a_gain_over_a_control_that_is_still_a_loss_since_before_alignment_says_so():
    summary = summary_with({"easy": (0.1, 0.05, 0.15)})
    summary["runs"]["u"] |= {"n": {"generations": 20}, "aux": {"easy": {"generations": [0.4, 0.3, 0.5]}}}
    summary["reference"] = {"aux": {"easy": {"generations": [0.5, 0.4, 0.6]}}}
    detail = verdicts(summary)[0].detail
    assert "better (scores on 9 of 20 answers). Still worse than before alignment: easy 0.400 against 0.500." in detail
    summary["reference"]["aux"]["easy"]["generations"][0] = 0.3
    assert "before alignment" not in verdicts(summary)[0].detail


def test_a_control_is_called_one_and_an_error_alarm_takes_the_verdict_back():
    summary = summary_with({"easy": (0.1, 0.05, 0.15), "short": (0.0, -0.1, 0.1)}, short={})
    summary["runs"]["c"] = {"method": "upo", "options": {"lam": 0.0}}
    (verdict,) = verdicts(summary)
    assert verdict.against_control
    control = "its \N{GREEK SMALL LETTER LAMDA} = 0 control c"
    told = f"u gains on easy over {control}, nothing is shown on short, with no clear"
    assert verdict.headline.startswith(told)
    summary["runs"]["u"]["alarms"] = [{"level": "error", "code": "x", "message": "y"}]
    warned = verdicts(summary)[0].headline
    assert warned == f"{verdict.headline} Do not build on this: there is an error alarm for u."


def test_the_first_verdict_is_upo_against_its_lambda_0_control():
    summary = summary_with({"easy": (0.1, 0.05, 0.15)})
    summary["runs"] = {"u": {"method": "upo"}, "c": {"method": "upo"}, "d": {"method": "dpo"}}
    compared = (("c", "d"), ("d", "u"), ("u", "c"))
    against = [{**entry, "a": a, "b": b} for a, b in compared for entry in summary["differences"]]
    assert [(v.a, v.b) for v in verdicts({**summary, "differences": against})] == [("u", "c"), ("c", "d"), ("d", "u")]


def test_without_designer_objectives_the_verdict_is_about_accuracy():
    summary = summary_with({}, accuracy=(0.1, 0.05, 0.2))
    summary["designer"] = {}
    (verdict,) = verdicts(summary)
    assert verdict.headline == "u tells held-out pairs apart better than c."


def test_an_interval_that_touches_zero_is_unclear_and_a_metric_without_a_good_side_is_higher_or_lower():
    assert judge(Metric("a", "a", "share", 1), [0.1, 0.0, 0.2]) == "unclear"
    assert judge(Metric("kl", "KL", "nats"), [1.0, 0.5, 1.5]) == "higher"
    assert judge(Metric("a", "a", "score", -1), [-1.0, -2.0, -0.5]) == "better"


def test_an_objective_may_have_a_dot_in_its_name():
    entry = {"aux": {"a.b": {"generations": [1.0, 0.0, 2.0]}}}
    assert found(entry, "aux.a.b.generations") == [1.0, 0.0, 2.0]
    assert found(entry, "drift.chosen") is None
    metric = metric_of({"designer": {"a.b": {}}}, "aux.a.b.generations")
    assert metric.label == "a.b on generations"


def test_axes_hold_all_values_and_those_around_zero_are_symmetric():
    for values in ([0.52, 0.61], [3.0], [0.0], [-1e-9, 1e-9], [-4e6, 5e6], [None]):
        scale = axis(values)
        for value in values:
            assert value is None or scale.low < value < scale.high
        assert 1 <= len(scale.ticks) <= 12
        assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
    scale = axis([0.2, 1.0], around_zero=True)
    assert scale.low == -scale.high
    assert scale.at(0.0) == 50.0
    assert 0.0 in scale.ticks


def test_a_metric_that_was_logged_once_or_never_has_no_panel_and_gaps_are_left_out():
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": None}, {"step": 3, "loss": float("nan")}]
    assert panel("loss", "Loss", [Curve("a", "", rows)]) is None
    drawn = panel("loss", "Loss", [Curve("a", "", [*rows, {"step": 4, "loss": 0.5}])])
    assert drawn.lines[0].n == 2
    assert drawn.lines[0].last == 0.5


def test_a_difference_of_prompts_that_share_no_score_is_unknown_whatever_the_seeds_say():
    summary = summary_with({"easy": (None, None, None)})
    for run, score in (("u", 0.5), ("c", 0.25)):  # each scored on answers of its own
        summary["runs"][run]["by_seed"] = {seed: {"aux": {"easy": score}} for seed in ("0", "1")}
    (verdict,) = verdicts(summary)
    assert verdict.kind == "unknown"
    assert "easy not measured" in verdict.detail
