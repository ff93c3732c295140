"""What length, form and position count for, alone and beside the content that a model has."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unipref.data.pairs import Pairs
from unipref.explain._intervals import ALIKE, PER_WEIGHT, RARE, alike_groups, mixed, mixtures, number, one_way
from unipref.explain._order import ordered
from unipref.explain.refit import Refit, refit
from unipref.explain.regression import HierarchicalPairRegressor
from unipref.features.concepts import Concept

__all__ = ["bias"]

LENGTH = ("characters", "tokens")  # the first that there is
FORMAT = ("bullets", "numbered", "headings", "bold", "code", "tables", "links", "refusals")


def bias(
    pairs: Pairs,
    x: np.ndarray,
    concepts: Sequence[Concept],
    model: HierarchicalPairRegressor,
    heldout: np.ndarray,
    groups: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, Any]]:
    """Weights of length, form and position on held-out pairs, alone and beside the content that the model has.

    Of forms that go together on the held-out pairs (|r| > `ALIKE`) the first stands for all. Content that goes together
    with one of them would take its weight away by another name, and stays out.

    Args:
        groups: key of a concept -> keys of those that it stands for.

    Returns:
        By concept {"alone", "beside_content": each [weight, low, high] in units of the concept's spread; "why_not":
        the reason for either that is not known; "caution": where either is of a form that is nearly a mixture of
        others}. "position" is the first response's advantage.
    """
    at = {concept.key: j for j, concept in enumerate(concepts)}
    names = [key for key in LENGTH if key in at][:1] + [key for key in FORMAT if key in at]
    columns = [x[:, at[key]] for key in names]
    order = ordered(pairs)
    if order.any():
        names, columns = ["position", *names], [order.astype(float), *columns]
    if not names:
        return {}
    own = np.nan_to_num(np.stack(columns, axis=1)[heldout])
    shown = {name: concepts[at[name]].name if name in at else "standing first" for name in names}
    why = {i: f"only {n} held-out pairs differ in it" for i, n in enumerate((own != 0).sum(axis=0)) if n < RARE}
    rest = [i for i in range(len(names)) if i not in why]
    for first, *others in alike_groups(own[:, rest])[0]:
        for j in others:
            why[rest[j]] = f"{shown[names[rest[first]]]} stands for it on these held-out pairs (|r| > {ALIKE})"
    measured = [i for i in rest if i not in why]
    content = _content(pairs, x, concepts, model, heldout, own[:, measured], [names[i] for i in measured])
    beside = np.concatenate([own[:, measured], np.nan_to_num(x[heldout][:, content])], axis=1)
    fits = {"alone": _fit(own[:, measured], pairs, heldout), "beside_content": _fit(beside, pairs, heldout)}
    labels = [shown[names[i]] for i in measured] + [concepts[j].name for j in content]
    cautions = {
        key: {
            measured[k]: mixed([labels[other] for other in others], strength)
            for k, (strength, others) in mixtures(list(columns.T)).items()
            if k < len(measured)
        }
        for key, columns in (("alone", own[:, measured]), ("beside_content", beside))
    }
    told: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(names):
        if i in why:
            told[name] = _unknown(why[i])
            continue
        k = measured.index(i)
        told[name] = {
            key: [number(fit.weight[k]), number(fit.low[k]), number(fit.high[k])] for key, fit in fits.items()
        }
        told[name]["why_not"] = {key: fit.why_not for key, fit in fits.items() if fit.why_not}
        told[name]["caution"] = {key: said[i] for key, said in cautions.items() if i in said}
    for key, alike in groups.items():
        for name in [name for name in FORMAT if name in alike]:
            told[name] = _unknown(f"{concepts[at[key]].name} stands for it (|r| > {ALIKE})")
    return told


def _unknown(why: str) -> dict[str, Any]:
    fits = ("alone", "beside_content")
    return {**{key: [None, None, None] for key in fits}, "why_not": dict.fromkeys(fits, why)}


def _fit(columns: np.ndarray, pairs: Pairs, rows: np.ndarray) -> Refit:
    return refit(columns, pairs.p[rows], sample_weight=pairs.weight[rows], groups=pairs.group[rows])


def _content(
    pairs: Pairs,
    x: np.ndarray,
    concepts: Sequence[Concept],
    model: HierarchicalPairRegressor,
    heldout: np.ndarray,
    form: np.ndarray,
    names: Sequence[str],
) -> list[int]:
    """The concepts that stand beside length and form: as many as an interval has room for, the largest first, and none
    that would take the other weights' intervals with it.
    """
    here = np.nan_to_num(x[heldout])
    usable = (model.shared_ != 0) & ((here != 0).sum(axis=0) >= RARE) & ~one_way(x[heldout], pairs.p[heldout])
    lengths = np.outer(np.linalg.norm(form, axis=0), np.linalg.norm(here, axis=0))
    r = np.divide(form.T @ here, lengths, out=np.zeros(lengths.shape), where=lengths > 0)
    usable &= (np.abs(r) <= ALIKE).all(axis=0)
    found: list[int] = []
    room = len(set(pairs.group[heldout].tolist())) // PER_WEIGHT - len(names)
    for j in np.argsort(-np.abs(model.shared_), kind="stable"):
        if usable[j] and concepts[j].key not in names and len(found) < room:
            found.append(int(j))
    return found
