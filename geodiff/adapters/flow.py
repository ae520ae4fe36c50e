"""Flow matching, both ways: a denoiser as the velocity that samplers ask for, and a velocity network as a denoiser."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from geodiff.adapters.levels import dtype_of
from geodiff.base.arguments import check_number, check_sigma, check_tensor, shape_sigma
from geodiff.base.denoiser_type import Denoiser
from geodiff.base.dtypes import FLOATING
from geodiff.base.per_point import per_point
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.denoiser.velocity import LARGEST
from geodiff.paths import Convention, Linear, Path

Order = Literal["x,t", "t,x"]
#: How others name class labels when they call a model.
LABELS = ("y", "label", "labels")


class FlowModel(nn.Module):
    """v(x, t) = alpha' r + sigma' (x - alpha r) / sigma, r = r(x / alpha; sigma / alpha): what a flow network answers.

    denoiser    r(x [B, *shape], sigma [B], **conditions) -> [B, *shape]; of `OptimalDenoiser` its own `velocity` is
                taken, to the velocity's contract
    convention  "A": noise at t = 1, v = n - x_0 (SD3, FLUX, diffusers). "B": data at t = 1, v = x_1 - n (torchcfm,
                flow_matching)
    order       "x,t" or "t,x" (torchcfm, torchdyn, odeint): which argument comes first. By keyword, x= and t=, any does
    scale       t is divided by it: 1, or 1000 where a model is asked at 1000 t
    path        one of `geodiff.paths` in that convention; default the linear one
    t_guard     the least time from the data: nearer times are moved there, and times beyond an end to that end.
                Adaptive solvers ask at the very end and step beyond it, where no velocity is defined

    t is a number, 0-d, [B] or [B, 1, ...] of any dtype; labels are called class_labels, y or label, and flow_matching's
    extra={"label": ...} is understood, too; other keywords go to the denoiser. The answer has the dtype of x.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        convention: Convention = "A",
        order: Order = "x,t",
        scale: float = 1.0,
        *,
        path: Path | None = None,
        t_guard: float = 1e-5,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.path = (Linear() if path is None else path).in_convention(Linear(convention).convention)
        self.order = _known(order)
        self.scale = check_number(scale, "scale", 0.0)
        self.t_guard = check_number(t_guard, "t_guard", 0.0, 0.5)

    def __call__(self, *given: Any, **named: Any) -> Tensor:
        """v [B, *shape]: the two arguments by position, in `order`, or by keyword."""
        # Not left to forward: its signature is read, by torchdyn for one, and must name x and t.
        if self.order == "t,x":
            named = {**dict(zip(("t", "x"), given, strict=False)), **named}
            given = given[2:]
        return super().__call__(*given, **named)

    def forward(self, x: Tensor, t: float | Tensor, **conditions: Any) -> Tensor:
        """v [B, *shape] in the dtype of x."""
        check_tensor(x, "x", FLOATING)
        times = self.guarded(shape_sigma(t, len(x), device=x.device, name="t", what="time") / self.scale)
        conditions = _renamed(conditions)
        if isinstance(self.denoiser, OptimalDenoiser):
            return self.denoiser.velocity(x, times, path=self.path, **conditions)
        scales = self.path.at(times)
        factor, level = scales.to_denoiser(LARGEST)
        moved = x * per_point(factor.to(x.dtype), x)
        return scales.velocity(x, self.denoiser(moved, level, **conditions)).to(x.dtype)

    def guarded(self, times: Tensor) -> Tensor:
        """Times moved into the path, and at least `t_guard` from the data."""
        low, high = (self.t_guard, 1.0) if self.path.convention == "A" else (0.0, 1 - self.t_guard)
        return times.clamp(low, high)


class FlowDenoiser(nn.Module):
    """r(x; sigma) from a network v(x_t, t) of flow matching: the x_0 that its velocity at x_t = alpha x points to.

    r = (v - sigma' x_t / sigma) / (alpha' - alpha sigma' / sigma) at the t of the level sigma; on the linear path A
    r = x_t - t v. So it stands beside the optimal denoiser in everything that takes r(x, sigma).

    network  called in its own dtype, with two arguments in `order`, t as [B] times `scale`, and the conditions
    convention, order, scale, path  as for `FlowModel`: how the network was trained
    """

    sigma_min, sigma_max = 0.0, float("inf")

    def __init__(
        self,
        network: Callable[..., Tensor],
        convention: Convention = "A",
        order: Order = "x,t",
        scale: float = 1.0,
        *,
        path: Path | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.path = (Linear() if path is None else path).in_convention(Linear(convention).convention)
        self.order = _known(order)
        self.scale = check_number(scale, "scale", 0.0)

    def forward(self, x: Tensor, sigma: float | Tensor, **conditions: Any) -> Tensor:
        """r(x; sigma), [B, *shape] in the dtype of x. sigma: number, 0-d, [B] or [B, 1, ...]."""
        check_tensor(x, "x", FLOATING)
        times = self.path.time(check_sigma(sigma, len(x), device=x.device))
        scales = self.path.at(times)
        state = x * scales.per_point(x).alpha.to(x.dtype)
        return scales.denoised(state, self._ask(state, times, conditions)).to(x.dtype)

    def velocity(self, x: Tensor, t: float | Tensor, **conditions: Any) -> Tensor:
        """The network's own v(x, t), [B, *shape] in the dtype of x = x_t; t a number, 0-d, [B] or [B, 1, ...]."""
        check_tensor(x, "x", FLOATING)
        return self._ask(x, shape_sigma(t, len(x), device=x.device, name="t", what="time"), conditions).to(x.dtype)

    def _ask(self, state: Tensor, times: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        dtype = dtype_of(self.network, state.dtype)
        asked = {"x": state.to(dtype), "t": (times * self.scale).to(dtype)}
        return self.network(*(asked[name] for name in self.order.split(",")), **conditions)

    @staticmethod
    def round_sigma(sigma: Any) -> Tensor:
        """sigma as a tensor: every level is allowed."""
        return torch.as_tensor(sigma)


def _known(order: str) -> Order:
    if order == "x,t":
        return "x,t"
    if order == "t,x":
        return "t,x"
    raise ValueError(f"order: found {order!r}; allowed 'x,t', 't,x'")


def _renamed(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Labels by our name; of `extra` and `args` (torchdyn) what they hold; None, "no labels" elsewhere, left out."""
    named = dict(conditions)
    for name in ("extra", "args"):
        named.update(named.pop(name, None) or {})
    for name in LABELS:
        if name in named:
            named["class_labels"] = named.pop(name)
    return {name: value for name, value in named.items() if value is not None}
