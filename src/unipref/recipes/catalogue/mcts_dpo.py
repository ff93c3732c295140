"""Iterative preference learning from tree search."""

from unipref.core.cards import get_method, method
from unipref.data.catalogue.tree_siblings import tree_siblings
from unipref.objectives.catalogue.step_dpo import step_dpo
from unipref.recipes.catalogue._rounds import in_parts
from unipref.recipes.composition import Loop


@method(
    "mcts_dpo",
    kind="loop",
    source="arXiv:2405.00451, as in github.com/YuxiXie/MCTS-DPO",
    formula="-(1 - eps) log sigmoid(beta dh) - eps log sigmoid(-beta dh), eps = min(1/2, N_r / (max(1, N_c) + N_r))",
    needs=("tree", "q", "ref_logp"),
    citation=get_method("tree_siblings").citation,
)
def mcts_dpo(
    *,
    rounds: int = 3,
    beta: float = 0.1,
    loss: str = "sigmoid",
    by: str = "q",
    choose_worst: bool = True,
    smoothing: bool = True,
    min_visits: int = 1,
    seed: int = 0,
) -> Loop:
    """Rounds of step DPO on the siblings of search trees, labels as soft as the visits were undecided.

    The prompts are gone through once, in as many parts as there are rounds: each part is searched with, and compared
    with, the model of the part before. A winner with fewer visits than its sibling, preferred for its value, gives a
    label of 1/2 and hence no signal. Without visits in the trees smoothing leaves no pair: switch it off.

    Args:
        rounds: how often the searching model is renewed. The scripts do so every 64 steps; 3 is ours.
        beta, loss: of `step_dpo`.
        by: fact of the nodes that orders siblings.
        choose_worst: against the worst sibling; else the second best.
        smoothing: soft labels from visits, the conservative variant; else every label is 1.
        min_visits: least visits of the two together where labels are soft.
        seed: of the hash that shares out the trees.
    """
    siblings = tree_siblings(by=by, choose_worst=choose_worst, smoothing=smoothing, min_visits=min_visits)
    return Loop(
        in_parts(step_dpo(beta=beta, loss=loss), rounds, operators=(siblings,), seed=seed, name="rounds"),
        collects="a search tree per prompt, searched with the last round's model and its own evaluation of steps",
    )
