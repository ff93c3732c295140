"""A judge of pairs that answers with a letter."""

from collections.abc import Mapping

from unipref.core.cards import method
from unipref.data.catalogue.ab_question import CODEFAVOR, ab_question
from unipref.data.pair_questions import PairQuestion
from unipref.objectives import as_objective, labels, logistic, logp, nll, pairwise, smoothed
from unipref.recipes.composition import Composition


@method(
    "pair_token",
    kind="recipe",
    source="arXiv:2410.03837, as in github.com/amazon-science/llm-code-preference",
    formula="-log softmax(logp(A | q), logp(B | q)) of the better one's letter, in both orders",
    needs=("chosen", "rejected"),
    citation=CODEFAVOR,
)
def pair_token(
    *,
    criterion: str = "",
    by: str | None = None,
    criteria: Mapping[str, str] | None = None,
    orders: str = "both",
    smoothing: float = 0.0,
    likelihood: float = 0.0,
    seed: int = 0,
) -> Composition:
    """A language model that reads both responses and names the better one by a letter, trained in both orders.

    The choice is between the two letters alone, so that a label may be soft and a tie is one half. The authors train
    with the likelihood of the letter among all tokens, which `likelihood` adds; here it is off, as the softmax over two
    answers is what is asked afterwards. What is trained stays a language model; `unipref methods --kind reward` has
    how it is asked.

    Args:
        criterion, by, criteria, orders, seed: of the question; see the operator `ab_question`.
        smoothing: share of labels that are taken to be wrong.
        likelihood: factor of the better letter's negative log-likelihood among all tokens.
    """
    target = smoothed(smoothing) if smoothing else labels()
    objective = as_objective(pairwise("pair_token", score=logp(), link=logistic(), target=target))
    if likelihood:
        objective = objective + likelihood * nll(score=logp())
    question = ab_question(criterion=criterion, by=by, criteria=criteria, orders=orders, seed=seed)
    return Composition(objective, (question,), judge=PairQuestion(criterion, by, criteria))
