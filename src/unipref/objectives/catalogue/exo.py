"""Efficient exact optimization."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.lists import kl_fwd
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.targets import logit, reach, smoothed
from unipref.objectives.terms import Term, groupwise, pairwise


@method(
    "exo",
    source="arXiv:2402.00856, as in github.com/haozheji/exact-optimization and TRL 1.16 (exo_pair)",
    formula="KL(softmax(beta * h) || softmax(reward / beta_r)); of labels KL(sigmoid(beta * dh) || 1 - flip)",
    needs=("group", "ref_logp", "reward"),
    citation=Citation(
        "Towards Efficient Exact Optimization of Language Model Alignment",
        (
            "Haozhe Ji",
            "Cheng Lu",
            "Yilin Niu",
            "Pei Ke",
            "Hongning Wang",
            "Jun Zhu",
            "Jie Tang",
            "Minlie Huang",
        ),
        2024,
        "2402.00856",
    ),
    exceptions={"G1": "the loss at the reference is the distance to the rewards' softmax, 0 where they are equal"},
    # at the reference p = 1/2; of rewards with softmax (2, 1) / 3: -log 2 - (log(2/3) + log(1/3)) / 2;
    # of labels with flip 0.1: -log 2 - (log 0.9 + log 0.1) / 2
    golden=[
        (
            {"beta_r": 1.0},
            {"logp": [-1.0, -2.0], "ref_logp": [-1.0, -2.0], "reward": [0.6931471805599453, 0.0], "group": [0, 0]},
            0.0588915,
        ),
        (
            {"target": "labels", "flip": 0.1},
            {"logp_chosen": -1.0, "logp_rejected": -2.0, "ref_logp_chosen": -1.0, "ref_logp_rejected": -2.0},
            0.5108256,
        ),
    ],
    limits=[
        Limit({"beta": 0.4, "beta_r": 0.5}, "rpo", {"distance": "fwd", "unit": "group", "beta": 0.4, "eta": 2.0}),
        Limit({"beta": 0.4, "beta_r": 0.5}, "rpo", {"distance": "fwd", "beta": 0.4, "eta": 2.0}, note="for pairs"),
    ],
)
def exo(
    *, beta: float = 0.5, beta_r: float = 0.5, target: str = "rewards", flip: float = 4.5397868702434395e-05
) -> Term:
    """Reverse KL from the policy's probabilities among a prompt's responses to those of their rewards.

    With many responses sampled from the reference its gradient comes to that of the RLHF objective, whose optimum it
    seeks mode first; with two it is only roughly so. A record with a missing reward does not count. The authors divide
    the logits of policy and reference by a temperature of 0.8 before log-probabilities are taken; here they are as the
    models have them.

    Args:
        beta: of the policy; 0.5 is the authors' for HH and TL;DR, 0.1 for IMDB.
        beta_r: unit of the rewards, likewise.
        target: "rewards", or "labels": pairs whose target is (1 - flip, flip), soft labels likewise smoothed.
        flip: above 0, since a target of 0 makes the loss infinite. Default: sigmoid(-10), the authors' odds of e^10.
    """
    if not beta_r > 0:
        raise ConfigError(f"exo divides rewards by beta_r, which must be above 0: {beta_r}")
    if target == "rewards":
        return groupwise("exo", score=log_ratio(beta), link=kl_fwd(), target=reach(column("reward"), 1 / beta_r))
    if target != "labels":
        raise ConfigError(f"exo(target={target!r}){nearest(str(target), ('rewards', 'labels'))}")
    if flip == 0:
        raise ConfigError("exo needs flip above 0: a rejected response of probability 0 makes the loss infinite")
    return pairwise("exo", score=log_ratio(beta), link=kl_fwd(), target=logit(smoothed(flip)))
