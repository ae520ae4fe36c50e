"""Inner products carried along a trajectory: the twin of csrc/cpu/products/known.h, one query at a time.

Of a vector y near the last query all <y, v_i> are known. The next query, x, says what is new of it in a few digits:

    x = f y + R,   f = <x, y> / |y|^2,   <x, v_i> = f <y, v_i> + <digits of R, v_i> + <what they lose, v_i>

and its own y is x less what the digits lost, so that nothing is lost from one evaluation to the next.
docs/trajectories.md, "Above it, a digit less".
"""

from typing import NamedTuple

import torch
from torch import Tensor

#: Entries of the table of random numbers that digits of the dense pass are rounded by.
DITHERS = 4096


class Known(NamedTuple):
    """y [d] and products [N] float64: <y, v_i> for all rows."""

    y: Tensor
    products: Tensor


def carry(known: Known | None, x: Tensor, data: Tensor, bits: int, parts: int, up: Tensor | None = None) -> Known:
    """What is known once x [d] has been answered by `parts` balanced digits of `bits` bits; data [N, d]; all float64.

    known  after the evaluation before; None: there was none
    up     [d] uniform numbers in [0, 1): a digit is rounded up with the probability of its fraction; None: to nearest
    """
    square = 0.0 if known is None else float(known.y @ known.y)
    factor = 0.0 if known is None or square == 0 else float(x @ known.y) / square
    rest = x if known is None or factor == 0 else x - factor * known.y
    # A hair more than the largest, which must not round up beyond the digits.
    step = max(float(rest.abs().max()), 1e-300) / (largest(bits, parts) - 1)
    exact = rest * (1 / step)
    digits = (exact if up is None else exact + (up - 0.5)).round()
    lost = ((exact - digits).float() * torch.tensor(step, dtype=torch.float32, device="cpu")).double()
    before = 0.0 if known is None else factor * known.products
    return Known(x - lost, before + step * (data @ digits))


def largest(bits: int, parts: int) -> float:
    """The largest number that so many digits hold: balanced digits must not carry out of the first."""
    return float(2 ** (bits * (parts - 1)) * (2 ** (bits - 1) - 1))


def dithers(count: int) -> Tensor:
    """The first `count` numbers in [0, 1), float64, of the core's table, which begins again after DITHERS of them."""
    whole = 2**64 - 1
    numbers = []
    for i in range(min(count, DITHERS)):
        h = (i + 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9 & whole
        h = (h ^ h >> 27) * 0x94D049BB133111EB & whole
        numbers.append((h ^ h >> 31) >> 40)
    table = torch.tensor(numbers, dtype=torch.float64, device="cpu") * 2.0**-24
    return table.repeat(-(-count // DITHERS))[:count]
