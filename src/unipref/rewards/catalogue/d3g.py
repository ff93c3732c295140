"""Domain relations."""

from collections.abc import Mapping

from unipref.core.cards import Citation
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, preference_model
from unipref.rewards.models.domains import consistency, domain_heads, relate, related, relations, whole


@preference_model(
    "d3g",
    source="arXiv:2302.02609",
    status="reconstructed",
    formula="P_t(a > b) = sigmoid(sum_d a_td (r_d(a) - r_d(b)) / sum_d a_td); own loss + lambda loss by others' heads",
    needs=("chosen", "rejected", "domain"),
    citation=Citation(
        "Improving Domain Generalization with Domain Relations",
        ("Huaxiu Yao", "Xinyu Yang", "Xinyi Pan", "Shengchao Liu", "Pang Wei Koh", "Chelsea Finn"),
        2023,
        "2302.02609",
    ),
)
def d3g(
    *,
    relations_given: Mapping[str, Mapping[str, float]] | None = None,
    blend: float = 0.5,
    looks: int = 4,
    describe: str = "responses",
    consistency_factor: float = 0.5,
    standardise: bool = True,
    ridge: float | None = None,
    scale: str = "each",
    lr: float = 0.03,
    epochs: int = 200,
    seed: int = 0,
) -> PreferenceModel:
    """A reward per domain; a domain that was not trained on is scored by the domains that it is related to.

    Relations are given, or learned from descriptions of the domains, or both. While it is fitted, every domain is also
    predicted by the others' rewards, weighed by relation, which is what a new domain will get. With one domain it is
    Bradley-Terry's model.

    A new domain is adapted to without labels: its description, and what is given of its relations, make its reward.
    Without that, or without a name, each comparison is described by its own two responses. A single response then is
    by itself, so two of a comparison may be weighed differently; with `describe: prompts` they are not.

    Reconstructed: the form of the learned relation and of the consistency term are recalled from the paper and not read
    in its code; the paper is about regression and classification, so its use for preferences is ours, and so are the
    defaults. Domains are described by the mean of their scaled vectors, where the paper has metadata.

    Args:
        relations_given: domain -> other domain -> relation, at least 0. What is said in one direction holds in both; a
            domain that is adapted to later may be named.
        blend: share of what is given, against what is learned. Where nothing is given, all is learned.
        looks: sets of weights on a description that the learned relation is the mean over.
        describe: what describes a domain: its "responses", or its "prompts" where the data have vectors of them.
        consistency_factor: factor lambda of the loss by the others' heads.
        standardise: bring heads to one spread before they are put together.
        ridge: pull of the weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        lr, epochs: of the fit, where the comparisons do not fit into memory.
        seed: of the learned relations' beginning, and of the fit.
    """
    return PreferenceModel(
        domain_heads(),
        bradley_terry(),
        encoder=relations.of(relations_given, blend=blend, looks=looks, by=describe),
        mixing=related(standardise),
        addons=(consistency(bradley_terry(), consistency_factor),),
        fitting=whole(ridge=ridge, lr=lr, epochs=epochs, seed=seed),
        adaptation=relate(),
        scale=scale,
        needs=("domain", "context") if describe == "prompts" else ("domain",),
    )
