"""Rows put together so that no forward holds too much and no rank waits: sizes and costs in, row numbers out."""

import heapq
import math
from collections.abc import Sequence

import numpy as np

__all__ = ["cut", "deal"]


def cut(sizes: Sequence[int], costs: Sequence[float], most: int, *, alike: bool = False) -> list[list[int]]:
    """Rows in as few groups as can be found of at most `most` summed size each, their costs nearly equal.

    A row larger than `most` is alone. The same rows give the same groups.

    Args:
        sizes: (n,) per row. costs: (n,) what is to be balanced.
        alike: rows of similar size share a group, whatever that does to the balance: what padding asks for.
    """
    size, cost = np.asarray(sizes, dtype=np.int64), np.asarray(costs, dtype=np.float64)
    if alike:
        return _runs(size, most)
    large = np.flatnonzero(size >= most)
    rest = np.flatnonzero(size < most)
    groups = [[row] for row in large.tolist()]
    if not len(rest):
        return groups
    # First fit, longest first, finds a number of groups that is hardly ever beaten; rows are then dealt to that many.
    fitted = _first_fit(size, rest, most)
    dealt = _deal_within(size, cost, rest, most, len(fitted))
    return groups + (dealt or fitted)


def _runs(size: np.ndarray, most: int) -> list[list[int]]:
    groups: list[list[int]] = []
    used = 0
    for row in np.argsort(size, kind="stable").tolist():
        if not groups or used + size[row] > most:
            groups.append([])
            used = 0
        groups[-1].append(row)
        used += size[row]
    return groups


def _first_fit(size: np.ndarray, rows: np.ndarray, most: int) -> list[list[int]]:
    groups: list[list[int]] = []
    room = np.empty(len(rows), dtype=np.int64)
    for row in rows[np.argsort(-size[rows], kind="stable")].tolist():
        fits = room[: len(groups)] >= size[row]
        at = int(fits.argmax()) if fits.any() else len(groups)
        if at == len(groups):
            groups.append([])
            room[at] = most
        groups[at].append(row)
        room[at] -= size[row]
    return groups


def _deal_within(size: np.ndarray, cost: np.ndarray, rows: np.ndarray, most: int, n: int) -> list[list[int]] | None:
    """`rows`, dearest first, each to the cheapest of `n` groups that has room; None where one finds no room."""
    groups: list[list[int]] = [[] for _ in range(n)]
    room, load = np.full(n, most), np.zeros(n)
    for row in rows[np.lexsort((-size[rows], -cost[rows]))].tolist():
        at = int(np.where(room >= size[row], load, math.inf).argmin())
        if room[at] < size[row]:
            return None
        groups[at].append(row)
        room[at] -= size[row]
        load[at] += cost[row]
    return groups


def deal(costs: Sequence[float], n: int) -> list[list[int]]:
    """The parts 0, 1, ... of `costs` dealt to `n` hands: dearest first, each to the hand that holds least so far.

    The dearest hand then holds at most 4/3 of what the best deal would leave it (Graham 1969). A hand may stay empty.
    """
    hands: list[list[int]] = [[] for _ in range(n)]
    heap = [(0.0, hand) for hand in range(n)]
    values = np.asarray(costs, dtype=np.float64)
    for part in np.argsort(-values, kind="stable").tolist():
        load, hand = heap[0]
        hands[hand].append(part)
        heapq.heapreplace(heap, (load + float(values[part]), hand))
    return hands
