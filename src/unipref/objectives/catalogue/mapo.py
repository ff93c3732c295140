"""Mask preference optimization: token weights from the reference's activations."""

from unipref.core.cards import method
from unipref.objectives.catalogue.sparse_po import EXCEPTIONS, ONE_TOKEN, SPARSE_PO, masked
from unipref.objectives.terms import Term
from unipref.objectives.tokens import token_column


@method(
    "mapo",
    source="arXiv:2410.05102, as in github.com/huawei-noah/HEBO (SparsePO, mapo_trainer.py)",
    formula="-log sigmoid(beta (du + dd)), u = sum_t m_t (logp_t - ref_logp_t), d = sum_t m_t KL_t",
    needs=("chosen", "rejected", "ref_logp", "kl", "mask"),
    citation=SPARSE_PO,
    exceptions=EXCEPTIONS,
    # log-ratios ln(.6/.5) and ln(.5/.25), KL 0.0923315 and 0.2392782, masks 1 and 0: z = .8 (0.1823216 + 0.0923315)
    golden=[
        (
            {"beta": 0.8},
            {**ONE_TOKEN, "token_mask": [1.0, 0.0]},
            0.5893086,
        )
    ],
)
def mapo(*, beta: float = 0.1) -> Term:
    """Token-level DPO in which a token counts as much as the reference is active where it predicts it.

    Weights are in [0, 1], read off the reference's attention, MLP and block outputs before training, and stay fixed;
    one mask weighs log-ratios and divergences. The divergence needs the whole distribution of a live reference. A
    response of one token, where nothing can be compared, counts in full.

    Args:
        beta: 0.1 for dialogue in the authors' README, 0.8 for sentiment and summaries.
    """
    mask = token_column("mask")
    return masked("mapo", beta, mask, mask)
