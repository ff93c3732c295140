"""Alignment with one persona of several."""

from unipref.core.cards import get_method, method
from unipref.data.catalogue.persona_weights import persona_weights
from unipref.objectives.catalogue.dpo import dpo
from unipref.recipes.composition import Composition


@method(
    "fairpp_weight",
    kind="recipe",
    status="reconstructed",
    source="arXiv:2505.11861, released notebook",
    formula="-w * log sigmoid(beta * dh), w ~ (i / K)^a * (1 / N_i)^b in tier i, mean w = 1",
    needs=("chosen", "rejected", "annotator", "ref_logp"),
    citation=get_method("persona_weights").citation,
)
def fairpp_weight(
    *, target: str, a: float = 1.0, b: float = 1.0, personas: int | None = None, beta: float = 0.1
) -> Composition:
    """DPO on one persona's answers, the questions on which other personas disagree weighing more.

    A pair's tier is 1 + the personas that answer its prompt differently. a = b = 0 is DPO on the persona's pairs;
    b = 1 gives each tier its mass whatever its size. The weights have mean 1, or the learning rate would fall with the
    number of rows.

    Reconstructed: the weights are the released notebook's; that they multiply the loss of their pair is our reading,
    since the training code is not published.

    Args:
        target: the annotator to align with.
        a: how fast disagreement counts.
        b: how far the size of a tier is taken out.
        personas: K; as many as the data have where it is not given.
        beta: not from the source.
    """
    return Composition(dpo(beta=beta), (persona_weights(target=target, a=a, b=b, personas=personas),))
