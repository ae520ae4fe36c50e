"""The denoiser as torch operators, `geodiff::posterior` and its derivatives: for autograd, torch.func, torch.compile.

    posterior     r and log p_sigma, with entropy, ess, top-k, and trace if asked for     r = sum_i w_i x_i
    posterior_vjp cotangents of r and log p to gradients in x and sigma     v J = Cov_w v / sigma^2
    posterior_jvp tangents in x and sigma to those of r and log p           J v: J is symmetric

An operator takes tensors and numbers only: `data` is the number of a `PointSet`. All of them answer in float64 whatever
the dtype of x, so that a gradient does not start from a rounded r; callers round once, at the end.

First derivatives are one more pass of the kernel. Second ones, of the derivative operators, go through the reference:
exact, in memory and time of a plain PyTorch program over all the data, and not compiled. There are no third ones.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from geodiff.backends.query import Direction
from geodiff.denoiser import registry
from geodiff.denoiser.conditioning import Batch
from geodiff.denoiser.point_set import FIELDS, PointSet

_QUERY = "Tensor x, Tensor sigma, Tensor? classes, Tensor? mask, Tensor? exclude, int data, float tol"
_library = torch.library.Library("geodiff", "DEF")
_library.define(
    f"posterior({_QUERY}, int topk, bool with_trace) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    f"posterior_vjp({_QUERY}, Tensor mean, Tensor trace, Tensor? to_mean, Tensor? to_log_prob) -> (Tensor, Tensor)"
)
_library.define(
    f"posterior_jvp({_QUERY}, Tensor mean, Tensor trace, Tensor? of_x, Tensor? of_sigma) -> (Tensor, Tensor)"
)

Maybe = Tensor | None


class _Question(NamedTuple):
    """The arguments that all three begin with: `_QUERY`."""

    x: Tensor
    sigma: Tensor
    classes: Maybe
    mask: Maybe
    exclude: Maybe
    data: int
    tol: float

    @property
    def points(self) -> PointSet:
        return registry.find(self.data)

    def batch(self) -> Batch:
        return Batch(self.x, self.sigma, self.classes, self.mask, self.exclude, self.tol)


class _Change(NamedTuple):
    """What the derivatives take beside a question: its answer, and a cotangent or tangent for each of two tensors."""

    mean: Tensor
    trace: Tensor
    one: Maybe
    two: Maybe


_ASKED = len(_Question._fields)
#: Places of a change's two tensors among the arguments of a derivative.
_FIRST, _SECOND = _ASKED + 2, _ASKED + 3


def _read(args: Sequence[Any]) -> tuple[_Question, _Change]:
    return _Question(*args[:_ASKED]), _Change(*args[_ASKED:])


# ---- what the operators compute ----


def _posterior(*args: Any) -> tuple[Tensor, ...]:
    asked, (topk, with_trace) = _Question(*args[:_ASKED]), args[_ASKED:]
    batch = asked.batch().at(asked.x.detach(), asked.sigma.detach())
    answer = asked.points.posterior(batch, topk, with_trace=with_trace)
    return tuple(getattr(answer, name).to(asked.x.device) for name in FIELDS)


def _vjp(*args: Any) -> tuple[Tensor, Tensor]:
    asked, (mean, trace, to_mean, to_log_prob) = _read(args)
    x, sigma = asked.x, asked.sigma
    by_x, by_sigma = torch.zeros_like(mean), torch.zeros_like(sigma)
    if to_mean is not None:
        rows, far = asked.points.covariance(asked.batch(), Direction(mean, to_mean, torch.zeros_like(sigma)))
        by_x += rows / sigma[:, None].square()
        by_sigma += far / sigma**3
    if to_log_prob is not None:
        by_x += to_log_prob[:, None] * (mean - x) / sigma[:, None].square()
        by_sigma += to_log_prob * _log_prob_by_sigma(x, sigma, mean, trace)
    return by_x, by_sigma


def _jvp(*args: Any) -> tuple[Tensor, Tensor]:
    asked, (mean, trace, of_x, of_sigma) = _read(args)
    x, sigma = asked.x, asked.sigma
    v = torch.zeros_like(mean) if of_x is None else of_x.double()
    step = torch.zeros_like(sigma) if of_sigma is None else of_sigma
    rows, _ = asked.points.covariance(asked.batch(), Direction(mean, v, step / sigma))
    along = ((mean - x) * v).sum(1) / sigma.square()
    return rows / sigma[:, None].square(), along + step * _log_prob_by_sigma(x, sigma, mean, trace)


def _log_prob_by_sigma(x: Tensor, sigma: Tensor, mean: Tensor, trace: Tensor) -> Tensor:
    """d log p / d sigma = E_w |x - x_i|^2 / sigma^3 - d / sigma, [B]."""
    return (trace + (x - mean).square().sum(1)) / sigma**3 - x.shape[1] / sigma


def _fake_posterior(*args: Any) -> tuple[Tensor, ...]:
    x, topk = args[0], args[_ASKED]

    def number() -> Tensor:
        return x.new_empty(len(x), dtype=torch.float64)

    indices = x.new_empty(len(x), topk, dtype=torch.int64)
    mean = x.new_empty(x.shape, dtype=torch.float64)
    return mean, number(), number(), number(), number(), indices, x.new_empty(len(x), topk, dtype=torch.float64)


def _fake_derivative(x: Tensor, sigma: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.float64), x.new_empty(len(x), dtype=torch.float64)


# ---- and how autograd sees them ----


class _Function(torch.autograd.Function):
    """What the three have in common: vmap by folding its dimension into the batch."""

    @classmethod
    def _folded(cls, info: Any, dims: Sequence[int | None], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        size = info.batch_size

        def fold(value: Any, dim: int | None) -> Any:
            if not isinstance(value, Tensor):
                return value
            stacked = value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
            return stacked.flatten(0, 1)

        folded = [fold(value, dim) for value, dim in zip(args, dims, strict=True)]
        out = cls.apply(*folded)  # type: ignore[no-untyped-call]
        return tuple(value.unflatten(0, (size, -1)) for value in out), (0,) * len(out)


class _Posterior(_Function):
    @staticmethod
    def forward(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.geodiff.posterior.default(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        asked = _Question(*inputs[:_ASKED])
        x, sigma, classes, mask, exclude, ctx.data, ctx.tol = asked
        mean, _, entropy, ess, trace, indices, weights = output
        ctx.keep = asked.points  # the graph may outlive the denoiser
        ctx.mark_non_differentiable(entropy, ess, trace, indices, weights)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, sigma, classes, mask, exclude, mean, trace)
        ctx.save_for_forward(x, sigma, classes, mask, exclude, mean, trace)

    @staticmethod
    def backward(ctx: Any, to_mean: Maybe, to_log_prob: Maybe, *_: Maybe) -> tuple[Maybe, ...]:
        x, sigma, *conditions, mean, trace = ctx.saved_tensors
        by_x = by_sigma = None
        if to_mean is not None or to_log_prob is not None:
            by_x, by_sigma = vjp(x, sigma, *conditions, ctx.data, ctx.tol, mean, trace, to_mean, to_log_prob)
            by_x = by_x.to(x.dtype)
        return by_x, by_sigma, *[None] * _ASKED  # of what stands between, and of topk and with_trace

    @staticmethod
    def jvp(ctx: Any, of_x: Maybe, of_sigma: Maybe, *_: Maybe) -> tuple[Maybe, ...]:
        x, sigma, *conditions, mean, trace = ctx.saved_tensors
        rate = jvp(x, sigma, *conditions, ctx.data, ctx.tol, mean, trace, of_x, of_sigma)
        return *rate, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, dims: Sequence[int | None], *args: Any) -> Any:
        return _Posterior._folded(info, dims, *args)


class _Derivative(_Function):
    """vjp or jvp of the posterior. Its own derivatives come from the reference, recorded and run again.

    mean and trace are functions of x and sigma that spare a pass: derivatives in x and sigma are total, and nothing
    flows to those two.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        asked, (_, _, one, two) = _read(inputs)
        x, sigma, classes, mask, exclude, ctx.data, ctx.tol = asked
        ctx.keep = asked.points
        ctx.save_for_backward(x, sigma, classes, mask, exclude, one, two)
        ctx.save_for_forward(x, sigma, classes, mask, exclude, one, two)

    @classmethod
    def _recorded(cls, ctx: Any) -> tuple[list[Tensor], list[Tensor], list[int]]:
        """Inputs (of x, sigma, one, two those there are) and outputs of the operator as a graph, and their places."""
        x, sigma, classes, mask, exclude, one, two = ctx.saved_tensors
        at = (0, 1, _FIRST, _SECOND)
        places = [place for place, value in zip(at, (x, sigma, one, two), strict=True) if value is not None]
        present = [value.detach().requires_grad_() for value in (x, sigma, one, two) if value is not None]
        values = dict(zip(places, present, strict=True))
        point = [values[0], values[1]]
        answer = ctx.keep.differentiable(Batch(values[0], values[1], classes, mask, exclude, ctx.tol))
        return present, list(cls._differentiate(answer, point, values.get(_FIRST), values.get(_SECOND))), places

    @staticmethod
    def _differentiate(answer: Sequence[Tensor], point: Sequence[Tensor], one: Maybe, two: Maybe) -> Sequence[Tensor]:
        raise NotImplementedError

    @classmethod
    def _backward(cls, ctx: Any, *cotangents: Tensor) -> tuple[Maybe, ...]:
        with torch.enable_grad():
            inputs, outputs, places = cls._recorded(ctx)
            found = _grad(outputs, inputs, cotangents, create_graph=False)
        given = dict(zip(places, found, strict=True))
        return tuple(given.get(place) for place in range(_SECOND + 1))

    @classmethod
    def _jvp(cls, ctx: Any, *tangents: Maybe) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            inputs, outputs, places = cls._recorded(ctx)
            moved = [tangents[place] for place in places]
            steps = [torch.zeros_like(at) if step is None else step for at, step in zip(inputs, moved, strict=True)]
            return _forward(outputs, inputs, steps, create_graph=False)


