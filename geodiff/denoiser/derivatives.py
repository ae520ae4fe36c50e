"""How autograd and torch.func see the operators: a first derivative is one more pass; see also `higher_derivatives`.

torch.compile takes operators and no autograd.Function with a forward mode; torch.func takes it the other way round. So
`posterior`, `vjp` and `jvp` ask either. Their first argument is a `PointSet` that a graph keeps, so that it need not be
made again for a derivative; None where only tensors are known.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geodiff.denoiser import higher_derivatives
from geodiff.denoiser.operators import ASKED, PER_QUERY, Change, Maybe, Question, fold, library, read
from geodiff.denoiser.point_set import PointSet

# The first derivatives, named as in `higher_derivatives`: r is the reverse mode (vjp), f the forward mode (jvp).
_OPERATORS = {"r": torch.ops.geodiff.posterior_vjp, "f": torch.ops.geodiff.posterior_jvp}

# Places among the arguments of a derivative: behind what is kept and the recipe, those of the operator.
_X, _SIGMA = 2, 3
_CHANGE = range(2 + ASKED, 2 + ASKED + len(Change._fields))
_ONE, _TWO = _CHANGE[-2:]


class _Function(torch.autograd.Function):
    """What they have in common: vmap by folding its dimension into the batch."""

    @classmethod
    def _folded(
        cls, info: Any, dims: Sequence[int | None], args: Sequence[Any], per_query: Sequence[int]
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        size = info.batch_size
        folded = fold(size, dims, args, per_query)
        out = cls.apply(*folded)  # type: ignore[no-untyped-call]
        return tuple(value.unflatten(0, (size, -1)) for value in out), (0,) * len(out)


class _Posterior(_Function):
    @staticmethod
    def forward(kept: PointSet | None, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.geodiff.posterior.default(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        asked = Question(*inputs[1 : 1 + ASKED])
        mean, _, entropy, ess, trace, indices, weights = output
        # The data are no variables: they are kept, not saved, so that data made in inference mode will do.
        ctx.kept, ctx.asked = inputs[0], asked.of_data()
        ctx.mark_non_differentiable(entropy, ess, trace, indices, weights)
        ctx.set_materialize_grads(False)
        saved = (*asked.of_queries, mean, trace)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def _again(ctx: Any) -> tuple[Question, Tensor, Tensor]:
        *queries, mean, trace = ctx.saved_tensors
        return ctx.asked.asked_by(*queries), mean, trace

    @staticmethod
    def backward(ctx: Any, to_mean: Maybe, to_log_prob: Maybe, *_: Maybe) -> tuple[Maybe, ...]:
        asked, mean, trace = _Posterior._again(ctx)
        by_x = by_sigma = None
        if to_mean is not None or to_log_prob is not None:
            by_x, by_sigma = vjp(ctx.kept, *asked, mean, trace, to_mean, to_log_prob)
            by_x = by_x.to(asked.x.dtype)
        return (None, by_x, by_sigma, *[None] * ASKED)

    @staticmethod
    def jvp(ctx: Any, _kept: None, of_x: Maybe, of_sigma: Maybe, *_: Maybe) -> tuple[Maybe, ...]:
        asked, mean, trace = _Posterior._again(ctx)
        rate = jvp(ctx.kept, *asked, mean, trace, of_x, of_sigma)
        return *rate, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, dims: Sequence[int | None], *args: Any) -> Any:
        return _Posterior._folded(info, dims, args, [1 + place for place in PER_QUERY])


class _Derivative(_Function):
    """vjp or jvp of the posterior, by the recipe of one letter that says which.

    mean and trace are functions of x and sigma that spare a pass: derivatives in x and sigma are total, and nothing
    flows to those two.
    """

    @staticmethod
    def forward(kept: PointSet | None, recipe: str, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return _OPERATORS[recipe].default(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        asked, (_, _, one, two) = read(inputs[2:])
        ctx.recipe, ctx.kept, ctx.asked = inputs[1], inputs[0], asked.of_data()
        saved = (*asked.of_queries, one, two)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def _taken(ctx: Any, letter: str, *more: Tensor) -> tuple[Tensor, ...]:
        """The recipe with one letter more, at the saved tensors; a (co)tangent that is None is 0."""
        *queries, one, two = ctx.saved_tensors
        x, sigma, *_ = queries
        zeros = (x.new_zeros(x.shape, dtype=torch.float64), sigma.new_zeros(sigma.shape, dtype=torch.float64))
        change = [zero if value is None else value for value, zero in zip((one, two), zeros, strict=True)]
        return _differentiate(ctx.kept, ctx.recipe + letter, ctx.asked.asked_by(*queries), *change, *more)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Maybe, ...]:
        found = _Derivative._taken(ctx, "r", *cotangents)
        out: list[Maybe] = [None] * _CHANGE.stop
        for place, value in zip((_X, _SIGMA, _ONE, _TWO), found, strict=True):
            if ctx.needs_input_grad[place]:
                out[place] = value
        return tuple(out)

    @staticmethod
    def jvp(ctx: Any, *tangents: Maybe) -> tuple[Tensor, ...]:
        x, sigma, *_, one, two = ctx.saved_tensors
        zeros = [torch.zeros_like(x), torch.zeros_like(sigma)]
        zeros += [
            x.new_zeros(x.shape, dtype=torch.float64) if one is None else torch.zeros_like(one),
            sigma.new_zeros(sigma.shape, dtype=torch.float64) if two is None else torch.zeros_like(two),
        ]
        moved = [tangents[place] for place in (_X, _SIGMA, _ONE, _TWO)]
        steps = (zero if t is None else t for t, zero in zip(moved, zeros, strict=True))
        return _Derivative._taken(ctx, "f", *steps)

    @staticmethod
    def vmap(info: Any, dims: Sequence[int | None], *args: Any) -> Any:
        return _Derivative._folded(info, dims, args, [*(2 + place for place in PER_QUERY), *_CHANGE])


class _Higher(_Function):
    """A derivative by its recipe (see `higher_derivatives`); its own is the recipe with one letter more."""

    @staticmethod
    def forward(kept: PointSet | None, recipe: str, *args: Any) -> tuple[Tensor, ...]:
        asked, change = Question(*args[:ASKED]), args[ASKED:]
        return higher_derivatives.derivative(asked.points, asked.batch(), recipe, change)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.recipe, asked = inputs[1], Question(*inputs[2 : 2 + ASKED])
        ctx.kept, ctx.asked = inputs[0], asked.of_data()
        saved = (*asked.of_queries, *inputs[2 + ASKED :])
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def _taken(ctx: Any, letter: str, *more: Tensor) -> tuple[Tensor, ...]:
        saved, queries = ctx.saved_tensors, len(PER_QUERY)
        asked = ctx.asked.asked_by(*saved[:queries])
        return _differentiate(ctx.kept, ctx.recipe + letter, asked, *saved[queries:], *more)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Maybe, ...]:
        by_x, by_sigma, *by_change = _Higher._taken(ctx, "r", *cotangents)
        return (None, None, by_x, by_sigma, *[None] * (ASKED - 2), *by_change)

    @staticmethod
    def jvp(ctx: Any, _kept: None, _recipe: None, *tangents: Maybe) -> tuple[Tensor, ...]:
        saved = ctx.saved_tensors
        places = (*saved[:2], *saved[len(PER_QUERY) :])  # x, sigma and the change
        moved = (*tangents[:2], *tangents[ASKED:])
        steps = (torch.zeros_like(at) if t is None else t for at, t in zip(places, moved, strict=True))
        return _Higher._taken(ctx, "f", *steps)

    @staticmethod
    def vmap(info: Any, dims: Sequence[int | None], *args: Any) -> Any:
        per_query = (*(2 + place for place in PER_QUERY), *range(2 + ASKED, len(args)))
        return _Higher._folded(info, dims, args, per_query)


def _differentiate(kept: PointSet | None, recipe: str, asked: Question, *change: Tensor) -> tuple[Tensor, ...]:
    return _Higher.apply(kept, recipe, *asked, *change)  # type: ignore[no-untyped-call]


def posterior(kept: PointSet | None, *args: Any) -> tuple[Tensor, ...]:
    """`geodiff::posterior`: mean, log_prob, entropy, ess, trace, indices and weights (`FIELDS`)."""
    if torch.compiler.is_compiling():
        return torch.ops.geodiff.posterior.default(*args)
    return _Posterior.apply(kept, *args)  # type: ignore[no-untyped-call]


def vjp(kept: PointSet | None, *args: Any) -> tuple[Tensor, Tensor]:
    """`geodiff::posterior_vjp`: gradients in x and sigma."""
    if torch.compiler.is_compiling():
        return torch.ops.geodiff.posterior_vjp.default(*args)
    return _Derivative.apply(kept, "r", *args)  # type: ignore[no-untyped-call]


def jvp(kept: PointSet | None, *args: Any) -> tuple[Tensor, Tensor]:
    """`geodiff::posterior_jvp`: tangents of the mean and of log_prob."""
    if torch.compiler.is_compiling():
        return torch.ops.geodiff.posterior_jvp.default(*args)
    return _Derivative.apply(kept, "f", *args)  # type: ignore[no-untyped-call]


library.impl("posterior", functools.partial(_Posterior.apply, None), "Autograd")
for _recipe, _operator in _OPERATORS.items():
    _name = _operator.__name__
    library.impl(_name, functools.partial(_Derivative.apply, None, _recipe), "Autograd")
