"""LongDPO's pairs along the best path of a tree."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.core.records import Record
from unipref.data.operators import LeftOut, Operator, each
from unipref.data.trees import extracted, known_fact, step_pairs, tree_of


@method(
    "tree_steps",
    kind="operator",
    source="arXiv:2502.02095, released code",
    formula="per depth: selected step > random sibling, or > its own words exchanged; context x + selected steps",
    citation=Citation(
        "LongDPO: Unlock Better Long-form Generation Abilities for LLMs via Critique-augmented Stepwise Information",
        ("Bowen Ping", "Jiali Zeng", "Fandong Meng", "Shuo Wang", "Jie Zhou", "Shanghang Zhang"),
        2025,
        "2502.02095",
    ),
)
def tree_steps(*, by: str = "v", swap: float = 0.3, seed: int = 0) -> Operator:
    """The selected step of every depth of a tree (format "tree") against a random other one.

    Args:
        by: the fact by which a step is selected.
        swap: chance of each two neighbouring words to be exchanged, where a step has no sibling.
    """
    known_fact(by)
    if not 0 <= swap <= 1:
        raise ConfigError(f"swap is a probability: {swap}")

    def make(record: Record) -> list[Record]:
        found = step_pairs(tree_of(record), by=by, seed=seed, swap=swap)
        if not found:
            raise LeftOut(f"no step has a {by}")
        return list(extracted(record, found))

    return each(
        "tree_steps",
        {"by": by, "swap": swap, "seed": seed},
        make,
        changed="tree to a pair of steps",
        added="further step",
    )
