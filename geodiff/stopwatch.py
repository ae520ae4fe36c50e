"""How long one call takes, measured in the same way for every way that is compared."""

import time
from collections.abc import Callable

from torch import Tensor

#: (x, sigma) -> r
Denoise = Callable[[Tensor, float], Tensor]
#: (x, sigma) -> r and the seconds that one call took
Timed = Callable[[Tensor, float], tuple[Tensor, float]]

#: Seconds of calls before the one that counts.
SETTLING = 0.1
#: Seconds from which on a first call counts.
LONG = 1.0


def timed(denoise: Denoise) -> Timed:
    """`denoise`, and how long it takes in the middle of a loop of such calls, as a solver makes them.

    The first calls find the caches full of what ran before, and threads asleep: their times would depend on who else
    is being compared.
    """

    def measured(x: Tensor, sigma: float) -> tuple[Tensor, float]:
        answer, seconds = _once(denoise, x, sigma)
        if seconds >= LONG:
            return answer, seconds
        settled = seconds
        while settled < SETTLING:
            settled += _once(denoise, x, sigma)[1]
        return _once(denoise, x, sigma)

    return measured


def _once(denoise: Denoise, x: Tensor, sigma: float) -> tuple[Tensor, float]:
    start = time.perf_counter()
    answer = denoise(x, sigma)
    return answer, time.perf_counter() - start
