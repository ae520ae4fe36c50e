"""Denoisers made of the optimal one: tempered, smoothed, and of data that are normal distributions themselves.

Each is r(x, sigma) as every solver and adapter takes it, with the velocity and the score that go with it.
"""

import math
import numbers
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from geodiff import reference
from geodiff.base.arguments import (
    DATA_DTYPES,
    check_finite,
    check_integer,
    check_number,
    check_query_shape,
    check_sigma,
    check_tensor,
    shape_sigma,
)
from geodiff.base.array_like import Array, as_tensor
from geodiff.base.dtypes import FLOATING
from geodiff.base.per_point import per_point
from geodiff.denoiser.array_queries import of_any_kind
from geodiff.denoiser.from_denoised import score, velocity
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.paths import LINEAR, Path


class _Variant(nn.Module):
    """What they have in common: velocity and score by their formulas, from r."""

    sigma_min, sigma_max = 0.0, math.inf
    shape: tuple[int, ...]

    @property
    @abstractmethod
    def data(self) -> Tensor:
        """[N, *shape], on the device where it answers."""

    @of_any_kind
    def velocity(self, x: Tensor, t: float | Tensor, *, path: Path = LINEAR, **conditions: Any) -> Tensor:
        """v = alpha' r + sigma' (x - alpha r) / sigma, r = r(x / alpha; sigma / alpha), [B, *shape] in the dtype of x.

        x [B, *shape] = x_t; t a number, 0-d, [B] or [B, 1, ...], not where the data are; `path` of `geodiff.paths`.
        """
        return velocity(self, x, t, path, conditions)

    @of_any_kind
    def score(self, x: Tensor, sigma: float | Tensor, **conditions: Any) -> Tensor:
        """(r(x; sigma) - x) / sigma^2, [B, *shape] in the dtype of x: sigma is that of x, whatever r is made of."""
        return score(self, x, sigma, conditions)

    @staticmethod
    def round_sigma(sigma: Any) -> Tensor:
        """sigma as a tensor: every level is allowed."""
        return torch.as_tensor(sigma)


class TemperedDenoiser(_Variant):
    """r_T(x; sigma) = r*(x; sigma sqrt(T)): weights softmax_i(log pi_i - |x - x_i|^2 / 2 T sigma^2), prior untouched.

    Below T = 1 weights are sharper, above they are flatter. Score and velocity keep the sigma and t of x.

    denoiser     r*; its conditions (class_labels, mask, exclude) are passed on
    temperature  T > 0
    """

    def __init__(self, denoiser: OptimalDenoiser, temperature: float) -> None:
        super().__init__()
        self.denoiser = _checked(denoiser, shape=tuple)
        self.temperature = check_number(temperature, "temperature", 0.0)
        self.shape = denoiser.shape

    @property
    def data(self) -> Tensor:
        return self.denoiser.data

    @of_any_kind
    def forward(
        self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None, **conditions: Any
    ) -> Tensor:
        """r_T(x; sigma), [B, *shape] in the dtype of x; sigma a number, 0-d, [B] or [B, 1, ...]."""
        levels = shape_sigma(sigma, len(x), device=x.device) * math.sqrt(self.temperature)
        return self.denoiser(x, levels, class_labels, **conditions)


