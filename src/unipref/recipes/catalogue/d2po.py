"""Discriminator-guided DPO."""

from unipref.core.cards import Citation, method
from unipref.core.records import Record
from unipref.data import Operator
from unipref.data.operators import LeftOut, each, rated, with_pairs
from unipref.objectives.catalogue.dpo import dpo
from unipref.recipes.composition import Composition, Loop


@method(
    "d2po",
    kind="loop",
    source="arXiv:2405.01511, as in github.com/PrasannS/d2po",
    formula="-log sigmoid(beta * dh), the order by gold labels where there are any, else by the discriminator",
    needs=("reward", "ref_logp"),
    citation=Citation(
        "D2PO: Discriminator-Guided DPO with Response Evaluation Models",
        ("Prasann Singhal", "Nathan Lambert", "Scott Niekum", "Tanya Goyal", "Greg Durrett"),
        2024,
        "2405.01511",
    ),
)
def d2po(*, beta: float = 0.05, silver: str = "reward", gold: str = "gold_reward") -> Loop:
    """DPO against the first model on pairs that a discriminator orders, corrected by the gold labels there are.

    The discriminator is a reward model that learns from few gold labels, asked for where it is least sure; it and its
    training are not part of this stage, which trains the policy on what it says. Every pair of a prompt's responses
    counts once; a tie in gold leaves the order to the discriminator. The released code adds up the losses of a
    mini-batch where this takes their mean, so learning rates do not carry over. Without gold labels it is online DPO
    with a fixed reward model.

    Args:
        silver: column of the discriminator's reward.
        gold: column of the gold reward; responses without one are not labelled.
    """
    return Loop(
        (Composition(dpo(beta=beta), (ordered(silver=silver, gold=gold),)),),
        collects="two responses per prompt from the policy as it trains, a discriminator's reward for each, and gold "
        "labels for the pairs on which it is least sure",
    )


def ordered(*, silver: str, gold: str) -> Operator:
    """Comparisons of a record's responses, by `gold` where both have it and differ in it, else by `silver`."""

    def make(record: Record) -> list[Record]:
        rewards = rated(record, silver)

        def lead(i: int, j: int) -> float:
            known = [record.items[side].columns.get(gold) for side in (i, j)]
            if None not in known and known[0] != known[1]:
                return known[0] - known[1]
            return rewards[i] - rewards[j]

        pairs = [
            (i, j)
            for i in rewards
            for j in rewards
            if lead(i, j) > 0 and record.items[i].response != record.items[j].response
        ]
        if not pairs:
            raise LeftOut(f"no two responses differ in {gold} or {silver}")
        return [with_pairs(record, dict.fromkeys(pairs))]

    return each("ordered", {"silver": silver, "gold": gold}, make, changed="compared by gold or silver labels")
