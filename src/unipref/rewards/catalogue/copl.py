"""CoPL: users' vectors from a graph of who chose what, and experts that they open."""

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, linear_head, preference_model
from unipref.rewards.models.graph import graph_users, neighbours, on_graph, shared


@preference_model(
    "copl",
    source="arXiv:2503.01658, as in github.com/ml-postech/CoPL",
    formula="r_u(y) = w_0 . phi(y) + sum_k g_k(e_u) w_k . phi(y), e_u from the signed graph of users and responses",
    needs=("chosen", "rejected", "user"),
    citation=Citation(
        "CoPL: Collaborative Preference Learning for Personalizing LLMs",
        ("Youngbin Choi", "Seunghyuk Cho", "Minjong Lee", "and others"),
        2025,
        "2503.01658",
    ),
)
def copl(
    *,
    experts: int = 8,
    top: int = 0,
    size: int = 32,
    layers: int = 2,
    dropout: float = 0.1,
    graph_steps: int = 200,
    graph_lr: float = 0.01,
    gate: int = 64,
    neighbour_temperature: float = 0.07,
    ridge: float | None = None,
    scale: str = "each",
    lr: float = 0.01,
    epochs: int = 100,
    seed: int = 0,
) -> PreferenceModel:
    """Who chose what makes a graph, the graph a vector of every user, and the vector decides which experts count.

    Users must have judged some responses in common: the same response is one that has the same features. The graph is
    fitted first, by the logistic loss of e_u . (e_chosen - e_rejected); then one reward for all and several experts on
    the features, with a gate that reads e_u. A newcomer's vector is a mean of those of users who chose what they chose,
    and no gradient is taken.

    The authors' experts are adapters of a language model, of which a user opens one; here they are weighted sums of
    frozen features, and every user has shares of all. In their stored code responses have the users' matrix W_0, and
    both sides the responses' other matrices; here each side has its own. A response's vector after
    the last round is used, not the sum over rounds.

    Args:
        experts: rewards beside the one for all. With 1 it is Bradley-Terry's model in two parts.
        top: experts that a user has at most; 0: all.
        size, layers, dropout: of users' vectors, and the rounds in which they are passed on; with 0 rounds it is matrix
            factorisation. The paper has 512 and 4, for 10,000 users.
        graph_steps, graph_lr: of the fit of the graph.
        gate: hidden units between a user's vector and the shares.
        neighbour_temperature: towards 0 a newcomer is the nearest neighbour, towards infinity the mean of all.
        ridge: pull of the rewards' weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        lr, epochs, seed: of the fit of the rewards.
    """
    if experts < 1 or top < 0 or gate < 1:
        raise ConfigError(f"copl(experts={experts}, top={top}, gate={gate}): at least 1, 0 and 1")
    return PreferenceModel(
        linear_head(1 + experts, spread=0.1),
        bradley_terry(),
        encoder=graph_users(size, gate, top),
        mixing=shared(),
        fitting=on_graph(
            ridge=ridge,
            lr=lr,
            epochs=epochs,
            patience=10,  # users part only after some steps
            seed=seed,
            size=size,
            layers=layers,
            dropout=dropout,
            graph_lr=graph_lr,
            graph_steps=graph_steps,
        ),
        adaptation=neighbours(neighbour_temperature),
        scale=scale,
        needs=("user",),
    )
