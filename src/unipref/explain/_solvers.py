"""Two ways to the optimum of a `Problem`: proximal Newton on a working set, and FISTA on everything, its slow twin."""

from dataclasses import replace

import numpy as np

from unipref.explain._problem import Point, Problem

__all__ = ["fista", "newton"]

_SLOPE = 1e-4  # of the decrease that the model promises, this share must come true (Armijo)
_INNER = 2000
_ROUNDING = 4e-14


def newton(
    problem: Problem,
    b: np.ndarray | None = None,
    s: np.ndarray | None = None,
    *,
    tolerance: float = 1e-9,
    max_iter: int = 200,
) -> tuple[Point, int]:
    """The optimum, from (`b`, `s`) on, and the number of steps it took.

    Each step models the loss by its exact curvature over the weights that are not 0 or want to leave it, minimises the
    model with its penalties, and goes towards that minimum as far as the objective falls.

    Args:
        tolerance: stop where no weight is further than this from its optimality condition, relative to the largest
            gradient at zero.
    """
    n_domains, n_concepts = len(problem.domains), problem.domains[0].x.shape[1]
    zero = problem.at(np.zeros(n_concepts), np.zeros((n_domains, n_concepts)))
    steepest = max(np.abs(zero.grad_b).max(initial=0.0), np.abs(zero.grad_s).max(initial=0.0))
    point = zero if b is None or s is None else problem.at(b * problem.may_b, s * problem.may_s)
    for step in range(max_iter):
        off_b, off_s = problem.violation(point)
        worst = max(off_b.max(initial=0.0), off_s.max(initial=0.0))
        if worst <= tolerance * steepest:
            return point, step
        on_b, on_s = _working_set(point, off_b, off_s)
        columns = np.flatnonzero(on_b | on_s.any(axis=0))
        target_b, target_s = _minimise_model(problem, point, columns, on_b, on_s, tolerance=0.1 * worst)
        moved = _line_search(problem, point, target_b, target_s)
        if moved is None:
            return point, step
        if point.objective - moved.objective <= _ROUNDING * abs(point.objective):
            return moved, step + 1  # rounding hides any further decrease
        point = moved
    return point, max_iter


