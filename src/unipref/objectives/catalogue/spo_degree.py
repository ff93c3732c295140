"""Self-supervised preference optimization: how much is missing from a response."""

from collections.abc import Mapping
from typing import Any

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError
from unipref.objectives.compose import base_objective
from unipref.objectives.discrepancies import class_entropy
from unipref.objectives.scores import column, head
from unipref.objectives.targets import reach
from unipref.objectives.terms import Objective, Term, pointwise


@method(
    "spo_degree",
    source="arXiv:2409.17791, structure from the abstract",
    status="reconstructed",
    formula="base + gamma * cross-entropy(degree head at the end of a degraded variant, its degree)",
    needs=("chosen", "rejected", "ref_logp", "degree", "degree_head", "variant"),
    citation=Citation(
        "Self-supervised Preference Optimization: Enhance Your Language Model with Preference Degree Awareness",
        (
            "Jian Li",
            "Haojing Huang",
            "Yujia Zhang",
            "Pengfei Xu",
            "Xi Chen",
            "Rui Song",
            "Lida Shi",
            "Jingwen Wang",
            "Hao Xu",
        ),
        2024,
        "2409.17791",
    ),
    exceptions={"G1": "a classifier's loss is added to the base"},
    # DPO's ln(1 + e^-2) and 0.1 ln 3
    golden=[
        (
            {"base": "dpo"},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "degree_chosen": 0.0,
                "degree_rejected": 0.0,
                "degree_variant": 2.0,
                "degree_head_chosen": [[0.0, 0.0, 0.0]],
                "degree_head_rejected": [[0.0, 0.0, 0.0]],
                "degree_head_variant": [[0.5, 0.5, 0.5]],
            },
            0.2367892,
        )
    ],
    limits=[
        Limit({"gamma": 0.0}, "dpo"),
        Limit({"gamma": 0.0, "base": "ipo", "base_options": {"tau": 0.2}}, "ipo", {"tau": 0.2}),
    ],
)
def spo_degree(
    *,
    base: str | Term | Objective = "dpo",
    base_options: Mapping[str, Any] | None = None,
    gamma: float = 0.1,
) -> Objective:
    """Any preference loss, and a classifier on the same model that says how much was taken away from a response.

    Variants of a response, with growing shares of its key content removed, are texts of their own and enter no
    comparison. The classifier's loss reaches the model through its last hidden state; the head is thrown away
    afterwards. A removal that breaks the grammar teaches the head grammar.

    Reconstructed: the sum of an alignment loss and a self-supervised classification is read in the abstract; that the
    class is the degree of removal and that a linear head on the last token is trained by cross-entropy is inferred.

    Args:
        base: the preference loss: a method's name, or an objective of one's own.
        base_options: options of a base given by name.
        gamma: coefficient of the classifier's loss; the paper's is not known, 0.1 is chosen by us.
    """
    if gamma < 0:
        raise ConfigError(f"gamma must not be negative: {gamma} would teach the model to confuse the degrees")
    degree = pointwise(
        "degree",
        score=head("degree_head"),
        of="variant",
        target=reach(column("degree")),
        link=class_entropy(),
        role="state",
    )
    return base_objective(base, base_options, of="spo_degree") + gamma * degree
