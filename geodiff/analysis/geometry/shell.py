"""The thin shell: Gaussian noise in many dimensions lies at one distance, and lifts data away from the origin."""

import math
from typing import NamedTuple

from torch import Tensor

from geodiff.analysis.geometry.paths import flat
from geodiff.base.arguments import check_number, check_tensor
from geodiff.base.dtypes import PRECISE


class ThinShell(NamedTuple):
    """norm and spread: mean and standard deviation of |sigma z| over the batch, beside their limits sigma sqrt(d) and
    sigma / sqrt(2) for large d. growth: mean (|x + sigma z|^2 - |x|^2) / (sigma^2 d), 1 in expectation. outward: the
    share with |x + sigma z| > |x|, which goes to 1 with d.
    """

    norm: float
    norm_limit: float
    spread: float
    spread_limit: float
    growth: float
    outward: float


def thin_shell(clean: Tensor, noise: Tensor, sigma: float) -> ThinShell:
    """|sigma z| = sigma sqrt(d) +- sigma / sqrt(2), and E|x + sigma z|^2 = |x|^2 + sigma^2 d, measured on a batch.

    clean x, noise sigma z (so already scaled): [B, *shape] floating, B >= 2. Chen et al., 2305.19947 (section 3).
    Raises TypeError or ValueError that names the argument.
    """
    clean, noise = check_tensor(clean, "clean", PRECISE), check_tensor(noise, "noise", PRECISE)
    sigma = check_number(sigma, "sigma", 0.0)
    if clean.ndim < 2 or len(clean) < 2 or clean.shape != noise.shape:
        raise ValueError(
            f"noise: expected [B, *shape] with B >= 2, as clean, found {list(noise.shape)} and clean "
            f"{list(clean.shape)}; allowed one noise for each clean point"
        )
    x, z = flat(clean), flat(noise)
    d = x.shape[1]
    lengths = z.norm(dim=1)
    lifted = (x + z).square().sum(1) - x.square().sum(1)
    return ThinShell(
        norm=lengths.mean().item(),
        norm_limit=sigma * math.sqrt(d),
        spread=lengths.std().item(),
        spread_limit=sigma / math.sqrt(2),
        growth=lifted.mean().item() / (sigma**2 * d),
        outward=(lifted > 0).double().mean().item(),
    )
