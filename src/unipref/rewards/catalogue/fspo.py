"""Few-shot preference optimization: a user's taste from the prompt."""

from unipref.core.cards import method
from unipref.data.catalogue.few_shot import FSPO
from unipref.rewards.pair_judge import FewShotJudge


@method(
    "fspo",
    kind="reward",
    source="arXiv:2502.19312, as in github.com/Asap7772/fewshot-preference-optimization",
    formula="logit P_u(a > b) = tau (h(a | E_u, x) - h(b | E_u, x)), E_u pairs that the user labelled",
    needs=("chosen", "rejected", "user"),
    citation=FSPO,
)
def fspo(
    *,
    model: str,
    reference: str,
    tau: float = 0.01,
    shots: int = 4,
    where: str = "user",
    seed: int = 0,
    turns: bool | None = None,
    max_tokens: int = 16_384,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> FewShotJudge:
    """The implicit reward of a policy trained behind users' earlier choices; adapting changes its prompt alone.

    It is trained as a stage of a recipe (method: fspo). It predicts on pairs of texts, not on vectors.

    Args:
        model: folder of the trained policy. reference: what it was trained from.
        tau: as in training. shots, where, seed: of the examples, see the operator `few_shot`.
        turns: conversations, in the tokenizer's chat template; None: where it has one.
        max_tokens: per forward pass.
        dtype, trust_remote_code: of loading.
    """
    return FewShotJudge(model, reference, tau, shots, where, seed, turns, max_tokens, dtype, trust_remote_code)
