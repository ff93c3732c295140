"""Advantage leftover lunch."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import expectile, linear
from unipref.objectives.scores import advantage, column, log_ratio, logp, value_head
from unipref.objectives.targets import reach
from unipref.objectives.terms import Objective, Term, pointwise
from unipref.objectives.tokens import token_importance, token_score
from unipref.objectives.weights import importance, positive, product

_RATIOS = ("sequence", "token", "none")


@method(
    "a_lol",
    source="arXiv:2305.14718, as in github.com/abaheti95/LoL-RL",
    formula="-max(0, A) * sg[clip(policy / ref)] * logp, A = reward - V(x)",
    needs=("ref_logp", "reward", "value"),
    citation=Citation(
        "Leftover Lunch: Advantage-based Offline Reinforcement Learning for Language Models",
        ("Ashutosh Baheti", "Ximing Lu", "Faeze Brahman", "Ronan Le Bras", "Maarten Sap", "Mark Riedl"),
        2023,
        "2305.14718",
    ),
    exceptions={
        "L2": "it raises the likelihood of single responses",
        "G1": "likelihood weighted by advantage, not a contrast with a reference",
        "G4": "it raises the likelihood of single responses",
    },
    golden=[
        (
            {},
            {
                "logp": [-2.0, -3.0],
                "ref_logp": [-2.5, -3.0],
                "reward": [1.0, 0.0],
                "value": [0.5, 0.5],
            },
            0.9493607,
        ),  # (0.5 e^0.5 * 2 + 0) / 2, and the value head's 0.5 * 0.25
        (
            {"ratio": "none", "value": "baseline"},
            {"logp": [-2.0, -3.0], "reward": [1.0, 0.0], "baseline": [0.25, 0.5]},
            0.75,
        ),  # 0.75 * 2 / 2
    ],
)
def a_lol(
    *, clip: float | None = 0.9, ratio: str = "sequence", value: str = "head", kl: float = 0.0
) -> Term | Objective:
    """Likelihood of the responses that beat their prompt's value, by how much they do and how likely they have become.

    A whole response is one action. Responses with a negative advantage have weight 0, and still count in the mean; the
    authors drop them from the data, which only multiplies the loss. Neither ratio nor advantage carries a gradient.
    The ratio is policy over reference, in the paper and in the released code alike: that code subtracts *negative*
    log-probabilities. Its script for generation tasks takes the policy's own logits for the reference's where the model
    is a causal one, so that the ratio is 1 there, and averages over tokens; the one for dialogue, followed here, sums.

    Args:
        clip: the ratio is held in [1 - clip, 1 + clip]; 0.9 as in the released code. None does not clip.
        ratio: "sequence", of the whole response; "token", of every token; "none", the authors' reference-free variant.
        value: "head": V(x) is a head trained beside the policy, where the authors fit one on the frozen reference
            first; or the column that holds such values.
        kl: coefficient of the released code's penalty, the mean log-ratio of all logged responses (used there without a
            ratio). On logged responses its gradient lowers every likelihood alike.
    """
    if ratio not in _RATIOS:
        raise ConfigError(f"a_lol(ratio={ratio!r}){nearest(str(ratio), _RATIOS)}")
    if clip is not None and clip < 0:
        raise ConfigError(f"clip is the ratio's largest distance from 1, not negative: {clip}")
    gain = positive(advantage(column("reward"), value_head() if value == "head" else column(value)))
    if ratio == "token":
        score, weight = token_score(1.0, token_importance(clip), reference=None), gain
    else:
        score, weight = logp(), gain if ratio == "none" else product((gain, importance(clip)))
    found: Term | Objective = pointwise("a_lol", score=score, link=linear(), weight=weight)
    if kl != 0:
        found = found + kl * pointwise("drift", score=log_ratio(-1.0), link=linear(), role="anchor")
    if value != "head":
        return found
    fit = pointwise("value", score=value_head(), target=reach(column("reward")), link=expectile(0.5), role="state")
    return found + fit
