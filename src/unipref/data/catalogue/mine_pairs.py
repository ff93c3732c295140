"""RS-DPO's pairs: every two responses whose rewards are far enough apart."""

import math
import random

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.core.records import Record
from unipref.data.operators import LeftOut, Operator, digest, each, rated, with_pairs


@method(
    "mine_pairs",
    kind="operator",
    status="reconstructed",
    source="arXiv:2402.10038",
    formula="(i, j) for every sigmoid((r_i - r_j) / tau) > eta",
    needs=("reward",),
    citation=Citation(
        "RS-DPO: A Hybrid Rejection Sampling and Direct Preference Optimization Method for Alignment of Large "
        "Language Models",
        ("Saeed Khaki", "JinJin Li", "Lan Ma", "Liu Yang", "Prathap Ramachandra"),
        2024,
        "2402.10038",
    ),
)
def mine_pairs(
    *,
    eta: float = 0.85,
    tau: float = 1.0,
    by: str = "reward",
    cap: int | None = None,
    equal_prompts: bool = False,
    seed: int = 0,
) -> Operator:
    """Every ordered pair of a record's responses that a logistic model of their rewards calls with more than `eta`.

    The same as r_i - r_j > tau * log(eta / (1 - eta)): never a tie, at most one order of two responses. The pairs
    share their record, hence their tokens; the difference of the rewards is a pair's margin.

    Reconstructed: the pipeline is the abstract's; the rule and its defaults are from a review of the paper.

    Args:
        eta: in [1/2, 1); 1/2 takes all that differ.
        tau: unit of reward, above 0.
        by: the column of the reward.
        cap: most pairs per prompt, drawn at random; all where it is not given. Not in the source, where prompts with
            spread-out rewards give most of the pairs.
        equal_prompts: a record's weight is shared by its pairs. Not in the source.
    """
    if not 0.5 <= eta < 1 or not tau > 0:
        raise ConfigError(f"eta must be in [1/2, 1) and tau above 0: eta={eta}, tau={tau}")
    if cap is not None and cap < 1:
        raise ConfigError(f"a cap of {cap} pairs leaves nothing; give 1 or more, or none")
    least = tau * math.log(eta / (1.0 - eta))

    def make(record: Record) -> list[Record]:
        reward = rated(record, by)
        pairs = [
            (i, j)
            for i in reward
            for j in reward
            if reward[i] - reward[j] > least and record.items[i].response != record.items[j].response
        ]
        if not pairs:
            raise LeftOut(f"no two responses are far enough apart in {by}")
        if cap is not None and len(pairs) > cap:
            pairs = sorted(random.Random(f"mine {seed} {digest(record, seed).hex()}").sample(pairs, cap))
        weight = record.weight / len(pairs) if equal_prompts else record.weight
        return [with_pairs(record, {(i, j): reward[i] - reward[j] for i, j in pairs}, weight=weight)]

    options = {"eta": eta, "tau": tau, "by": by, "cap": cap, "equal_prompts": equal_prompts, "seed": seed}
    return each("mine_pairs", options, make, changed="list compared in pairs")
