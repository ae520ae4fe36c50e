"""Paths from noise to data, x_t = alpha_t x_0 + sigma_t n, and the velocity along them: flow matching.

Two conventions of time are in use, and a path is made for one of them:

A  noise at t = 1, data at t = 0: the network predicts n - x_0 (SD3, FLUX, diffusers)
B  noise at t = 0, data at t = 1: the network predicts x_1 - n (torchcfm, flow_matching)

The optimal velocity, E[d x_t / dt | x_t = x], needs the optimal denoiser r at the level sigma_t / alpha_t and nothing
more: v = alpha' r + sigma' (x - alpha r) / sigma. Times are numbers or tensors; what is returned is float64.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer, check_number
from geodiff.base.per_point import per_point
from geodiff.base.tracing import values_are_known

__all__ = [
    "LINEAR",
    "PATHS",
    "VP",
    "Blurred",
    "Convention",
    "Cosine",
    "Linear",
    "LinearVP",
    "Lipman",
    "Path",
    "Polynomial",
    "Scales",
    "Sigmoid",
    "check_path",
    "times",
]

Convention = Literal["A", "B"]


def _check_convention(convention: object) -> None:
    if convention not in ("A", "B"):
        raise ValueError(f"convention: found {convention!r}; allowed 'A' (noise at t = 1) or 'B' (data at t = 1)")


class Scales(NamedTuple):
    """alpha_t and sigma_t of a path, and their derivatives in t: each float64, in the shape of t.

    PyTorch 2.6 traces methods of a NamedTuple, but no properties and not `_replace`: what is compiled asks for neither.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor

    @property
    def level(self) -> Tensor:
        """sigma / alpha: the noise level of x_t / alpha_t; infinite where there is nothing but noise."""
        return self.sigma / self.alpha

    @property
    def slope(self) -> Tensor:
        """d v / d r = alpha' - alpha sigma' / sigma: how an error of r becomes one of the velocity."""
        return self.d_alpha - self.alpha * self.d_sigma / self.sigma

    def to_denoiser(self, largest: float) -> tuple[Tensor, Tensor]:
        """1 / alpha, by which x_t is multiplied for the denoiser, and its level there; both stop at level `largest`."""
        level = (self.sigma / self.alpha).clamp(max=largest)
        return level / self.sigma, level

    def per_point(self, x: Tensor) -> Self:
        """The same in the shape [B, 1, ...] or [1, 1, ...] that x [B, *shape] is multiplied by."""
        return type(self)(*(per_point(scale.to(x.device), x) for scale in self))

    def velocity(self, x: Tensor, r: Tensor) -> Tensor:
        """v = alpha' r + sigma' (x - alpha r) / sigma, in float64 for x, r [B, *shape]."""
        s, r = self.per_point(x), r.double()
        return s.d_alpha * r + s.d_sigma * ((x.double() - s.alpha * r) / s.sigma)

    def denoised(self, x: Tensor, v: Tensor) -> Tensor:
        """r = (v - sigma' x / sigma) / (alpha' - alpha sigma' / sigma): the inverse of `velocity`."""
        s = self.per_point(x)
        return (s.sigma * v.double() - s.d_sigma * x.double()) / (s.sigma * s.d_alpha - s.alpha * s.d_sigma)