def _working_set(point: Point, off_b: np.ndarray, off_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which weights move: those that are not 0, and of the others the most violated, as many again at most."""
    off = np.concatenate([off_b[None], off_s]) * (np.concatenate([point.b[None], point.s]) == 0)
    support = np.concatenate([point.b[None], point.s]) != 0
    room = max(50, 2 * int(support.sum()))
    wanting = np.flatnonzero(off.ravel() > 0)
    if len(wanting) > room:
        wanting = wanting[np.argsort(-off.ravel()[wanting], kind="stable")[:room]]
    on = support.ravel().copy()
    on[wanting] = True
    on = on.reshape(off.shape)
    return on[0], on[1:]


def _minimise_model(
    problem: Problem, point: Point, columns: np.ndarray, on_b: np.ndarray, on_s: np.ndarray, *, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """The minimum of the second-order model of the loss plus penalties, over the weights that are on."""
    own = np.stack(
        [
            domain.curvature(domain.w * q * (1 - q), columns)
            for domain, q in zip(problem.domains, point.both, strict=True)
        ]
    )
    extra = np.zeros(own.shape[1:])  # of b alone, beside what it has from every b + s_d
    for domain, q in zip(problem.domains, point.shared, strict=False):
        extra += problem.alpha * domain.curvature(domain.w * q * (1 - q), columns)
    may_b, may_s = on_b[columns].astype(float), on_s[:, columns].astype(float)
    b0, s0 = point.b[columns], point.s[:, columns]
    grad_b, grad_s = point.grad_b[columns], point.grad_s[:, columns]

    def curved(b: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        per_domain = np.matmul(own, (b + s)[:, :, None])[:, :, 0]
        return may_b * (extra @ b + per_domain.sum(axis=0)), may_s * per_domain

    largest = _largest_eigenvalue(curved, may_b, may_s)
    if largest == 0:
        return point.b, point.s
    step = 1.0 / largest
    b, s = b0 * may_b, s0 * may_s
    ahead_b, ahead_s, momentum = b, s, 1.0
    for _ in range(_INNER):
        slope_b, slope_s = curved(ahead_b - b0, ahead_s - s0)
        new_b = may_b * _shrink(ahead_b - step * (grad_b + slope_b), step * problem.lambda_b)
        new_s = may_s * _shrink(ahead_s - step * (grad_s + slope_s), step * problem.lambda_s)
        change = max(np.abs(new_b - ahead_b).max(initial=0.0), np.abs(new_s - ahead_s).max(initial=0.0))
        if ((ahead_b - new_b) * (new_b - b)).sum() + ((ahead_s - new_s) * (new_s - s)).sum() > 0:
            momentum = 1.0  # overshot: start anew (O'Donoghue and Candes, arXiv:1204.3982)
        next_momentum = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        pull = (momentum - 1) / next_momentum
        ahead_b, ahead_s = new_b + pull * (new_b - b), new_s + pull * (new_s - s)
        b, s, momentum = new_b, new_s, next_momentum
        if change * largest <= tolerance:
            break
    whole_b, whole_s = np.zeros_like(point.b), np.zeros_like(point.s)
    whole_b[columns], whole_s[:, columns] = b, s
    return whole_b, whole_s


def _largest_eigenvalue(apply, like_b: np.ndarray, like_s: np.ndarray) -> float:
    """An upper estimate of the largest eigenvalue of the symmetric map `apply`, by power iteration."""
    b, s = like_b.copy(), like_s.copy()
    value = 0.0
    for _ in range(30):
        size = np.sqrt((b**2).sum() + (s**2).sum())
        if size == 0:
            return 0.0
        b, s = apply(b / size, s / size)
        value = np.sqrt((b**2).sum() + (s**2).sum())
    return 1.05 * float(value)


def _line_search(problem: Problem, point: Point, b: np.ndarray, s: np.ndarray) -> Point | None:
    db, ds = b - point.b, s - point.s
    penalties = problem.lambda_b * (np.abs(b).sum() - np.abs(point.b).sum())
    penalties += problem.lambda_s * (np.abs(s).sum() - np.abs(point.s).sum())
    promised = float((point.grad_b * db).sum() + (point.grad_s * ds).sum() + penalties)
    if promised >= 0:
        return None
    length = 1.0
    while length > 1e-10:
        # at length 1 the minimum itself, so that exact zeros stay exact
        found = problem.at(b, s) if length == 1.0 else problem.at(point.b + length * db, point.s + length * ds)
        if found.objective <= point.objective + _SLOPE * length * promised:
            return found
        length *= 0.5
    return None


def fista(problem: Problem, *, tolerance: float = 1e-7, max_iter: int = 4000) -> Point:
    """The optimum by accelerated proximal gradient on all weights, until it changes by less than `tolerance`.

    The plainest right way; `newton` is compared with it.
    """
    curvature = [domain.curvature(domain.w, np.arange(domain.x.shape[1])) for domain in problem.domains]
    top = max(np.linalg.eigvalsh(each)[-1] for each in curvature)
    step = 4.0 / ((1 + problem.alpha) * np.linalg.eigvalsh(sum(curvature))[-1] + top)
    b, s = np.zeros(problem.may_b.shape), np.zeros(problem.may_s.shape)
    point, ahead, momentum = problem.at(b, s), problem.at(b, s), 1.0
    for _ in range(max_iter):
        new = problem.at(
            problem.may_b * _shrink(ahead.b - step * ahead.grad_b, step * problem.lambda_b),
            problem.may_s * _shrink(ahead.s - step * ahead.grad_s, step * problem.lambda_s),
        )
        if new.objective > point.objective:
            if momentum == 1.0:
                return point
            ahead, momentum = replace(point), 1.0
            continue
        next_momentum = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        pull = (momentum - 1) / next_momentum
        ahead = problem.at(new.b + pull * (new.b - point.b), new.s + pull * (new.s - point.s))
        done = point.objective - new.objective < tolerance * abs(new.objective)
        point, momentum = new, next_momentum
        if done:
            return point
    return point


def _shrink(values: np.ndarray, by: float) -> np.ndarray:
    return np.sign(values) * np.maximum(np.abs(values) - by, 0.0)