class _Vjp(_Derivative):
    @staticmethod
    def forward(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.geodiff.posterior_vjp.default(*args)

    @staticmethod
    def _differentiate(answer: Sequence[Tensor], point: Sequence[Tensor], one: Maybe, two: Maybe) -> Sequence[Tensor]:
        to = [torch.zeros_like(a) if t is None else t for a, t in zip(answer, (one, two), strict=True)]
        return _grad(answer, point, to, create_graph=True)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Maybe, ...]:
        return _Vjp._backward(ctx, *cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Maybe) -> tuple[Tensor, ...]:
        return _Vjp._jvp(ctx, *tangents)

    @staticmethod
    def vmap(info: Any, dims: Sequence[int | None], *args: Any) -> Any:
        return _Vjp._folded(info, dims, *args)


class _Jvp(_Derivative):
    @staticmethod
    def forward(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.geodiff.posterior_jvp.default(*args)

    @staticmethod
    def _differentiate(answer: Sequence[Tensor], point: Sequence[Tensor], one: Maybe, two: Maybe) -> Sequence[Tensor]:
        steps = [torch.zeros_like(p) if t is None else t for p, t in zip(point, (one, two), strict=True)]
        return _forward(answer, point, steps, create_graph=True)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Maybe, ...]:
        return _Jvp._backward(ctx, *cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Maybe) -> tuple[Tensor, ...]:
        return _Jvp._jvp(ctx, *tangents)

    @staticmethod
    def vmap(info: Any, dims: Sequence[int | None], *args: Any) -> Any:
        return _Jvp._folded(info, dims, *args)


