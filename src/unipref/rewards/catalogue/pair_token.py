"""A language model as a judge of pairs."""

from collections.abc import Mapping

from unipref.core.cards import method
from unipref.data.catalogue.ab_question import CODEFAVOR
from unipref.data.pair_questions import PairQuestion
from unipref.rewards.pair_judge import PairJudge


@method(
    "pair_token",
    kind="reward",
    source="arXiv:2410.03837, as in github.com/amazon-science/llm-code-preference",
    formula="P(a > b) = (P(A | q(a, b)) + P(B | q(b, a))) / 2, softmax over the letters A and B alone",
    needs=("chosen", "rejected"),
    citation=CODEFAVOR,
)
def pair_token(
    *,
    model: str,
    criterion: str | None = None,
    by: str | None = None,
    criteria: Mapping[str, str] | None = None,
    turns: bool | None = None,
    max_tokens: int = 16_384,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> PairJudge:
    """A language model reads both responses and answers with the letter of the better one, in both orders.

    It is trained as a stage of a recipe (method: pair_token) and asked here; any language model can be asked. It
    predicts on pairs of texts, not on vectors, and has no reward of a single response.

    Args:
        model: folder of the trained judge, or any causal language model.
        criterion, by, criteria: of the question, see the operator `ab_question`; where none is given, as trained.
        turns: ask in the tokenizer's chat template; None: where it has one.
        max_tokens: per forward pass.
        dtype, trust_remote_code: of loading.
    """
    given = criterion is not None or by is not None
    question = PairQuestion(criterion or "", by, criteria) if given else None
    return PairJudge(model, question, turns, max_tokens, dtype, trust_remote_code)
