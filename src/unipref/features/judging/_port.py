"""What every judge can be asked."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Protocol, TypeVar, runtime_checkable

from unipref.features.concepts import Concept
from unipref.features.judging._account import Account

__all__ = ["Judge", "in_parallel", "rubric_of", "settled"]

T, R = TypeVar("T"), TypeVar("R")


@runtime_checkable
class Judge(Protocol):
    """Scores, compares and writes. None is "no answer", and never stands for a tie or a low score.

    Methods may be called from `workers` threads at once. The plural forms ask about several concepts in one go.

    Attributes:
        name: who judged, for people. workers: how many questions may be under way.
        account: what it cost so far, and what had no answer.
        stopping: set while asking is broken off: what is under way is finished, nothing is tried again.
    """

    name: str
    workers: int
    account: Account
    stopping: threading.Event

    def score(self, prompt: str, response: str, rubric: Concept | str) -> int | None:
        """How much of `rubric` the response has, on the judge's scale; 0: it does not apply."""
        ...

    def compare(self, prompt: str, a: str, b: str, rubric: Concept | str) -> int | None:
        """1 if `a` has more of `rubric`, -1 if `b` has, 0 if neither or if the verdict depends on the order."""
        ...

    def generate(self, prompt: str) -> str | None:
        """Text in answer to `prompt`."""
        ...

    def score_on(self, prompt: str, response: str, concepts: Sequence[Concept]) -> list[int | None]:
        """`score` on each of `concepts`."""
        ...

    def compare_on(self, prompt: str, a: str, b: str, concepts: Sequence[Concept]) -> list[int | None]:
        """`compare` on each of `concepts`."""
        ...

    def relevant(self, prompt: str, concepts: Sequence[Concept]) -> list[bool | None]:
        """Whether each of `concepts` matters for answers to `prompt`."""
        ...


def rubric_of(rubric: Concept | str) -> Concept:
    """`rubric` as a concept; a sentence says what is to be high."""
    return rubric if isinstance(rubric, Concept) else Concept("rubric", rubric, rubric, kind="judge")


def settled(there: int | None, back: int | None, account: Account, prompt: str) -> int | None:
    """The verdict of two orders: `there` on (a, b) and `back` on (b, a), each 1 for its own first.

    Equal verdicts stand; verdicts that depend on the order are a tie, and counted.
    """
    if there is None or back is None:
        return None
    account.compared(prompt, changed=there != -back)
    return there if there == -back else 0


def in_parallel(
    function: Callable[[T], R],
    given: Iterable[T],
    *,
    judge: Judge,
    progress: Callable[[int, int], None] | None = None,
) -> list[R]:
    """`function` of every item of `given`, in order, asked by the judge's threads.

    When one fails, or a person interrupts, what is under way is waited for (it is paid for, and kept) and the rest is
    not begun.

    Args:
        progress: told how many are done, and of how many.
    """
    items = list(given)
    pool = ThreadPoolExecutor(max(1, judge.workers), thread_name_prefix="judge")
    try:
        futures = [pool.submit(function, item) for item in items]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()  # raises what it raised, as soon as it did
            if progress is not None:
                progress(done, len(items))
        return [future.result() for future in futures]
    except BaseException:
        judge.stopping.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        judge.stopping.clear()
