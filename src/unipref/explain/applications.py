"""What an explanation is good for: guidance by named concepts, and breaking ties.

`guidance` and `tie_break` are of held-out pairs and recorded verdicts; nothing that is tested on was fitted to. Source:
offline forms of the two application tests of arXiv:2505.20088 section 4. The paper asks language models, as
`guided_live` and `tie_break_live` do; in the offline forms a response is picked by the concepts alone.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unipref.core.statistics import mean, mean_difference
from unipref.data.pairs import shared_rows
from unipref.explain._order import follows_the_place
from unipref.explain.study import FEW, Study
from unipref.features.concepts import Concept
from unipref.features.judging import Judge, in_parallel

__all__ = ["N_CONCEPTS", "guidance", "guided_live", "tie_break", "tie_break_live"]

LIVE_SALT = "unipref-explain-live-1"
OVERALL = "overall quality: a better answer to what was asked"
N_CONCEPTS = 4  # named at a time, as in the paper
DRAWS = 200  # of other concepts at random
NEAR = 0.2  # of the shared held-out pairs are near-ties where a judge calls none of them a tie

Named = list[tuple[int, int]]  # (concept, +1 where more of it is preferred, -1 where less is)


def guidance(studies: Mapping[str, Study], *, k: int = N_CONCEPTS, seed: int = 0) -> dict[str, Any]:
    """How often the response that has more of a mechanism's leading concepts is the one it prefers.

    Of the two responses to a held-out prompt the one is picked that is ahead in more of the k concepts with the largest
    weights (fewer where the model has fewer), each in the direction of its weight; half a win where they are level.
    Beside it the same with k other concepts, drawn at random, each in the direction of its own weight or, without one,
    in which it goes with winning in training.
    """
    return {"k": k, "mechanisms": {name: _guided(one, k, seed) for name, one in studies.items()}}


def _guided(one: Study, k: int, seed: int) -> dict[str, Any]:
    weights = _mean_weights(one)
    top = _largest(weights, k)
    direction = _directions(one, weights)
    others = [j for j in range(len(weights)) if j not in {j for j, _ in top} and direction[j] != 0]
    k = min(k, len(top), len(others))
    if not k:
        return {"why_not": f"{len(top)} concepts have a weight, and {len(others)} others a direction"}
    top = top[:k]
    rows = one.heldout & (one.pairs.p != 0.5)
    x, verdict = np.sign(np.nan_to_num(one.x[rows])), np.sign(one.pairs.p[rows] - 0.5)
    groups = one.pairs.group[rows].tolist()
    rng = np.random.default_rng(seed)
    with_top = _wins(x, top, verdict)
    at_random = _random(x, others, direction, verdict, k, rng)
    return {
        "k": k,
        "concepts": _keys(one, top),
        "n": int(rows.sum()),
        "top": mean(with_top, clusters=groups, bounds=(0.0, 1.0)).as_list(),
        "random": mean(at_random, clusters=groups, bounds=(0.0, 1.0)).as_list(),
        "difference": mean_difference(with_top, at_random, clusters=(groups, groups), bounds=(-1.0, 1.0)).as_list(),
    }


def guided_live(
    one: Study,
    judge: Judge,
    *,
    n: int,
    k: int = N_CONCEPTS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """How often a model's answer with a mechanism's leading concepts named wins over its plain answer, judged live.

    To `n` held-out prompts the judge's model writes a plain answer, one told to heed the k concepts with the largest
    weights, and one told to heed k others drawn at random; then it says which of a told one and the plain one is
    better, in both orders. A tie is half a win. Writer and judge are the same model, which may favour what it was told.
    """
    weights = _mean_weights(one)
    top, direction = _largest(weights, k), _directions(one, weights)
    others = [j for j in range(len(weights)) if j not in {j for j, _ in top} and direction[j] != 0]
    k = min(k, len(top), len(others))
    if not k:
        return {"why_not": f"{len(top)} concepts have a weight, and {len(others)} others a direction"}
    prompts = sorted(set(one.pairs.prompt[one.heldout].tolist()) - {""}, key=_draw)[:n]
    if not prompts:
        return {"why_not": "the data have no prompts to answer"}
    drawn = np.random.default_rng(seed).choice(others, (len(prompts), k))

    def tried(i: int) -> list[float]:
        plain, shares = judge.generate(prompts[i]), []
        for concepts in (top[:k], [(int(j), int(direction[j])) for j in drawn[i]]):
            told = judge.generate(f"{prompts[i]}\n\n{_instruction(one, concepts)}") if plain else None
            verdict = judge.compare(prompts[i], told, plain, OVERALL) if plain and told else None
            shares.append(math.nan if verdict is None else 0.5 * (1 + verdict))
        return shares

    answers = np.array(in_parallel(tried, range(len(prompts)), judge=judge, progress=progress))
    right = dict(zip(("top", "random"), answers.T, strict=True))
    if np.isnan(answers).all(axis=0).any():
        return {"why_not": f"{judge.name} gave no verdict on any of {len(prompts)} prompts"}
    return {
        "model": judge.name,
        "k": k,
        "n": len(prompts),
        "missing": int(np.isnan(answers).sum()),
        "concepts": _keys(one, top[:k]),
        **{name: mean(values, clusters=prompts, bounds=(0.0, 1.0)).as_list() for name, values in right.items()},
        "difference": mean_difference(
            right["top"], right["random"], clusters=(prompts, prompts), bounds=(-1.0, 1.0)
        ).as_list(),
    }


def _draw(name: str) -> str:
    return hashlib.sha256(f"{LIVE_SALT}\x00{name}".encode()).hexdigest()


def _instruction(one: Study, named: Named) -> str:
    """What the model is told besides the prompt."""
    wanted = [f"{'more' if sign > 0 else 'less'} of this: {one.concepts[j].high}" for j, sign in named]
    return "Write the answer so that it has\n" + "\n".join(f"- {text}" for text in wanted)


def tie_break(studies: Mapping[str, Study], reference: str, *, k: int = N_CONCEPTS, seed: int = 0) -> dict[str, Any]:
    """How well k concepts decide what a mechanism could not, as the reference mechanism decided it.

    On pairs that both judged, and that the one calls a tie or decides by their order (or is nearest to a tie: the
    smallest logits of its model), four choices of concepts: at random, its own leading ones, the reference's, and those
    that the reference weighs most above it.
    """
    others = {name: _broken(one, studies[reference], k, seed) for name, one in studies.items() if name != reference}
    return {"k": k, "reference": reference, "mechanisms": others} if others else {}


def _broken(judge: Study, reference: Study, k: int, seed: int) -> dict[str, Any]:
    ties = _ties(judge, reference, k)
    if isinstance(ties, str):
        return {"why_not": ties}
    x = np.sign(np.nan_to_num(judge.x[ties.rows]))
    groups = judge.pairs.group[ties.rows].tolist()
    among = np.flatnonzero(ties.direction).tolist()
    found = {"random": _random(x, among, ties.direction, ties.verdict, ties.k, np.random.default_rng(seed))}
    found |= {name: _wins(x, named, ties.verdict) for name, named in ties.chosen.items()}
    return {
        "k": ties.k,
        "n": len(ties.rows),
        "rule": ties.rule,
        **{name: mean(right, clusters=groups, bounds=(0.0, 1.0)).as_list() for name, right in found.items()},
        "concepts": {name: _keys(judge, named) for name, named in ties.chosen.items()},
    }


def tie_break_live(
    judge: Study,
    reference: Study,
    asked: Judge,
    *,
    n: int,
    k: int = N_CONCEPTS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """How often a model decides a mechanism's ties as the reference did when it is told which concepts to look at.

    Of the pairs of `tie_break`, `n` drawn by a hash: the model is asked which response is better, plainly and by k
    concepts alone, each with its direction: at random, the mechanism's own leading ones, the reference's, and those
    that the reference weighs most above it. Every question is asked in both orders; a verdict that changes with the
    order is a tie, and half right. The plain question says what hints are to be held against.

    Args:
        judge: of the mechanism whose ties are broken. asked: the model, which should be the one that gave its verdicts.
        n: pairs at most; each takes ten requests.
        progress: told how many pairs are done, and of how many.

    Source: arXiv:2505.20088 section 4. There a tie is a verdict that changed with the order, and the hints are the
    whole question as here; the wording is ours.

    Returns:
        What `tie_break` has of one mechanism, with "plain", "difference" (overlooked - random), "missing" verdicts,
        and "asked", the account of these questions; or "why_not".
    """
    ties = _ties(judge, reference, k)
    if isinstance(ties, str):
        return {"model": asked.name, "why_not": ties}
    pairs = judge.pairs
    order = sorted(
        range(len(ties.rows)), key=lambda i: _draw(f"{pairs.domain[ties.rows[i]]} {pairs.ids[ties.rows[i]]}")
    )
    order = order[:n]
    among = np.flatnonzero(ties.direction)
    rng = np.random.default_rng(seed)
    questions = []
    for i in order:
        drawn = [(int(j), int(ties.direction[j])) for j in rng.choice(among, ties.k, replace=False)]
        named = {"random": drawn, **ties.chosen}
        questions.append((i, {"plain": OVERALL, **{name: _hint(judge, each) for name, each in named.items()}}))

    def decided(question: tuple[int, dict[str, Concept | str]]) -> list[float]:
        i, rubrics = question
        row = ties.rows[i]
        texts = (pairs.prompt[row], pairs.first[row], pairs.second[row])
        verdicts = [asked.compare(*texts, rubric) for rubric in rubrics.values()]
        return [math.nan if found is None else 0.5 * (1 + found * ties.verdict[i]) for found in verdicts]

    before = asked.account.copy()
    answers = np.array(in_parallel(decided, questions, judge=asked, progress=progress))
    right = dict(zip(("plain", "random", *ties.chosen), answers.T, strict=True))
    if np.isnan(answers).all():
        return {"model": asked.name, "why_not": f"{asked.name} gave no verdict on any of {len(order)} pairs"}
    groups = pairs.group[ties.rows[order]].tolist()
    return {
        "model": asked.name,
        "k": ties.k,
        "n": len(order),
        "of": len(ties.rows),
        "rule": ties.rule,
        "missing": int(np.isnan(answers).sum()),
        **{name: mean(each, clusters=groups, bounds=(0.0, 1.0)).as_list() for name, each in right.items()},
        "difference": mean_difference(
            right["overlooked"], right["random"], clusters=(groups, groups), bounds=(-1.0, 1.0)
        ).as_list(),
        "concepts": {name: _keys(judge, named) for name, named in ties.chosen.items()},
        "asked": asked.account.since(before).to_dict(),
    }


def _hint(one: Study, named: Named) -> Concept:
    """The question which response is better by these concepts alone."""
    wanted = [f"{'more' if sign > 0 else 'less'} of this: {one.concepts[j].high}" for j, sign in named]
    by = "the better response by the following and by nothing else, each counting the same: " + "; ".join(wanted)
    return Concept("hinted", "Better by what is named", by, kind="judge")


@dataclass(frozen=True, eq=False)
class _Ties:
    """What a mechanism did not decide and the reference did.

    Attributes:
        rows: (M,) of the mechanism's pairs. verdict: (M,) 1 where the reference took the first, else -1.
        rule: which pairs these are, in words. k: concepts of each choice. chosen: by name.
        direction: (C,) of every concept for the mechanism.
    """

    rows: np.ndarray
    verdict: np.ndarray
    rule: str
    k: int
    chosen: dict[str, Named]
    direction: np.ndarray


def _ties(judge: Study, reference: Study, k: int) -> _Ties | str:
    """The pairs that `judge` could not decide, with the concepts to decide them by; or why there are none."""
    rows_j, rows_r, swapped = shared_rows(judge.pairs, reference.pairs)
    truth = np.where(swapped, 1 - reference.pairs.p[rows_r], reference.pairs.p[rows_r])
    use = judge.heldout[rows_j] & reference.heldout[rows_r] & (truth != 0.5)
    if use.sum() < FEW:
        return f"the two judged {int(use.sum())} held-out pairs in common; the test needs {FEW}"
    rows_j, truth = rows_j[use], truth[use]
    changed = follows_the_place(judge.pairs)[rows_j]
    ties = (judge.pairs.p[rows_j] == 0.5) | changed
    rule = "pairs that it calls a tie" + (" or decides otherwise in the other order" if changed.any() else "")
    if ties.sum() < FEW:
        logits = np.abs(judge.model.decision_function(judge.x[rows_j], judge.pairs.domain[rows_j]))
        ties = logits <= np.quantile(logits, max(NEAR, FEW / len(logits)))
        rule = "it calls too few pairs a tie; pairs with the smallest logits of its model"
    known = {concept.key: j for j, concept in enumerate(reference.concepts)}
    own = _mean_weights(judge)
    theirs_all = _mean_weights(reference)
    theirs = np.array([theirs_all[known[c.key]] if c.key in known else 0.0 for c in judge.concepts])
    chosen = {"own": _largest(own, k), "reference": _largest(theirs, k), "overlooked": _largest(theirs - own, k)}
    k = min(k, *(len(named) for named in chosen.values()))
    if not k:
        return "one of the two has no concept with a weight"
    return _Ties(
        rows_j[ties],
        np.sign(truth[ties] - 0.5),
        rule,
        k,
        {name: named[:k] for name, named in chosen.items()},
        _directions(judge, own),
    )


def _mean_weights(one: Study) -> np.ndarray:
    return np.mean([one.model.weights(name) for name in one.model.domains_], axis=0)


def _largest(weights: np.ndarray, k: int) -> Named:
    order = np.argsort(-np.abs(weights), kind="stable")[:k]
    return [(int(j), int(np.sign(weights[j]))) for j in order if weights[j] != 0]


def _directions(one: Study, weights: np.ndarray) -> np.ndarray:
    """(C,) the sign of each weight, and of a concept without one that of its covariance with winning in training."""
    fitted = ~one.heldout
    together = np.nan_to_num(one.x[fitted]).T @ (one.pairs.p[fitted] - 0.5)
    return np.where(weights != 0, np.sign(weights), np.sign(together))


def _wins(x: np.ndarray, named: Named, verdict: np.ndarray) -> np.ndarray:
    """(N,) 1 where the response that is ahead in more of the named concepts won, 1/2 where they are level."""
    ahead = np.sign(sum(sign * x[:, j] for j, sign in named))
    return 0.5 * (1 + ahead * verdict)


def _random(
    x: np.ndarray, among: Sequence[int], direction: np.ndarray, verdict: np.ndarray, k: int, rng: np.random.Generator
) -> np.ndarray:
    """(N,) the same for k concepts drawn from `among`, the mean over draws."""
    drawn = [rng.choice(among, k, replace=False) for _ in range(DRAWS)]
    return np.mean([_wins(x, [(int(j), int(direction[j])) for j in js], verdict) for js in drawn], axis=0)


def _keys(one: Study, named: Named) -> list[list[Any]]:
    return [[one.concepts[j].key, sign] for j, sign in named]
