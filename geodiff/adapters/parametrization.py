"""What networks predict, and the coordinates they see: x0, eps, v and score, variance-exploding and -preserving.

x = x0 + sigma eps                                  variance exploding (VE): the coordinates of this package
z = sqrt(abar) x0 + sqrt(1 - abar) eps              variance preserving (VP): z = sqrt(abar) x, abar = 1 / (1 + sigma^2)
v = sqrt(abar) eps - sqrt(1 - abar) x0              Salimans & Ho, 2202.00512
score = grad_x log p_sigma(x) = -eps / sigma        Tweedie

x, x0, eps, v and score are floating [B, *shape] in VE coordinates, and an answer has the dtype of x. sigma is a number,
0-d, [B] or [B, 1, ...]. Factors are formed in float64. Raises TypeError or ValueError that names the argument.
"""

import torch
from torch import Tensor

from geodiff.adapters.levels import cast_per_point
from geodiff.base.arguments import check_number, check_sigma, check_tensor
from geodiff.base.dtypes import FLOATING


def sigma_from_abar(abar: object) -> Tensor:
    """sigma = sqrt((1 - abar) / abar), float64 in the shape of abar; 0 < abar < 1 (DDPM's `alphas_cumprod`)."""
    if isinstance(abar, Tensor) and abar.is_floating_point():
        products = abar.double()
    elif isinstance(abar, Tensor):
        raise TypeError(f"abar: expected a floating tensor, found a tensor of {abar.dtype}; allowed 0 < abar < 1")
    else:
        products = torch.tensor(check_number(abar, "abar", 0.0, 1.0, ends="()"), dtype=torch.float64, device="cpu")
    bad = products[~((products > 0) & (products < 1))]
    if bad.numel():
        raise ValueError(
            f"abar: expected a share of signal, found {bad.flatten()[0].item():g}; "
            f"allowed 0 < abar < 1 (at 0 sigma is infinite)"
        )
    return ((1 - products) / products).sqrt()


def abar_from_sigma(sigma: float | Tensor) -> Tensor:
    """abar = 1 / (1 + sigma^2), float64 in the shape of sigma (a number: 0-d); sigma > 0."""
    if isinstance(sigma, Tensor):
        levels = check_sigma(sigma.reshape(-1), sigma.numel()).reshape(sigma.shape)
    else:
        levels = check_sigma(sigma, 1)[0]
    return 1 / (1 + levels.square())


def vp_to_ve(z: Tensor, abar: float | Tensor) -> tuple[Tensor, Tensor]:
    """x = z / sqrt(abar), sigma = sqrt((1 - abar) / abar), float64 [B]. abar: number, 0-d, [B] or [B, 1, ...]."""
    check_tensor(z, "z", FLOATING)
    levels = check_sigma(sigma_from_abar(abar), len(z), device=z.device)
    return z * cast_per_point((1 + levels.square()).sqrt(), z), levels


def ve_to_vp(x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
    """z = sqrt(abar) x, abar = 1 / (1 + sigma^2), float64 [B]."""
    check_tensor(x, "x", FLOATING)
    abar = abar_from_sigma(check_sigma(sigma, len(x), device=x.device))
    return x * cast_per_point(abar.sqrt(), x), abar


def x0_to_eps(x: Tensor, x0: Tensor, sigma: float | Tensor) -> Tensor:
    """eps = (x - x0) / sigma."""
    levels = _levels(x, x0, "x0", sigma)
    return (x - x0) * cast_per_point(1 / levels, x)


def eps_to_x0(x: Tensor, eps: Tensor, sigma: float | Tensor) -> Tensor:
    """x0 = x - sigma eps."""
    levels = _levels(x, eps, "eps", sigma)
    return x - cast_per_point(levels, x) * eps


def x0_to_v(x: Tensor, x0: Tensor, sigma: float | Tensor) -> Tensor:
    """v = (eps - sigma x0) / sqrt(1 + sigma^2) = x / (sigma sqrt(1 + sigma^2)) - sqrt(1 + sigma^2) x0 / sigma."""
    levels = _levels(x, x0, "x0", sigma)
    scale = (1 + levels.square()).sqrt()
    # Not as x / a - b x0: at small sigma both are large and all but cancel.
    return ((x - x0) * cast_per_point(1 / levels, x) - cast_per_point(levels, x) * x0) * cast_per_point(1 / scale, x)


def v_to_x0(x: Tensor, v: Tensor, sigma: float | Tensor) -> Tensor:
    """x0 = sqrt(abar) z - sqrt(1 - abar) v = x / (1 + sigma^2) - sigma v / sqrt(1 + sigma^2)."""
    levels = _levels(x, v, "v", sigma)
    abar = 1 / (1 + levels.square())
    return cast_per_point(abar, x) * x - cast_per_point(levels * abar.sqrt(), x) * v


def eps_to_v(x: Tensor, eps: Tensor, sigma: float | Tensor) -> Tensor:
    """v = sqrt(1 + sigma^2) eps - sigma x / sqrt(1 + sigma^2)."""
    levels = _levels(x, eps, "eps", sigma)
    scale = (1 + levels.square()).sqrt()
    return cast_per_point(scale, x) * eps - cast_per_point(levels / scale, x) * x


def v_to_eps(x: Tensor, v: Tensor, sigma: float | Tensor) -> Tensor:
    """eps = sqrt(1 - abar) z + sqrt(abar) v = sigma x / (1 + sigma^2) + v / sqrt(1 + sigma^2)."""
    levels = _levels(x, v, "v", sigma)
    abar = 1 / (1 + levels.square())
    return cast_per_point(levels * abar, x) * x + cast_per_point(abar.sqrt(), x) * v


def x0_to_score(x: Tensor, x0: Tensor, sigma: float | Tensor) -> Tensor:
    """score = (x0 - x) / sigma^2."""
    levels = _levels(x, x0, "x0", sigma)
    return (x0 - x) * cast_per_point(1 / levels.square(), x)


def score_to_x0(x: Tensor, score: Tensor, sigma: float | Tensor) -> Tensor:
    """x0 = x + sigma^2 score."""
    levels = _levels(x, score, "score", sigma)
    return x + cast_per_point(levels.square(), x) * score


def _levels(x: Tensor, value: Tensor, name: str, sigma: float | Tensor) -> Tensor:
    """sigma as float64 [B], once x and the value beside it are known to fit."""
    check_tensor(x, "x", FLOATING)
    check_tensor(value, name, FLOATING)
    if x.ndim == 0 or value.shape != x.shape:
        raise ValueError(
            f"{name}: expected the shape of x, {list(x.shape)}, found {list(value.shape)}; allowed [B, *shape] for both"
        )
    return check_sigma(sigma, len(x), device=x.device)
