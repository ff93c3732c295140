"""Controllable preference optimization."""

from collections.abc import Mapping

from unipref.core.cards import get_method, method
from unipref.data.catalogue.controllable import controllable
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.catalogue.sft import sft
from unipref.recipes.composition import Composition, Loop


@method(
    "cpo_controllable",
    kind="loop",
    status="reconstructed",
    source="arXiv:2402.19085, released code",
    formula="-logp(y | asked for its own scores) / |y|, then -log sigmoid(beta * dh), c nearer than r to what is asked",
    needs=("group", "score", "len", "ref_logp"),
    citation=get_method("controllable").citation,
)
def cpo_controllable(
    *,
    objectives: tuple[str, ...],
    controlled: tuple[str, ...] | None = None,
    request: Mapping[str, float] | None = None,
    omega: Mapping[str, float] | None = None,
    lam: Mapping[str, float] | None = None,
    silent_at: float | None = None,
    beta: float = 0.1,
    seed: int = 0,
) -> Loop:
    """Prompts that ask for scores: supervised training on responses that have them, then DPO towards what is asked.

    Two rounds, CPSFT and CDPO; the second starts from, and is compared with, the first one's model. On the objectives
    that a prompt controls the nearest score wins, on the others the highest. With nothing controlled the sum of the
    scores decides. The mixture of requests is drawn per record; the source's counts are for UltraFeedback.

    Reconstructed: the structure is the released code's, the equation is recalled; of the code's slips none is here.

    Args:
        objectives: columns of the scores, in the order of the prompt.
        controlled: those whose score is asked for; a random subset per record where it is not given.
        request: the scores asked for in the second round; those of a random response where it is not given.
        omega, lam: weights of the objectives and of the distances; 1.
        silent_at: no words in the prompt where every controlled score is this one.
        beta: 0.1 in the released runs.
        seed: of the draws.
    """
    asked = {"objectives": objectives, "controlled": controlled, "silent_at": silent_at, "seed": seed}
    wanted = {"request": request, "omega": omega, "lam": lam}
    first = controllable(stage="sft", **asked)
    second = controllable(stage="dpo", **asked, **wanted)
    return Loop((Composition(sft(), (first,)), Composition(dpo(beta=beta), (second,))))