@dataclass(frozen=True)
class Path(ABC):
    """x_t = alpha_t x_0 + sigma_t n, 0 <= t <= 1, in the convention of time that it is made for: "A" or "B"."""

    convention: Convention = "A"

    def __post_init__(self) -> None:
        _check_convention(self.convention)

    @abstractmethod
    def _scales(self, u: Tensor, w: Tensor) -> Scales:
        """The scales and their derivatives in u at u = the time since the data, 0..1, and w = 1 - u.

        Both are given, so that neither end is reached by a difference that cancels.
        """

    @abstractmethod
    def _time_of(self, level: Tensor) -> Tensor:
        """The u at which sigma / alpha is `level`."""

    def at(self, t: float | Tensor) -> Scales:
        """alpha_t, sigma_t and their derivatives. Raises ValueError unless 0 <= t <= 1."""
        u, w = self._ends(t)
        found = self._scales(u, w)
        if self.convention == "A":
            return found
        return Scales(found.alpha, found.sigma, -found.d_alpha, -found.d_sigma)

    def level(self, t: float | Tensor) -> Tensor:
        """sigma_t / alpha_t: the noise level of x_t / alpha_t, 0 at the data and infinite at the noise."""
        found = self.at(t)
        return found.sigma / found.alpha

    def time(self, level: float | Tensor) -> Tensor:
        """The time at which sigma_t / alpha_t is `level`: the inverse of `level`. Raises ValueError for none."""
        levels = _float64(level)
        u = self._time_of(levels)
        bad = levels[~((u >= -1e-9) & (u <= 1 + 1e-9))]
        if bad.numel():
            raise ValueError(
                f"level: expected a noise level on the path {self.name}, found {bad.flatten()[0].item():g}; "
                f"allowed {self.level(self.data_end).item():g} .. {self.level(1 - self.data_end).item():g}"
            )
        u = u.clamp(0, 1)
        return u if self.convention == "A" else 1 - u

    def mix(self, x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
        """x_t = alpha_t x_0 + sigma_t n, [B, *shape] in the dtype of x0; t a number, 0-d or [B]."""
        s = self.at(t).per_point(x0)
        return (s.alpha * x0 + s.sigma * noise).to(x0.dtype)

    def since_data(self, t: float | Tensor) -> Tensor:
        """|t - t_data|: the time to the end where the data are, t in convention A and 1 - t in B."""
        return self._ends(t)[0]

    def in_convention(self, convention: Convention) -> Self:
        """The same path in that convention of time."""
        return self if convention == self.convention else replace(self, convention=convention)

    def reversed(self) -> Self:
        """The same path in the other convention of time."""
        return self.in_convention("B" if self.convention == "A" else "A")

    @property
    def data_end(self) -> float:
        """The time at which x_t is a data point: 0 in convention A, 1 in B."""
        return 0.0 if self.convention == "A" else 1.0

    @property
    def name(self) -> str:
        """Such as "Linear A"."""
        return f"{type(self).__name__} {self.convention}"

    def _ends(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        times = _float64(t)
        if values_are_known() and not bool(((times >= 0) & (times <= 1)).all()):
            bad = times[~((times >= 0) & (times <= 1))]
            raise ValueError(f"t: expected a time, found {bad.flatten()[0].item():g}; allowed 0 <= t <= 1")
        return (times, 1 - times) if self.convention == "A" else (1 - times, times)


@dataclass(frozen=True)
class Linear(Path):
    """A: x_t = (1 - t) x_0 + t n; B: x_t = (1 - t) n + t x_1 (rectified flow; Liu et al., 2209.03003).

    v = (x - r) / t in A: Euler's method in t takes the same steps as in sigma, and as DDIM.
    """

    def _scales(self, u: Tensor, w: Tensor) -> Scales:
        one = torch.ones_like(u)
        return Scales(w, u, -one, one)

    def _time_of(self, level: Tensor) -> Tensor:
        return 1 / (1 + 1 / level)


@dataclass(frozen=True)
class Polynomial(Path):
    """B: alpha = t^n, sigma = 1 - t^n; n >= 1 (flow_matching's PolynomialConvexScheduler). n = 1 is `Linear`."""

    n: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self.n, "n", 1)

    def _scales(self, u: Tensor, w: Tensor) -> Scales:
        rate = self.n * w ** (self.n - 1)
        return Scales(w**self.n, -torch.expm1(self.n * torch.log1p(-u)), -rate, rate)

    def _time_of(self, level: Tensor) -> Tensor:
        return -torch.expm1(-torch.log1p(level) / self.n)


@dataclass(frozen=True)
class LinearVP(Path):
    """B: alpha = t, sigma = sqrt(1 - t^2): variance preserving, alpha linear (flow_matching's LinearVPScheduler)."""

    def _scales(self, u: Tensor, w: Tensor) -> Scales:
        sigma = (u * (1 + w)).sqrt()
        return Scales(w, sigma, -torch.ones_like(u), w / sigma)

    def _time_of(self, level: Tensor) -> Tensor:
        square = level.square()
        root = (1 + square).sqrt()
        return torch.where(square.isinf(), 1.0, square / (root * (1 + root)))


@dataclass(frozen=True)
class Cosine(Path):
    """A: alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Albergo and Vanden-Eijnden, 2209.15571; torchcfm's VP)."""

    def _scales(self, u: Tensor, w: Tensor) -> Scales:
        quarter = math.pi / 2
        alpha, sigma = (quarter * w).sin(), (quarter * u).sin()
        return Scales(alpha, sigma, -quarter * sigma, quarter * alpha)

    def _time_of(self, level: Tensor) -> Tensor:
        return level.atan() * (2 / math.pi)


@dataclass(frozen=True)
class VP(Path):
    """A: alpha = exp(-T/2), sigma = sqrt(1 - exp(-T)), T = t^2 (beta_max - beta_min) / 2 + t beta_min.

    The variance-preserving SDE with linear beta (Song et al., 2011.13456). At the noise alpha is not 0 but exp(-T_1/2).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.beta_min, "beta_min", 0.0)
        check_number(self.beta_max, "beta_max", 0.0)

    def _scales(self, u: Tensor, w: Tensor) -> Scales:
        gain = self.beta_max - self.beta_min
        total, rate = u.square() * gain / 2 + u * self.beta_min, u * gain + self.beta_min
        alpha, sigma = (-total / 2).exp(), (-torch.expm1(-total)).sqrt()
        return Scales(alpha, sigma, -rate * alpha / 2, rate * (-total).exp() / (2 * sigma))

    def _time_of(self, level: Tensor) -> Tensor:
        total, gain = torch.log1p(level.square()), self.beta_max - self.beta_min
        return 2 * total / (self.beta_min + (self.beta_min**2 + 2 * gain * total).sqrt())


@dataclass(frozen=True)
class Lipman(Path):
    """B: alpha = t, sigma = 1 - (1 - sigma_min) t (Lipman et al., 2210.02747): v = (r - (1 - sigma_min) x) / sigma.

    A little noise is left where the data are, and so the velocity is defined there, too.
    """

    sigma_min: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.sigma_min, "sigma_min", 0.0, 1.0)

    def _scales(self, u: Tensor, w: Tensor) -> Scales:
        one = torch.ones_like(u)
        return Scales(w, u + self.sigma_min * w, -one, (1 - self.sigma_min) * one)

    def _time_of(self, level: Tensor) -> Tensor:
        return 1 - 1 / (level + 1 - self.sigma_min)


@dataclass(frozen=True)
class Blurred(Path):
    """B: alpha = t, sigma^2 = (1 - t)^2 + sigma_min^2: a line from noise to data, and noise of sigma_min around it.

    torchcfm's `ConditionalFlowMatcher(sigma=sigma_min)` (Tong et al., 2302.00482) with independent noise and data:
    v = r - (1 - t) (x - t r) / sigma^2.
    """

    sigma_min: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.sigma_min, "sigma_min", 0.0, 1.0)

    def _scales(self, u: Tensor, w: Tensor) -> Scales:
        sigma = torch.hypot(u, torch.full_like(u, self.sigma_min))
        return Scales(w, sigma, -torch.ones_like(u), u / sigma)

    def _time_of(self, level: Tensor) -> Tensor:
        least, square = self.sigma_min**2, level.square()
        root = (square * (1 + least) - least).sqrt()
        return torch.where(square.isinf(), 1.0, (root - least) / (1 + root))


@dataclass(frozen=True)
class Sigmoid(Path):
    """A: alpha^2 = (g(1) - g(t)) / (g(1) - g(0)), sigma^2 = 1 - alpha^2.

    g(t) = logistic((t (end - start) + start) / tau); Jabri et al., 2212.11972.
    Its derivative is infinite at the noise, t = 1 in A, where no velocity is defined.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.end, "end", check_number(self.start, "start", -math.inf))
        check_number(self.tau, "tau", 0.0)

    def _scales(self, u: Tensor, w: Tensor) -> Scales:
        span, first, last = (self.end - self.start) / self.tau, self.start / self.tau, self.end / self.tau
        here = u * span + first
        # logistic(a) - logistic(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2))
        kept = (w * span / 2).sinh() * math.cosh(first / 2) / ((here / 2).cosh() * math.sinh(span / 2))
        lost = (u * span / 2).sinh() * math.cosh(last / 2) / ((here / 2).cosh() * math.sinh(span / 2))
        whole = math.sinh(span / 2) / (2 * math.cosh(first / 2) * math.cosh(last / 2))
        rate = span / (4 * (here / 2).cosh().square() * whole)  # -d alpha^2 / du
        alpha, sigma = kept.sqrt(), lost.sqrt()
        return Scales(alpha, sigma, -rate / (2 * alpha), rate / (2 * sigma))

    def _time_of(self, level: Tensor) -> Tensor:
        first, last = self.start / self.tau, self.end / self.tau
        low, high = (torch.tensor(value, dtype=torch.float64, device="cpu").sigmoid() for value in (first, last))
        share = 1 / (1 + 1 / level.square())  # sigma^2
        return ((low + share * (high - low)).logit() - first) / (last - first)