class SmoothedDenoiser(_Variant):
    """r_s(x; sigma) = sum_m r*(x + s (1 + sigma) e_m; sigma) / M: sigma-CFDM (Scarvelis et al., 2310.12395).

    At x_t = (1 - t) n + t x_1 this is the mean over m of r*((x_t + s e_m) / t; (1 - t) / t), the noise e_m fixed:
    smoothing by s in the coordinates of x_t, growing towards the noise in those of x. Its samples are means of near
    data points and not data points.

    denoiser  r*; its conditions (class_labels, mask, exclude) are passed on
    scale     s > 0
    noise     e [M, *shape], or M to draw so many from `seed`; centred (sum_m e_m = 0) as drawn, where the form is that
              of the convolution exactly
    A call asks `denoiser` once, for B M queries.
    """

    noise: Tensor

    def __init__(self, denoiser: OptimalDenoiser, scale: float, noise: Tensor | int = 16, seed: int = 0) -> None:
        super().__init__()
        self.denoiser = _checked(denoiser, shape=tuple, data=Tensor)
        self.scale = check_number(scale, "scale", 0.0)
        self.shape = denoiser.shape
        if not isinstance(noise, Tensor):
            count = check_integer(noise, "noise", 2)
            noise = torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(seed), device="cpu")
            noise = noise - noise.mean(0)
        check_query_shape(noise, self.shape, name="noise")
        if len(noise) == 0:
            raise ValueError("noise: expected [M, *shape] with M >= 1, found none; allowed one or more")
        self.register_buffer("noise", noise.to(denoiser.data.device), persistent=False)

    @property
    def data(self) -> Tensor:
        return self.denoiser.data

    @of_any_kind
    def forward(
        self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None, **conditions: Any
    ) -> Tensor:
        """r_s(x; sigma), [B, *shape] in the dtype of x; sigma a number, 0-d, [B] or [B, 1, ...]."""
        x = check_query_shape(x, self.shape, dtypes=FLOATING)
        levels = check_sigma(sigma, len(x), device=x.device)
        draws = len(self.noise)
        here = x.double()[:, None]  # [B, 1, *shape]
        moved = (here + per_point(self.scale * (1 + levels), here) * self.noise.double()).flatten(0, 1)  # [B M, *shape]
        given = {"class_labels": class_labels, **conditions}
        asked = {name: _each(value, name, len(x), draws) for name, value in given.items()}
        found = self.denoiser(moved, levels.repeat_interleave(draws), **asked)
        return found.unflatten(0, (len(x), draws)).mean(1).to(x.dtype)


class MixtureDenoiser(_Variant):
    """r(x; sigma) of data sum_i N(m_i, diag s_i^2) / N, in closed form: EDM2's latents with their standard deviations.

    r = sum_i w_i (m_i + s_i^2 / (s_i^2 + sigma^2) (x - m_i)); see `geodiff.reference.mixture`, which computes it in
    float64, a query at a time, in plain PyTorch. As s goes to 0, `OptimalDenoiser(means)`.

    means, deviations  [N, *shape], as `geodiff.data.load_latents` returns them; deviations floating, >= 0
    Raises TypeError or ValueError that names the argument.
    """

    means: Tensor
    deviations: Tensor

    def __init__(self, means: Array, deviations: Array) -> None:
        super().__init__()
        means = check_tensor(as_tensor(means, "means"), "means", DATA_DTYPES)
        deviations = check_tensor(as_tensor(deviations, "deviations"), "deviations", FLOATING)
        check_finite(deviations, "deviations")
        if deviations.numel() and float(deviations.min()) < 0:  # its square would pass for that of another
            raise ValueError(
                f"deviations: expected standard deviations, found {float(deviations.min()):g}; allowed 0 or more"
            )
        self.shape = tuple(means.shape[1:])
        self.register_buffer("means", means, persistent=False)
        self.register_buffer("deviations", deviations, persistent=False)
        self(means.new_empty(0, *self.shape, dtype=torch.float64), 1.0)  # what will not do is refused at once

    @property
    def data(self) -> Tensor:
        return self.means

    @of_any_kind
    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """r(x; sigma), [B, *shape] in the dtype of x; sigma a number, 0-d, [B] or [B, 1, ...]."""
        x = check_query_shape(x, self.shape, dtypes=FLOATING)
        return reference.mixture(x.double(), self.means, self.deviations, sigma).to(x.dtype)


def _checked(denoiser: OptimalDenoiser, **attributes: type) -> OptimalDenoiser:
    """denoiser itself; TypeError unless it can be called and has what a variant takes from it."""
    if not callable(denoiser) or not all(
        isinstance(getattr(denoiser, name, None), t) for name, t in attributes.items()
    ):
        raise TypeError(
            f"denoiser: expected an OptimalDenoiser, found {type(denoiser).__name__}; allowed also what is called as "
            f"one and has its {' and '.join(attributes)}"
        )
    return denoiser


def _each(value: Any, name: str, queries: int, times: int) -> Any:
    """A condition of each query as one of each of its draws; ValueError where there are not as many as queries."""
    if value is None or isinstance(value, numbers.Number):
        return value
    value = as_tensor(value, name)
    if value.ndim and len(value) != queries:  # here: the denoiser would count draws
        raise ValueError(f"{name}: expected one for each of B = {queries} queries, found {len(value)}; allowed as many")
    return value.repeat_interleave(times, 0) if value.ndim else value
