"""Context-aware preference modelling in two steps."""

from unipref.core.cards import Citation
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, preference_model
from unipref.rewards.models.domains import context_router, domain_heads, in_context, new_heads, routing, whole


@preference_model(
    "context_two_step",
    source="arXiv:2407.14916",
    status="reconstructed",
    formula="P(a > b | x) = sum_z P(z | x) sigmoid(r_z(a) - r_z(b))",
    needs=("chosen", "rejected", "domain"),
    citation=Citation(
        "Improving Context-Aware Preference Modeling for Language Models",
        ("Silviu Pitis", "Ziang Xiao", "Nicolas Le Roux", "Alessandro Sordoni"),
        2024,
        "2407.14916",
    ),
)
def context_two_step(
    *,
    routing_factor: float = 1.0,
    routing_ridge: float = 0.01,
    ridge: float | None = None,
    scale: str = "each",
    adapt_pull: float = 10.0,
    epochs: int = 200,
    seed: int = 0,
) -> PreferenceModel:
    """First which context applies, then which response is better in it; where nobody says, all contexts by likelihood.

    A context (a criterion, a scenario, a kind of reader) is named in the column `domain`. A comparison that names one
    is judged in it alone. One that does not is judged in each, weighed by what the prompt says of the context, learned
    from those that name theirs; without vectors of prompts, by how often each was named. With one context it is
    Bradley-Terry's model. Two contexts that contradict each other and are equally likely give an even verdict.

    A single response has its expected reward over contexts, which orders responses as the comparison does where the
    context is certain.

    Reconstructed: the decomposition is the paper's. There a language model reads the context as text beside the prompt;
    here each context has its own reward on given features, and a linear router guesses it, which is ours.

    Args:
        routing_factor: factor of the router's cross-entropy beside the loss of the comparisons.
        routing_ridge: pull of the router's weights to 0.
        ridge: pull of the rewards' weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        adapt_pull: comparisons that the mean of all contexts is worth, where a new context is fitted to its labels.
        epochs, seed: of the fit.
    """
    loss = bradley_terry()
    return PreferenceModel(
        domain_heads(),
        loss,
        encoder=context_router(),
        mixing=in_context(),
        addons=(routing(routing_factor, routing_ridge),),
        fitting=whole(ridge=ridge, epochs=epochs, seed=seed),
        adaptation=new_heads(loss, adapt_pull),
        scale=scale,
        needs=("domain",),
    )
