"""What all methods share: a noisy state that goes down the noise levels, and a denoiser that is asked on the way."""

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from geodiff.base.answers import check_answer
from geodiff.base.arguments import check_finite
from geodiff.base.denoiser_type import Denoiser
from geodiff.inverse.problem import Problem
from geodiff.solvers.sampling import check_schedule


@dataclass(frozen=True, eq=False)
class Restoration:
    """What a method answers.

    images       [B, *shape] in the dtype of y
    evaluations  of the denoiser for each image, those that were differentiated included once
    """

    images: Tensor
    evaluations: int


class Watch(Protocol):
    """Called with each step: watch(step, sigma, x, estimate), the state and the method's guess of x_0 there."""

    def __call__(self, step: int, sigma: float, x: Tensor, estimate: Tensor, /) -> object: ...


@dataclass(frozen=True)
class Options:
    """What every method takes beside its own weights.

    generator  of all noise, drawn on the CPU so that devices agree; None: torch's own
    clip       (low, high): where answers of the denoiser are cut off before they are compared; None: nowhere
    watch      called in each step: see `Watch`

    Raises TypeError or ValueError for another clip.
    """

    generator: torch.Generator | None = None
    clip: tuple[float, float] | None = (-1.0, 1.0)
    watch: Watch | None = None

    def __post_init__(self) -> None:
        clip: object = self.clip
        if clip is None:
            return
        pair = isinstance(clip, Sequence) and not isinstance(clip, str) and len(clip) == 2
        if not pair or not all(isinstance(end, numbers.Real) for end in clip):  # type: ignore[attr-defined]
            raise TypeError(f"clip: expected two numbers, found {clip!r:.60}; allowed (low, high), or None")
        if not clip[0] < clip[1]:  # type: ignore[index]
            raise ValueError(f"clip: expected low < high, found {clip!r:.60}; allowed such as (-1.0, 1.0), or None")


class Descent:
    """A state x, from sigma_0 n down the levels; a method asks and replaces it level by level.

    denoiser  r(x, sigma) -> [B, *shape]; where a method needs its gradient, autograd must be able to follow it
    sigmas    [S + 1] falling, as for `geodiff.sample`; a last level of 0 gives the estimate of the step before it
    """

    def __init__(
        self, denoiser: Denoiser, problem: Problem, sigmas: Tensor | Sequence[float], options: Options | None
    ) -> None:
        if not callable(denoiser):
            raise TypeError(f"denoiser: expected a callable denoiser(x, sigma), found {type(denoiser).__name__}")
        self.denoiser, self.problem, self.options = denoiser, problem, options or Options()
        self.levels = check_schedule(sigmas)
        self.evaluations = 0
        y = problem.y
        self.x = y.new_empty(len(y), *problem.operator.shape)
        self.x = self.levels[0] * self.noise()

    def noise(self) -> Tensor:
        """n ~ N(0, I) of the shape of x."""
        return torch.randn(self.x.shape, generator=self.options.generator, dtype=self.x.dtype, device="cpu").to(
            self.x.device
        )

    def steps(self) -> Iterator[tuple[float, float]]:
        """(sigma, sigma') of each step."""
        return iter(zip(self.levels[:-1], self.levels[1:], strict=True))

    def denoised(self, sigma: float) -> Tensor:
        """r(x; sigma), cut off."""
        with torch.no_grad():
            return self._cut(self._asked(self.x, sigma))

    def pulled(self, sigma: float, cotangent: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """r(x; sigma), and v J for v = cotangent(r), J = dr/dx: exact for the optimal denoiser, Cov_w v / sigma^2."""
        if torch.is_inference_mode_enabled():  # which enable_grad does not end
            raise ValueError(
                "inference_mode: expected off for a method that takes a gradient through the denoiser, found on; "
                "allowed torch.no_grad(), or a method without, such as diffpir"
            )
        with torch.enable_grad():
            x = self.x.detach().requires_grad_()
            r = self._cut(self._asked(x, sigma))
            if not r.requires_grad:
                raise ValueError("denoiser: expected an answer that autograd follows, found one that it does not")
            (gradient,) = torch.autograd.grad(r, x, cotangent(r.detach()))
        return r.detach(), gradient

    def ancestral(self, estimate: Tensor, sigma: float, following: float) -> Tensor:
        """x' = E + q (x - E) + sigma' sqrt(1 - q) n, q = (sigma'/sigma)^2: p(x' | x, E), Ho et al., 2006.11239."""
        kept = (following / sigma) ** 2
        spread = following * math.sqrt(1 - kept)
        return estimate + kept * (self.x - estimate) + spread * self.noise()

    def go(self, x: Tensor, estimate: Tensor, step_from: float) -> None:
        """Replace the state, after a word to the watch."""
        if self.options.watch is not None:
            self.options.watch(self.levels.index(step_from), step_from, self.x, estimate)
        self.x = x

    def end(self) -> Restoration:
        """The state as the answer. Raises ValueError where it is not finite: weights that are too large diverge."""
        check_finite(self.x, "restored")
        return Restoration(self.x, self.evaluations)

    def _asked(self, x: Tensor, sigma: float) -> Tensor:
        self.evaluations += 1
        return check_answer(self.denoiser(x, x.new_tensor(sigma)), x, "denoiser", f"sigma = {sigma:g}").to(x.dtype)

    def _cut(self, r: Tensor) -> Tensor:
        return r if self.options.clip is None else r.clamp(*self.options.clip)