def _grad(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor], *, create_graph: bool
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        outputs, inputs, cotangents, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


def _forward(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], tangents: Sequence[Tensor], *, create_graph: bool
) -> tuple[Tensor, ...]:
    """Jacobian times tangents by two reverse sweeps: the first is linear in its cotangents."""
    dummies = [torch.zeros_like(value, requires_grad=True) for value in outputs]
    linear = _grad(outputs, inputs, dummies, create_graph=True)
    return _grad(linear, dummies, tangents, create_graph=create_graph)


def recorded(*values: Tensor) -> bool:
    """Whether anyone but the caller looks at what is done to these: autograd, torch.func, a compiler, a mode."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    if torch._C._are_functorch_transforms_active():
        return True
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return True
    return any(
        type(value) not in (Tensor, torch.nn.Parameter)
        or (torch.is_grad_enabled() and value.requires_grad)
        or unpack_dual(value).tangent is not None
        for value in values
    )


# torch.compile takes operators and no autograd.Function with a forward mode; torch.func takes it the other way round.


def posterior(*args: Any) -> tuple[Tensor, ...]:
    """`geodiff::posterior`: mean, log_prob, entropy, ess, trace, indices and weights (`FIELDS`)."""
    if torch.compiler.is_compiling():
        return torch.ops.geodiff.posterior.default(*args)
    return _Posterior.apply(*args)  # type: ignore[no-untyped-call]


def vjp(*args: Any) -> tuple[Tensor, Tensor]:
    """`geodiff::posterior_vjp`: gradients in x and sigma."""
    if torch.compiler.is_compiling():
        return torch.ops.geodiff.posterior_vjp.default(*args)
    return _Vjp.apply(*args)  # type: ignore[no-untyped-call]


def jvp(*args: Any) -> tuple[Tensor, Tensor]:
    """`geodiff::posterior_jvp`: tangents of the mean and of log_prob."""
    if torch.compiler.is_compiling():
        return torch.ops.geodiff.posterior_jvp.default(*args)
    return _Jvp.apply(*args)  # type: ignore[no-untyped-call]


for _name, _compute, _fake, _function in (
    ("posterior", _posterior, _fake_posterior, _Posterior),
    ("posterior_vjp", _vjp, _fake_derivative, _Vjp),
    ("posterior_jvp", _jvp, _fake_derivative, _Jvp),
):
    _library.impl(_name, _compute, "CompositeExplicitAutograd")
    _library.impl(_name, _function.apply, "Autograd")
    torch.library.register_fake(f"geodiff::{_name}", _fake, lib=_library)
