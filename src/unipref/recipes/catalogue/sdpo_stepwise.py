"""Stepwise DPO."""

from collections.abc import Mapping
from typing import Any

from unipref.core.cards import get_method, method
from unipref.objectives.compose import base_objective
from unipref.recipes.catalogue._rounds import in_parts
from unipref.recipes.composition import Loop


@method(
    "sdpo_stepwise",
    kind="loop",
    status="reconstructed",
    source="arXiv:2403.19270",
    formula="M_t = argmin over D_t of -log sigmoid(beta * dh), h = logp - logp of M_{t-1}, t = 1..T",
    needs=("chosen", "rejected", "ref_logp"),
    citation=get_method("chunk").citation,
)
def sdpo_stepwise(
    *,
    parts: int = 2,
    by: str | None = None,
    hardest_first: bool = False,
    seed: int = 0,
    base: str = "dpo",
    base_options: Mapping[str, Any] | None = None,
) -> Loop:
    """DPO on one part of the data after another, each from, and against, the model of the part before.

    Every part begins at log 2, since policy and reference are one model there: reference log-probabilities are taken
    anew. The divergence from the first model is no longer held by beta: T parts that say the same, each trained to its
    end, are one training with beta / T. Each part has an optimiser and a learning-rate schedule of its own. One part
    is the base itself.

    Reconstructed: parts, their order and the moving reference are known from the abstract and summaries of the paper;
    beta and learning rate were not read, and whether the authors keep the optimiser's state.

    Args:
        parts: T, 2 in the source's main run.
        by: column of difficulty, easy first; the source takes the reward accuracy of the starting model. Parts are
            drawn by a hash of the texts where it is not given.
        hardest_first: the largest difficulty comes first.
        seed: of the hash.
        base: the loss of every part, a method's name.
        base_options: options of the base.
    """
    objective = base_objective(base, base_options, of="sdpo_stepwise")
    return Loop(in_parts(objective, parts, by=by, hardest_first=hardest_first, seed=seed))
