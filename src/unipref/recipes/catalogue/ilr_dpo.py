"""Iterative length-regularised DPO."""

from functools import partial

from unipref.core.cards import get_method, method
from unipref.data import Operator, Step, as_pairs
from unipref.objectives.catalogue.dpo_length_reg import dpo_length_reg
from unipref.recipes.catalogue._rounds import repeated
from unipref.recipes.composition import Composition, Loop


@method(
    "ilr_dpo",
    kind="loop",
    status="reconstructed",
    source="arXiv:2406.11817; rounds and reward model from the model card",
    formula="pi_{t+1} = argmin E -log sigmoid(beta * dh + alpha * (|c| - |r|)), h = logp - logp of pi_t, c, r ~ pi_t",
    needs=("chosen", "rejected", "len", "ref_logp"),
    citation=get_method("dpo_length_reg").citation,
)
def ilr_dpo(*, beta: float = 0.1, alpha: float = 0.01, rounds: int = 3, by: str | None = None) -> Loop:
    """Rounds of length-regularised DPO on the best and the worst of each prompt's responses.

    Every round has the model of the round before as its reference, so its length penalty acts on what that model
    still has too much of. Pairs are taken as they are; of a list with ratings the best response is compared with the
    worst, once per prompt.

    Reconstructed: loss and loop are known from secondary texts. That the reference is the current model and not the
    first one, alpha, and how many responses are sampled were not read.

    Args:
        alpha: nats per token, as in `dpo_length_reg`; ours.
        rounds: 3 in the source.
        by: column that rates responses; the rank or else "score", "rating" or "reward" where it is not given.
    """
    round_ = Composition(dpo_length_reg(beta=beta, alpha=alpha), (best_against_worst(by=by),))
    return Loop(
        repeated(round_, rounds),
        collects="several responses per prompt from the last round's model, each with a reward model's number",
    )


def best_against_worst(*, by: str | None) -> Operator:
    """Lists become one pair each, of their best and their worst response; pairs stay as they are."""
    options = {"which": "best_worst", "by": by}
    return Step("as_pairs", options, partial(as_pairs, **options))
