"""Preference optimization with pseudo feedback."""

from unipref.core.cards import get_method, method
from unipref.core.errors import ConfigError, nearest
from unipref.data.catalogue.pseudo_labels import WAYS, pseudo_labels
from unipref.data.catalogue.tree_prefixes import tree_prefixes
from unipref.objectives.catalogue.dpo_sft import dpo_sft
from unipref.recipes.composition import Composition

_WAYS = (*WAYS, "prefixes")


@method(
    "pfpo",
    kind="recipe",
    source="arXiv:2411.16345, released code",
    formula="-log sigmoid(beta * dh) - lam * logp_c / |c|, c > r by what most samples answer or by tests passed",
    needs=("group", "len", "ref_logp"),
    citation=get_method("pseudo_labels").citation,
)
def pfpo(
    *,
    beta: float = 0.5,
    lam: float = 1.0,
    how: str = "majority",
    tau: float = 0.5,
    lower: float = 0.5,
    margin: int = 6,
    threshold: float = 1.0,
    draw: bool = False,
    seed: int = 0,
) -> Composition:
    """DPO and likelihood of the preferred side, on pairs that nobody labelled.

    The rows are lists of samples; answers are the last number of each response. For another answer, or other columns
    of tests, give a stage of `dpo_sft` the operator `pseudo_labels`. A majority that is wrong is learned as well: more
    samples help only where right answers are the most frequent. The source's next rounds sample with the new model.
    The unit of its likelihood term was not read: here it is the mean over tokens. Beginnings are mixed with whole
    solutions there; here a stage trains one or the other.

    Args:
        beta: 0.5 in the released configuration.
        lam: coefficient of the likelihood, 1 there.
        how: "majority": samples with the most frequent answer against the others. "passes": programs by the tests they
            pass, from columns `passed` and `tests`. "prefixes": beginnings of solutions by how many of their
            completions agree with the pseudo label, from trees (pDPO).
        tau: share of the samples that the majority must exceed; the source runs 0, 0.5 and 0.6.
        lower, margin: with "passes", the share of tests that the better program passes and its lead in tests.
        threshold: with "prefixes", agreeing completions that a good beginning exceeds.
        draw: one pair per prompt at random, as the source draws each epoch; else all.
        seed: of the draws.
    """
    if how not in _WAYS:
        raise ConfigError(f"pfpo(how={how!r}){nearest(str(how), _WAYS)}")
    if how == "prefixes":
        operator = tree_prefixes(threshold=threshold, seed=seed)
    else:
        operator = pseudo_labels(how=how, tau=tau, lower=lower, margin=margin, draw=draw, seed=seed)
    return Composition(dpo_sft(beta=beta, lam=lam), (operator,))
