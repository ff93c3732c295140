"""Facts about fits to more comparisons than memory holds, against the same fit in memory."""

import numpy as np
import pytest

from unipref.rewards import PreferenceTable, make_model
from unipref.rewards.models import descent, streaming

OPTIONS = {"plain": {}, "centred": {"centring": 0.1}, "smoothed with a margin": {"smoothing": 0.1, "margin": 0.5}}


def world(n=6000, width=12, seed=0):
    """Pairs with correlated features, soft labels, ties and weights."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((2 * n, width)) @ rng.standard_normal((width, width))
    first = np.arange(n)
    logits = (features[:n] - features[n:]) @ rng.normal(0, 0.3, width)
    p = np.where(rng.random(n) < 1 / (1 + np.exp(-logits)), 1.0, 0.0)
    p[::7] = 0.5
    p[1::7] = np.clip(p[1::7], 0.2, 0.8)
    weight = rng.integers(1, 4, n).astype(float)
    return PreferenceTable(features.astype(np.float32), first, n + first, p, weight=weight)


@pytest.fixture
def little_memory(monkeypatch):
    """Nothing but a sample of 96 pairs (eight for a weight) is held at once, and chunks of 500."""
    module = __import__("sys").modules[descent.__module__]
    monkeypatch.setattr(module, "_WHOLE", 0)
    monkeypatch.setattr(streaming, "SAMPLE", 0)
    monkeypatch.setattr(streaming, "_CHUNK", 500)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_streamed_fit_is_the_fit_in_memory(options, request):
    table = world()
    whole = make_model("bt", ridge=1e-3, **options).fit(table)
    request.getfixturevalue("little_memory")
    streamed = make_model("bt", ridge=1e-3, **options).fit(table)
    assert 2 <= streamed.told_["steps"] <= 12  # passes over the data
    # a step is not taken that gains less than a thousandth of the weights' chance errors, which cost 12 / 12,000
    assert 0 <= streamed.told_["loss"] - whole.told_["loss"] < 1e-3 * 12 / 12_000
    difference = streamed.decision_function(table) - whole.decision_function(table)
    assert np.sqrt(np.mean(difference**2)) < 5e-3


def test_a_ridge_chosen_on_some_is_as_much_weaker_as_all_are_more(monkeypatch):
    table = world()
    module = __import__("sys").modules[descent.__module__]
    monkeypatch.setattr(module, "_LOOKED_AT", 1500)
    told = make_model("bt").fit(table).told_
    best = min(told["ridges"], key=lambda row: row["log_loss"])["ridge"]
    assert told["ridges_on"] == 1500
    assert told["ridge"] == pytest.approx(best * 1500 / 6000)
