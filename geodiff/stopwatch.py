"""How long one call takes, measured in the same way for every way that is compared."""

import time
from collections.abc import Callable

from torch import Tensor

#: (x, sigma) -> r
Denoise = Callable[[Tensor, float], Tensor]
#: (x, sigma) -> r and the seconds that one call took
Timed = Callable[[Tensor, float], tuple[Tensor, float]]

#: Calls shorter than so many seconds are made twice.
SHORT = 0.05


def timed(denoise: Denoise) -> Timed:
    """`denoise`, and how long it takes in the middle of a loop of such calls, as a solver makes them.

    A short call is made a second time, and that one counts: the first finds the caches full of what ran before, and
    threads asleep, so that its time would depend on who else is being compared.
    """

    def measured(x: Tensor, sigma: float) -> tuple[Tensor, float]:
        answer, seconds = _once(denoise, x, sigma)
        return (answer, seconds) if seconds >= SHORT else _once(denoise, x, sigma)

    return measured


def _once(denoise: Denoise, x: Tensor, sigma: float) -> tuple[Tensor, float]:
    start = time.perf_counter()
    answer = denoise(x, sigma)
    return answer, time.perf_counter() - start
