"""Velocity and score of a denoiser that has no kernel of its own for them: by their formulas, from r."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from geodiff.base.arguments import check_query_shape, check_sigma, shape_sigma
from geodiff.base.dtypes import FLOATING
from geodiff.base.per_point import per_point
from geodiff.denoiser.velocity import LARGEST, Moment
from geodiff.paths import Path


class ShapedDenoiser(Protocol):
    """r(x; sigma) that says over points of which shape."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __call__(self, x: Tensor, sigma: Tensor, **conditions: Any) -> Tensor: ...


def velocity(
    denoiser: ShapedDenoiser, x: Tensor, t: float | Tensor, path: Path, conditions: Mapping[str, Any]
) -> Tensor:
    """v = alpha' r + sigma' (x - alpha r) / sigma, r = r(x / alpha; sigma / alpha), [B, *shape] in the dtype of x."""
    x = check_query_shape(x, denoiser.shape, dtypes=FLOATING)
    scales = Moment.of(path, shape_sigma(t, len(x), device=x.device, name="t", what="time")).scales
    factor, level = scales.to_denoiser(LARGEST)
    moved = x.double() * per_point(factor, x)
    return scales.velocity(x, denoiser(moved, level, **conditions)).to(x.dtype)


def score(denoiser: ShapedDenoiser, x: Tensor, sigma: float | Tensor, conditions: Mapping[str, Any]) -> Tensor:
    """(r(x; sigma) - x) / sigma^2, [B, *shape] in the dtype of x."""
    x = check_query_shape(x, denoiser.shape, dtypes=FLOATING)
    levels = check_sigma(sigma, len(x), device=x.device)
    denoised = denoiser(x.double(), levels, **conditions)
    return ((denoised - x.double()) / per_point(levels.square(), x)).to(x.dtype)
