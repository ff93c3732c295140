"""Bradley-Terry's model under a code of the user that a neural process makes of a few choices."""

from unipref.core.cards import Citation
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, linear_head, preference_model
from unipref.rewards.models.episodes import amortised, concatenated, episodes, set_encoder


@preference_model(
    "np_bt",
    source="arXiv:2412.13998, as in github.com/kasia-kobalczyk/few-shot-steerable-alignment",
    formula="r(y, z) = MLP([phi(y); z]), z = g(mean_i h([phi(chosen_i); phi(rejected_i)])) over a user's choices",
    needs=("chosen", "rejected", "user"),
    citation=Citation(
        "Few-shot Steerable Alignment: Adapting Rewards and LLM Policies with Neural Processes",
        ("Katarzyna Kobalczyk", "Claudio Fanconi", "Hao Sun", "Mihaela van der Schaar"),
        2024,
        "2412.13998",
    ),
)
def np_bt(
    *,
    size: int = 16,
    hidden: int = 64,
    heads: int = 0,
    context: int = 10,
    targets: int = 20,
    people: int = 32,
    steps: int = 2000,
    lr: float = 0.003,
    ridge: float = 0.0001,
    patience: int = 6,
    scale: str = "each",
    seed: int = 0,
) -> PreferenceModel:
    """An encoder makes a code of a user's few choices, in any order, and a reward reads the response and the code.

    Encoder and reward are trained together on episodes: of some choices of a user the others are predicted. A newcomer
    costs one forward pass. Somebody without choices has one constant code, and with it the reward is Bradley-Terry's
    model with a perceptron.

    The authors sum over pairs and tie them by attention of 8 heads; here they are averaged, so that the code does not
    grow with their number, and attention is an option. Their variational form, a code with a variance, is not here.

    Args:
        size, hidden: numbers of the code; units of the layers.
        heads: of self-attention between the choices of a user; 0 for none.
        context, targets: choices of a user in an episode: at most so many are seen, and at most so many predicted.
        people, steps, lr: users per step, steps at most and the rate of Adam.
        ridge: pull of the reward's weights to 0.
        patience: looks, one every 50 steps, without a lower log loss on users who are left out; 0: all steps are taken.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        seed: of beginnings and episodes.
    """
    return PreferenceModel(
        linear_head(hidden, spread=0.1),
        bradley_terry(),
        encoder=set_encoder(size, hidden, heads),
        mixing=concatenated(hidden, size),
        fitting=episodes(
            steps=steps,
            people=people,
            context=context,
            targets=targets,
            lr=lr,
            ridge=ridge,
            patience=patience,
            seed=seed,
        ),
        adaptation=amortised(),
        scale=scale,
        needs=("user",),
    )
