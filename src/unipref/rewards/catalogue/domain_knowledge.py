"""A small reward on the few features that an expert would look at."""

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, descent, difference, linear_head, mlp_head, preference_model


@preference_model(
    "domain_knowledge",
    source="arXiv:2402.15473, as in github.com/swaroop-nath/reward-approx-social-choice-opp-summ",
    formula="log(1 + e^(r(loser) - r(winner))), r a perceptron of 0 to 3 layers; a policy gets sigmoid(r)",
    needs=("chosen", "rejected"),
    citation=Citation(
        "Leveraging Domain Knowledge for Efficient Reward Modelling in RLHF: A Case-Study in E-Commerce Opinion "
        "Summarization",
        ("Swaroop Nath", "Tejpalsingh Siledar", "Sankara Sri Raghava Ravindra Muddu", "and others"),
        2024,
        "2402.15473",
    ),
)
def domain_knowledge(
    *,
    hidden: tuple[int, ...] = (6, 4),
    activation: str = "relu",
    bounded: bool = False,
    ridge: float | None = None,
    lr: float = 0.02,
    batch_size: int = 64,
    epochs: int = 60,
    restarts: int = 1,
    seed: int = 0,
) -> PreferenceModel:
    """A perceptron of a handful of numbers that say what matters in a domain, for which some hundred pairs are enough.

    The features must have names: scores by a judge, counts, ratings. They are read in the order of the table's columns,
    and a table with others is refused. Without hidden layers it is `cpm`'s model.

    Args:
        hidden: widths of at most three layers; the authors' 6 and 4 (they search from none to three).
        activation: "relu", "tanh", "sigmoid" or "gelu".
        bounded: a response alone gets sigmoid(reward), in (0, 1), as the authors give it to a policy. Comparisons stay
            differences of the rewards before it, which a second sigmoid would squash.
        ridge: pull of the weights to 0; None: chosen on comparisons that a fit has not seen.
        lr, batch_size, epochs, seed: of the fit of hidden layers.
        restarts: beginnings of that fit, of which the one with the least loss stays.
    """
    if len(hidden) > 3:
        raise ConfigError(f"domain_knowledge(hidden={list(hidden)}): at most three layers; bt takes any number of them")
    return PreferenceModel(
        mlp_head(1, tuple(hidden), activation) if hidden else linear_head(),
        bradley_terry(),
        mixing=difference(bounded=bounded),
        fitting=descent(
            ridge=ridge,
            lr=lr,
            batch_size=batch_size,
            epochs=epochs,
            restarts=restarts if hidden else 1,
            seed=seed,
        ),
        needs=("columns",),
    )
