"""Preference optimization as probabilistic inference."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError
from unipref.objectives.compose import reference_kl
from unipref.objectives.discrepancies import linear
from unipref.objectives.scores import logp
from unipref.objectives.terms import Objective, pointwise


@method(
    "pmpo",
    source="arXiv:2410.04166v3 Eq. 10 (section 3.3)",
    formula="-alpha mean_accepted(logp) + (1 - alpha) mean_rejected(logp) + beta * KL(ref(.|x) || policy(.|x))",
    needs=("kl", "label"),
    citation=Citation(
        "Learning from negative feedback, or positive feedback or both",
        (
            "Abbas Abdolmaleki",
            "Bilal Piot",
            "Bobak Shahriari",
            "Jost Tobias Springenberg",
            "Tim Hertweck",
            "Rishabh Joshi",
            "Junhyuk Oh",
            "Michael Bloesch",
            "Thomas Lampe",
            "Nicolas Heess",
            "Jonas Buchli",
            "Martin Riedmiller",
        ),
        2024,
        "2410.04166",
    ),
    exceptions={"G1": "likelihoods, not a contrast with a reference"},
    golden=[
        (
            {},
            {"logp": [-1.0, -3.0], "label": [1, 0], "len": [1, 1], "token_kl": [0.2, 0.4]},
            -0.85,
        ),  # 0.5 * 1 - 0.5 * 3 + 0.5 * 0.3
        (
            {"kl": "samples", "alpha": 0.25},
            {"logp_chosen": -1.0, "logp_rejected": -3.0, "logp_base": -2.0},
            -1.0,
        ),  # 0.25 * 1 - 0.75 * 3 + 0.5 * 2
    ],
    limits=[Limit({"alpha": 1.0, "beta": 0.0}, "sft", {"per": "sum"}, where={"label": 1.0})],
)
def pmpo(*, alpha: float = 0.5, beta: float = 0.5, kl: str = "responses", direction: str = "forward") -> Objective:
    """Likelihood of accepted responses up, of rejected ones down, and a divergence that keeps the latter bounded.

    Either set may be empty; each is averaged by itself. In a world of one prompt, with accepted share p+ and rejected
    share p- of the responses, the optimum is (alpha p+ - (1 - alpha) p- + beta ref) over its sum, wherever that is
    nowhere negative. Elsewhere the loss has no minimum: if the reference puts mass Z on what is rejected, it needs
    beta >= (1 - alpha) / Z. Data of rejected responses only are Z = 1, where beta > 1 - alpha is enough. The defaults
    with half of the responses rejected are below that, and only the number of steps hides it. Log-probabilities are
    sums.

    Args:
        alpha: weight of the accepted responses, in [0, 1]; 0.5 in two re-implementations.
        beta: coefficient of the divergence; 0.5 in these.
        kl: where it is taken: "responses", exactly along the data's responses (right where the reference wrote them, as
            in the paper's loop); "base", exactly along the reference's own answers; "samples", from the likelihood of
            these, up to a constant.
        direction: "forward", KL(reference || policy), the paper's, or "reverse", KL(policy || reference), as a
            re-implementation has it.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is the weight of accepted responses, in [0, 1]: {alpha}")
    accepted = pointwise("accepted", score=logp(), of="desirable", link=linear())
    rejected = pointwise("rejected", score=logp(-1.0), of="undesirable", link=linear())
    return alpha * accepted + (1 - alpha) * rejected + beta * reference_kl(kl, direction=direction)
