"""Preference optimization close to the model that wrote the data."""

from collections.abc import Mapping
from typing import Any

from unipref.core.cards import Citation, method
from unipref.objectives.compose import base_objective
from unipref.recipes.catalogue._rounds import in_parts
from unipref.recipes.composition import Loop


@method(
    "bpo_behavior",
    kind="loop",
    source="arXiv:2406.12168, as in github.com/xu1998hz/BPO",
    formula="pi_{f+1} = argmin base(pi; reference pi_f) on pairs sampled from pi_f, f = 1..F",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "BPO: Staying Close to the Behavior LLM Creates Better Online LLM Alignment",
        ("Wenda Xu", "Jiachen Li", "William Yang Wang", "Lei Li"),
        2024,
        "2406.12168",
    ),
)
def bpo_behavior(
    *, phases: int = 2, seed: int = 0, base: str = "dpo", base_options: Mapping[str, Any] | None = None
) -> Loop:
    """Phases of a preference loss whose reference is the model that wrote the phase's responses.

    One pass over the prompts, cut into phases; the model of a phase writes the responses of the next, and is its
    reference (the code's `merge_on_interval`). On data at hand the phases share out their rows, and the reference
    moves though it wrote nothing: that is `sdpo_stepwise`. The model that did write them may be named in the recipe's
    `references`, which then stays for all phases. The drift from the first model has no bound. Not built: the
    authors train several adapters and take their linear average as the sampler and the reference of a phase.

    Args:
        phases: F; the source gains most by the second. One phase is the base itself.
        seed: of the hash that shares out the rows.
        base: "dpo", "ipo" and "slic" in the source.
        base_options: options of the base.
    """
    objective = base_objective(base, base_options, of="bpo_behavior")
    return Loop(
        in_parts(objective, phases, seed=seed, name="phases"),
        collects="two responses per prompt of the phase from the last phase's model, labelled",
    )
