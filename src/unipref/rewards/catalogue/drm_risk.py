"""Domain-specific risk minimisation."""

from unipref.core.cards import Citation
from unipref.objectives import bt as bradley_terry
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import head
from unipref.objectives.terms import pairwise
from unipref.rewards.models import PreferenceModel, preference_model
from unipref.rewards.models.domains import domain_heads, entropy_steered, named_domain, new_heads, tempered


@preference_model(
    "drm_risk",
    source="arXiv:2208.08661, as in github.com/yfzhang114/AdaNPC",
    formula="P(a > b) = sum_d w_d sigmoid((r_d(a) - r_d(b)) / T_d), w_d ~ H_d^-gamma; own head where d is known",
    needs=("chosen", "rejected", "domain"),
    citation=Citation(
        "Domain-Specific Risk Minimization for Out-of-Distribution Generalization",
        (
            "Yi-Fan Zhang",
            "Jindong Wang",
            "Jian Liang",
            "Zhang Zhang",
            "Baosheng Yu",
            "Liang Wang",
            "Dacheng Tao",
            "Xing Xie",
        ),
        2022,
        "2208.08661",
    ),
)
def drm_risk(
    *,
    gamma: float = 2.0,
    balance: bool = True,
    temper: bool = True,
    ridge: float | None = None,
    scale: str = "each",
    adapt_pull: float = 10.0,
    confident: float | None = None,
    epochs: int = 200,
    seed: int = 0,
) -> PreferenceModel:
    """A reward per domain and one for all; a comparison of no known domain is steered to the heads surest of it.

    The loss is the mean over domains of half the loss of the domain's own head and half that of the head for all. A
    head's weight in a comparison falls with the entropy of its own probability. The sure head may be wrong, above all
    far from its domain, so heads are first tempered on comparisons that they were not fitted to. With one domain it is
    Bradley-Terry's model. A single response of no known domain has the reward of the head for all.

    The released code weighs heads once per batch, where here each comparison is weighed alone; its mode by prototypes,
    which takes the farthest where the measure is a similarity, is left out. The paper classifies images: what it does
    for preferences is ours.

    Args:
        gamma: how fast weights fall with entropy: 0 weighs all heads alike, a large one takes the surest.
        balance: every domain counts alike, however many comparisons it has.
        temper: divide each head's logits by a temperature, which three more fits find.
        ridge: pull of the weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        adapt_pull: comparisons that the head for all is worth, where a new domain's head is fitted to its labels.
        confident: None: a new domain's labels are read. A probability: they are not, and the comparisons of which the
            model is at least so sure are labelled by itself, which confirms its errors too.
        epochs, seed: of the fit.
    """
    loss = bradley_terry()
    both = 0.5 * loss + 0.5 * pairwise("pooled", score=head("pooled_head"), link=logistic(), role="anchor")
    return PreferenceModel(
        domain_heads(pooled=True),
        both,
        encoder=named_domain(),
        mixing=entropy_steered(gamma),
        fitting=tempered(ridge=ridge, epochs=epochs, seed=seed, balance=balance, temper=temper),
        adaptation=new_heads(loss, adapt_pull, pooled=True, confident=confident),
        scale=scale,
        needs=("domain",),
    )
