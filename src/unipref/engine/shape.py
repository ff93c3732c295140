"""What decides a model's arithmetic.

Shapes: K blocks, A attention heads, D head width, H hidden width, V vocabulary.
"""

from dataclasses import dataclass

from torch import nn

from unipref.engine.policy import Policy
from unipref.engine.quantising import n_weights

__all__ = ["ModelShape"]


@dataclass(frozen=True)
class ModelShape:
    """What decides a model's arithmetic.

    Attributes:
        matrix: weights that a token meets in matrix products, embedding and head left out; of experts, those of the
            ones that a token is sent to.
        attention: K * A * D, the width of all heads of all blocks.
        head: H * V.
        weights: all weights, a tied one once; one held in 4 bits counts as one.
        trained: those with a gradient, heads of the objective included.
        blocks: K.
    """

    matrix: int
    attention: int
    head: int
    weights: int
    trained: int
    blocks: int

    @property
    def pair_cost(self) -> float:
        """What attention between two tokens costs, where one token's matrix products cost 1."""
        return 2 * self.attention / max(self.matrix, 1)

    @classmethod
    def of(cls, policy: Policy) -> "ModelShape":
        """The shape of `policy`, read from its modules and its configuration."""
        text = policy.config.get_text_config()
        inner = policy.model.get_base_model() if hasattr(policy.model, "get_base_model") else policy.model
        apart = {id(m.weight) for m in (inner.get_input_embeddings(), inner.get_output_embeddings()) if m is not None}
        apart |= {id(m.weight) for m in inner.modules() if isinstance(m, nn.Embedding)}
        n_experts = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None) or 1
        share = min(1.0, (getattr(text, "num_experts_per_tok", None) or n_experts) / n_experts)
        matrix = sum(
            n_weights(p) * (share if "expert" in name and "shared" not in name else 1.0)
            for name, p in inner.named_parameters()
            if p.dim() > 1 and id(p) not in apart
        )
        heads = getattr(text, "num_attention_heads", None) or 0  # a state-space model has none
        width = getattr(text, "head_dim", None) or text.hidden_size // max(heads, 1)
        return cls(
            matrix=round(matrix),
            attention=text.num_hidden_layers * heads * width,
            head=text.hidden_size * inner.get_input_embeddings().weight.shape[0],
            weights=sum(n_weights(p) for p in policy.model.parameters()),
            trained=sum(p.numel() for p in policy.parameters() if p.requires_grad),
            blocks=text.num_hidden_layers,
        )
