"""Facts about `alarms`."""

import pytest

from unipref.core.errors import ConfigError
from unipref.evaluate import DEFAULT_BOUNDS, alarms

HEALTHY = {"drift_per_token": {"chosen": [-0.1, -0.2, 0.0]}, "length": [30.0, 28.0, 32.0], "kl": [3.0, 2.0, 4.0]}
NOTHING = {"drift_per_token": {"chosen": [None] * 3}, "length": [None] * 3, "kl": [None] * 3}
REFERENCE = {"length": [31.0, 30.0, 32.0]}


def codes(metrics=(), summary=HEALTHY, **more):
    return [alarm["code"] for alarm in alarms(metrics, summary, reference=REFERENCE, **more)]


def rows(**columns):
    return [{"step": i, **dict(zip(columns, values, strict=True))} for i, values in enumerate(zip(*columns.values()))]  # noqa: B905


def test_a_healthy_run_and_an_empty_one_have_no_alarm():
    healthy = rows(**{"loss": [0.7, 0.6], "rewards/margins": [0.0, 0.3], "upo/gradient_ratio": [0.0, 0.2]})
    assert codes(healthy) == []
    assert codes([], NOTHING) == []


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_an_error_that_names_its_first_step(loss):
    (alarm,) = alarms(rows(loss=[0.7, loss, loss]), NOTHING)
    assert (alarm["level"], alarm["code"]) == ("error", "nan_loss")
    assert "at step 1;" in alarm["message"]


def test_evaluation_rows_have_no_loss_and_raise_no_alarm():
    assert codes([{"step": 1, "eval_rewards/accuracies": 0.6}]) == []


def test_a_gate_that_never_opened_and_a_ratio_that_stayed_small_are_errors_of_their_own():
    assert codes(rows(**{"upo/gradient_ratio": [0.0, 0.0]})) == ["gate_closed"]
    assert codes(rows(**{"upo/ess": [1.0, 1.0]})) == ["gate_closed"]
    assert codes(rows(loss=[0.5, 0.4]), method="upo") == ["gate_closed"]
    assert codes(rows(**{"upo/gradient_ratio": [0.0, 0.009]})) == ["gradient_ratio"]
    assert codes(rows(**{"upo/gradient_ratio": [0.009, 0.011]})) == []


def test_each_seed_is_judged_alone():
    open_gate = [{"step": 0, "seed": 0, "upo/gradient_ratio": 0.5}]
    closed = [{"step": 0, "seed": 1, "upo/gradient_ratio": 0.0}]
    (alarm,) = alarms([*open_gate, *closed], NOTHING)
    assert alarm["code"] == "gate_closed"
    assert alarm["message"].endswith("(seed 1)")


def test_saturation_is_judged_at_the_end_of_training():
    assert codes(rows(**{"rewards/margins": [9.0] * 9 + [1.0]})) == []
    assert codes(rows(**{"rewards/margins": [0.0] * 9 + [9.0]})) == ["margin_saturated"]


def test_drift_length_and_kl_past_their_bounds_are_warnings():
    def changed(**more):
        return codes(summary={**HEALTHY, **more})

    assert changed(drift_per_token={"chosen": [-0.51, None, None]}) == ["chosen_collapse"]
    assert changed(length=[47.0, None, None]) == ["length_drift"]
    assert changed(length=[15.0, None, None]) == ["length_drift"]
    assert changed(kl=[50.1, None, None]) == ["kl"]


def test_errors_come_first_and_bounds_can_be_changed():
    found = alarms(rows(loss=[None]), {**HEALTHY, "kl": [5.0, 4.0, 6.0]}, bounds={"kl": 4.0})
    assert [alarm["level"] for alarm in found] == ["error", "warning"]
    with pytest.raises(ConfigError, match=r"no bound is called 'lenght_drift' \(did you mean 'length_drift'"):
        alarms([], HEALTHY, bounds={"lenght_drift": 1.0})
    assert set(DEFAULT_BOUNDS) >= {"kl", "length_drift"}
