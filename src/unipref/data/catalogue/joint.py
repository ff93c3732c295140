"""Joint preference optimization: prompt and response are scored together."""

from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.records import Record
from unipref.data.operators import Operator, each, responses_of


@method(
    "joint",
    kind="operator",
    source="arXiv:2404.00530, released code",
    formula="logp(x, y) = logp(x) + logp(y | x), all tokens but the first",
    needs=("chosen", "rejected"),
    citation=Citation(
        "Comparing Bad Apples to Good Oranges: Aligning Large Language Models via Joint Preference Optimization",
        (
            "Hritik Bansal",
            "Ashima Suvarna",
            "Gantavya Bhatt",
            "Nanyun Peng",
            "Kai-Wei Chang",
            "Aditya Grover",
        ),
        2024,
        "2404.00530",
    ),
)
def joint() -> Operator:
    """Every response is scored together with its prompt, so that the sides of a pair may answer different prompts.

    The text that a chat template writes around the prompt is scored too, as in the released code. With one prompt on
    both sides its terms cancel and the loss is the conditional one. That code truncates the rejected side by the
    chosen side's length; here each item is cut by its own.
    """

    def make(record: Record) -> list[Record]:
        sides = set(responses_of(record))
        items = tuple(replace(item, score_context=True) if i in sides else item for i, item in enumerate(record.items))
        return [replace(record, items=items)]

    return each("joint", {}, make, changed="context scored with the response")
