"""Noise schedules: n levels sigma, strictly falling, then 0, as float64 [n + 1] on the CPU.

Each takes any n >= 1. `sample` walks down a schedule as it is: `karras(21)[:-1]` stops at sigma_min instead of at 0.
Raises TypeError or ValueError that names the argument.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer, check_number, check_reals

__all__ = ["SCHEDULES", "edm", "exponential", "from_alphas_cumprod", "karras", "polyexponential", "vp"]


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho, i = 0..n-1; then 0.

    Karras et al., 2206.00364, eq. 5. n = 1 is sigma_max alone.
    """
    rho = check_number(rho, "rho", 0.0)
    sigma_min, sigma_max = _range(sigma_min, sigma_max)
    low, high = _power(sigma_min, 1 / rho), _power(sigma_max, 1 / rho)
    return _between((high + _ramp(n) * (low - high)) ** rho, sigma_min, sigma_max, rho)


def edm(n: int = 18) -> Tensor:
    """The schedule of EDM's sampler on CIFAR-10: `karras` with sigma 80 .. 0.002 and rho 7, by default on 18 levels.

    With Heun steps and an Euler step to 0, n levels take 2n - 1 evaluations: 35.
    """
    return karras(n)


def exponential(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """sigma_i = sigma_max (sigma_min / sigma_max)^(i/(n-1)), i = 0..n-1; then 0: log sigma falls evenly.

    k-diffusion, `get_sigmas_exponential`.
    """
    return polyexponential(n, sigma_min, sigma_max, rho=1.0)


def polyexponential(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 1.0) -> Tensor:
    """log sigma_i = log sigma_min + (1 - i/(n-1))^rho (log sigma_max - log sigma_min), i = 0..n-1; then 0.

    rho > 1 spends more of the levels at low noise. k-diffusion, `get_sigmas_polyexponential`.
    """
    rho = check_number(rho, "rho", 0.0)
    sigma_min, sigma_max = _range(sigma_min, sigma_max)
    low, high = math.log(sigma_min), math.log(sigma_max)
    return _between((low + (1 - _ramp(n)) ** rho * (high - low)).exp(), sigma_min, sigma_max, rho)


def vp(n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3) -> Tensor:
    """sigma_i = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1), t = 1 + i/(n-1) (eps_s - 1), i = 0..n-1; then 0.

    The variance-preserving SDE with linear beta, in the sigma of z / s_t (Song et al., 2011.13456; in this form Karras
    et al., 2206.00364, table 1). beta_d >= 0 and beta_min > 0, the slope and start of beta; 0 < eps_s < 1.
    """
    beta_d = check_number(beta_d, "beta_d", 0.0, ends="[)")
    beta_min = check_number(beta_min, "beta_min", 0.0)
    eps_s = check_number(eps_s, "eps_s", 0.0, 1.0, ends="()")
    t = 1 + _ramp(n) * (eps_s - 1)
    levels = torch.expm1(beta_d * t.square() / 2 + beta_min * t).sqrt()
    if not torch.isfinite(levels).all():
        raise ValueError(
            f"beta_d: expected beta_d / 2 + beta_min below {math.log(1e300):.0f}, found {beta_d / 2 + beta_min:g}; "
            f"allowed levels that float64 can hold"
        )
    _check_falling(levels, "eps_s", eps_s, "one further below 1 and above 0, or fewer levels")
    return _then_zero(levels)


def from_alphas_cumprod(
    alphas_cumprod: Tensor | Sequence[float], n: int | None = None, append_zero: bool = True
) -> Tensor:
    """sigma_t = sqrt((1 - abar_t) / abar_t), highest first; then 0 if append_zero.

    The levels of a discrete variance-preserving model (DDPM, Stable Diffusion) in the sigma of z / sqrt(abar_t).
    alphas_cumprod: [T], abar_t in (0, 1), falling with t. n: None takes all T levels; else n levels at even steps of t
    from T - 1 to 0, log sigma linear in between (k-diffusion, `DiscreteSchedule.get_sigmas`). Returns [T or n (+ 1)].
    """
    products = check_reals(alphas_cumprod, "alphas_cumprod", "[T]", at_least=1)
    if not ((products > 0) & (products < 1)).all() or not (products.diff() < 0).all():
        raise ValueError(
            f"alphas_cumprod: expected numbers that fall strictly, found {products[0]:g} .. {products[-1]:g}, "
            f"lowest {products.min():g}, highest {products.max():g}; allowed 0 < abar < 1 (at 0 sigma is infinite)"
        )
    log_levels = ((1 - products) / products).log() / 2  # rises with t
    if n is not None:
        last = len(products) - 1
        t = (1 - _ramp(n)) * last
        below = t.floor().long().clamp(max=max(0, last - 1))
        log_levels = torch.lerp(log_levels[below], log_levels[(below + 1).clamp(max=last)], t - below)
        _check_falling(log_levels.exp(), "n", n, f"fewer levels, or more than T = {last + 1} to choose from")
    else:
        log_levels = log_levels.flip(0)
    return _then_zero(log_levels.exp()) if append_zero else log_levels.exp()


# By the names that the command line takes: those that need nothing but n.
SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "karras": karras,
    "edm": edm,
    "exponential": exponential,
    "polyexponential": polyexponential,
    "vp": vp,
}


def _ramp(n: int) -> Tensor:
    """i / (n - 1), i = 0..n-1; [0] for n = 1."""
    return torch.linspace(0, 1, check_integer(n, "n", 1), dtype=torch.float64)


def _power(base: float, exponent: float) -> float:
    """base^exponent, infinite where Python says that it overflows."""
    try:
        return base**exponent
    except OverflowError:
        return math.inf


def _between(levels: Tensor, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """levels with their ends exact, where a power or exponential left them a rounding off; then 0."""
    levels[-1] = sigma_min
    levels[0] = sigma_max  # after sigma_min: the one level of n = 1 is the highest
    if sigma_min > (1 - 1e-9) * sigma_max:
        _check_falling(levels, "sigma_min", sigma_min, "one further below sigma_max, or fewer levels")
    _check_falling(levels, "rho", rho, "one nearer to 1, or fewer levels")
    return _then_zero(levels)


def _check_falling(levels: Tensor, name: str, value: float, allowed: str) -> None:
    """Raise ValueError for levels that float64 does not tell apart, or cannot hold: what `name` = value has made."""
    if bool((levels.diff() < 0).all()) and float(levels[-1]) > 0:
        return
    shown = ", ".join(f"{level:g}" for level in levels[:5].tolist()) + (", ..." if len(levels) > 5 else "")
    raise ValueError(
        f"{name}: expected levels that fall strictly and stay above 0, found {shown} for {name} = {value:g}; "
        f"allowed {allowed}"
    )


def _then_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


def _range(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    sigma_min, sigma_max = check_number(sigma_min, "sigma_min", 0.0), check_number(sigma_max, "sigma_max", 0.0)
    if sigma_min >= sigma_max:
        raise ValueError(
            f"sigma_min: expected below sigma_max, found {sigma_min:g} and sigma_max = {sigma_max:g}; "
            f"allowed 0 < sigma_min < sigma_max"
        )
    return sigma_min, sigma_max
