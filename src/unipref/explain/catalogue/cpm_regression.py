"""The compositional preference model's regression."""

from unipref.core.cards import method
from unipref.explain.compositional import CompositionalPreferenceModel
from unipref.features.concept_cards import CPM


@method(
    "cpm_regression",
    kind="explanation",
    source="arXiv:2310.13011, the authors' code",
    formula="P(a > b) = sigmoid(w . (z(a) - z(b))), z by the pooled mean and spread of both responses",
    needs=("chosen", "rejected"),
    citation=CPM,
)
def cpm_regression(*, penalty: str = "l2", form: str = "g", n_folds: int = 8) -> CompositionalPreferenceModel:
    """A sum over readable features that scores single responses; the scorer `cpm` reads it from a file.

    The strength of the penalty is chosen by accuracy in folds, which never part the pairs of a prompt, as the authors'
    code does not ask.

    Args:
        penalty: "l2" or "l1".
        form: "g" (differences) or "f" (both responses apart, then the mean of the two halves).
        n_folds: of the choice.
    """
    return CompositionalPreferenceModel(penalty=penalty, form=form, n_folds=n_folds)
