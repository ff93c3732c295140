"""Domain-invariant reward models."""

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, mlp_head, preference_model
from unipref.rewards.models.adversarial import adversarial


@preference_model(
    "dial",
    source="arXiv:2501.00911, as in github.com/portal-cornell/dial",
    formula="P(a > b) = sigmoid(w . e(a) - w . e(b)); source's loss + lambda (mean_source f(e) - mean_target f(e))",
    needs=("chosen", "rejected", "domain"),
    citation=Citation(
        "Aligning LLMs with Domain Invariant Reward Models", ("David Wu", "Sanjiban Choudhury"), 2025, "2501.00911"
    ),
)
def dial(
    *,
    target: str | None = None,
    strength: float = 0.1,
    hidden: tuple[int, ...] = (64,),
    activation: str = "gelu",
    critic: tuple[int, ...] = (64, 32),
    critic_lr: float = 1e-3,
    critic_decay: float = 1e-3,
    critic_steps: int = 3,
    penalty: float = 1.0,
    ridge: float = 0.001,
    scale: str = "each",
    lr: float = 0.003,
    batch_size: int = 256,
    epochs: int = 10,
    seed: int = 0,
) -> PreferenceModel:
    """One reward on an embedding in which a critic cannot tell labelled comparisons from those of another domain.

    It learns from the labels of the source, and from the responses alone of a target domain that has none. A feature
    that separates the domains leaves the embedding, also where it helped in the source: there the accuracy falls a
    little. The critic sees both sides of every comparison.

    The authors align the embedding of a language model, with a factor of 0.01 and a critic of 256 and 128 units; here
    the features are given and the embedding is a layer on them, which asks for a larger factor and a smaller critic
    (chosen by us on the planted shift of the tests). With factor 0 it is Bradley-Terry's model with that layer, fitted
    to the source.

    Args:
        target: the domain whose labels are not read; None: those in which nothing is labelled. Where every domain has
            labels, the model's notes say that there was nothing to align with.
        strength: factor lambda of the critic's gap.
        hidden: widths of the embedding's layers.
        activation: between these layers: "gelu", "relu", "tanh" or "sigmoid".
        critic: widths of its layers.
        critic_lr, critic_decay, critic_steps: of AdamW, and its steps per step of the reward.
        penalty: factor of the pull of the critic's slope to 1.
        ridge: pull of the weights to 0.
        scale: of the features: "each" by its own spread over all domains, "all" by one, "none".
        lr, batch_size, epochs, seed: of the fit, which stops for no left-out comparisons.
    """
    if not hidden:
        raise ConfigError("dial(hidden=[]): the critic reads the layer before the reward; give that layer a width")
    return PreferenceModel(
        mlp_head(1, tuple(hidden), activation),
        bradley_terry(),
        fitting=adversarial(
            ridge=ridge,
            lr=lr,
            batch_size=batch_size,
            epochs=epochs,
            patience=0,
            seed=seed,
            target=target,
            strength=strength,
            critic=tuple(critic),
            critic_lr=critic_lr,
            critic_decay=critic_decay,
            critic_steps=critic_steps,
            penalty=penalty,
        ),
        scale=scale,
        needs=("domain",),
    )