#: What is meant where no path is named.
LINEAR = Linear("A")

#: By the names that the command line takes.
PATHS: dict[str, type[Path]] = {
    "linear": Linear,
    "polynomial": Polynomial,
    "linear-vp": LinearVP,
    "cosine": Cosine,
    "vp": VP,
    "lipman": Lipman,
    "blurred": Blurred,
    "sigmoid": Sigmoid,
}


def check_path(path: object) -> Path:
    """path itself; TypeError for something else, such as a name, which does not say in which convention time is."""
    if not isinstance(path, Path):
        raise TypeError(
            f"path: expected a path of geodiff.paths, found {type(path).__name__} {path!r:.60}; "
            f"allowed such as geodiff.paths.Linear('A')"
        )
    return path


def _float64(value: float | Tensor) -> Tensor:
    """As a tensor, on the device that it lies on: as_tensor would move it to the default device."""
    return value.double() if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64, device="cpu")


def times(n: int, shift: float = 1.0, *, convention: Convention = "A") -> Tensor:
    """t_j = kappa s_j / (1 + (kappa - 1) s_j), s_j = 1 - j/n, j = 0..n: from the noise to the data, float64 [n + 1].

    In convention B it is 1 - t_j.
    shift: kappa > 0; above 1 it spends more of the steps near the noise (Esser et al., 2403.03206, eq. 23).
    Raises TypeError or ValueError that names the argument; one is a shift for which two times are the same number.
    """
    check_integer(n, "n", 1)
    kappa = check_number(shift, "shift", 0.0)
    _check_convention(convention)
    even = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    near, far = kappa * even, 1 - even  # neither the ends nor what lies close to them is a difference that cancels
    found = (near if convention == "A" else far) / (near + far)
    if not bool((found.diff() != 0).all()):
        raise ValueError(
            f"shift: expected {n + 1} times that differ, found {shift:g}, for which some are the same number; "
            f"allowed one nearer to 1"
        )
    return found
