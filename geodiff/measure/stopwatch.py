"""How long one call takes, measured in the same way for every way that is compared."""

import time
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from geodiff.denoiser.merging import ALONE, Ranks

T = TypeVar("T")

#: (x, sigma) -> r
Denoise = Callable[[Tensor, float], Tensor]
#: (x, sigma) -> r and the seconds that one call took
Timed = Callable[[Tensor, float], tuple[Tensor, float]]
#: Seconds since some moment: of the day (`time.perf_counter`), or of all threads of this process (`time.process_time`),
#: which others on the same cores change little.
Clock = Callable[[], float]

#: Seconds of calls before the one that counts.
SETTLING = 0.1
#: Seconds from which on a first call counts.
LONG = 1.0


def settled(call: Callable[[], T], ranks: Ranks = ALONE, clock: Clock = time.perf_counter) -> tuple[T, float]:
    """The answer of `call` and the seconds that one takes in the middle of a loop of them, as a solver makes them.

    ranks: those that make the call together; the seconds are those of the last one to have its answer.

    The first calls find the caches full of what ran before, and threads asleep: their times would depend on who else
    is being compared.
    """
    answer, seconds = _once(call, ranks, clock)
    if seconds >= LONG:
        return answer, seconds
    spent = seconds
    while spent < SETTLING:
        spent += _once(call, ranks, clock)[1]
    return _once(call, ranks, clock)


def timed(denoise: Denoise, ranks: Ranks = ALONE, clock: Clock = time.perf_counter) -> Timed:
    """`denoise`, and how long a call of it takes: see `settled`."""
    return lambda x, sigma: settled(lambda: denoise(x, sigma), ranks, clock)


def _once(call: Callable[[], T], ranks: Ranks, clock: Clock) -> tuple[T, float]:
    start = clock()
    answer = call()
    return answer, max(ranks.objects(clock() - start))
