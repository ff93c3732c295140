"""Alpha-DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.offsets import centre, margin, normalised
from unipref.objectives.scores import log_ratio, mean_logp
from unipref.objectives.states import moving
from unipref.objectives.targets import labels, smoothed
from unipref.objectives.terms import Term, pairwise


@method(
    "alpha_dpo",
    source="arXiv:2410.10148, as in github.com/junkangwu/alpha-DPO",
    formula="-log sigmoid(beta * (d - gamma_ratio - alpha * sg[(q - mean q) / std q])), d of logp / |y|, q of h / |y|",
    needs=("chosen", "rejected", "len", "ref_logp"),
    coupling="statistic",
    citation=Citation(
        "AlphaDPO: Adaptive Reward Margin for Direct Preference Optimization",
        (
            "Junkang Wu",
            "Xue Wang",
            "Zhengyi Yang",
            "Jiancan Wu",
            "Jinyang Gao",
            "Bolin Ding",
            "Xiang Wang",
            "Xiangnan He",
        ),
        2024,
        "2410.10148",
    ),
    exceptions={
        "G1": "there is a margin",
        "G4": "scores are means over tokens, so a common shift of sums counts more in the shorter response",
    },
    limits=[Limit({"alpha": 0.0}, "simpo", {"beta": 2.5, "gamma_ratio": 0.15})],
    # d = -1 + 2 = 1, q = 1 - 0 = 1, Z = (1 - 0.5) / 0.25 = 2, M = 0.15 + 0.05 * 2: z = 2.5 * 0.75 = 1.875
    golden=[
        (
            {},
            {
                "logp_chosen": -2.0,
                "logp_rejected": -8.0,
                "ref_logp_chosen": -4.0,
                "ref_logp_rejected": -8.0,
                "len_chosen": 2,
                "len_rejected": 4,
                "alpha_dpo_mean": 0.5,
                "alpha_dpo_std": 0.25,
            },
            0.1426751,
        )
    ],
)
def alpha_dpo(
    *,
    beta: float = 2.5,
    gamma_ratio: float = 0.15,
    alpha: float = 0.05,
    flip: float = 0.0,
    momentum: float = 0.9,
    compat: bool = False,
) -> Term:
    """SimPO whose margin is larger for pairs that the policy already parts more than its reference does.

    The margin takes no gradient. What a pair parts, per token, is measured against its running mean and deviation over
    steps, the present one included; while the deviation is 0, as at the first step from the reference, it says nothing.
    The released code starts both at 0 without correction, so that its first margins are ten times too wide, and renews
    them in evaluation too.

    Args:
        beta, gamma_ratio, alpha: of Mistral-7B-Instruct in the authors' configuration; 2.5, 0.6 and 0.2 for
            Llama-3-8B-Instruct, 10, 0.4 and 0.05 for Gemma-2-9b-it.
        gamma_ratio: SimPO's margin over beta.
        alpha: margin per deviation; at 0 neither the reference nor the running numbers are used.
        flip: label smoothing; a label that is wrong asks the margin of the pair in its other order, where the released
            code turns the sign of the whole logit, margin and all.
        momentum: share of the past in the running numbers.
        compat: running numbers as released, without correction of their start.
    """
    offsets: tuple = (margin(beta * gamma_ratio),)
    if alpha != 0:
        watched = moving("alpha_dpo", log_ratio(eta=1), momentum=momentum, corrected=not compat)
        offsets += (normalised(watched, -beta * alpha), centre(watched, beta * alpha))
    target = smoothed(flip) if flip != 0 else labels()
    return pairwise("alpha_dpo", score=mean_logp(beta), offset=offsets, target=target, link=logistic())
