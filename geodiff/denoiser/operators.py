"""The denoiser as torch operators, `geodiff::posterior` and its derivatives: for autograd, torch.func, torch.compile.

    posterior     r and log p_sigma, with entropy, ess, top-k, and trace if asked for     r = sum_i w_i x_i
    posterior_vjp cotangents of r and log p to gradients in x and sigma     v J = Cov_w v / sigma^2
    posterior_jvp tangents in x and sigma to those of r and log p           J v: J is symmetric

An operator takes tensors and numbers only, and the data go along as the tensors they are made of (`Content`): so a
graph that holds an operator holds its data, in this process and in any other. All of them answer in float64 whatever
the dtype of x, so that a gradient does not start from a rounded r; callers round once, at the end.

How autograd sees them: `geodiff.denoiser.derivatives`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from geodiff.backends.query import Direction
from geodiff.denoiser.conditioning import Batch
from geodiff.denoiser.content import Content, find
from geodiff.denoiser.point_set import FIELDS, PointSet

_DATA = "Tensor rows, Tensor? order, Tensor? groups, Tensor? prior, Tensor? flip, str backend"
QUESTION = f"Tensor x, Tensor sigma, Tensor? classes, Tensor? mask, Tensor? exclude, {_DATA}, float tol, Tensor? finer"
library = torch.library.Library("geodiff", "DEF")
library.define(
    f"posterior({QUESTION}, int topk, bool with_trace) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
library.define(
    f"posterior_vjp({QUESTION}, Tensor mean, Tensor trace, Tensor? to_mean, Tensor? to_log_prob) -> (Tensor, Tensor)"
)
library.define(
    f"posterior_jvp({QUESTION}, Tensor mean, Tensor trace, Tensor? of_x, Tensor? of_sigma) -> (Tensor, Tensor)"
)

Maybe = Tensor | None


class Question(NamedTuple):
    """The arguments that all three begin with: a batch of queries, and what it is asked of."""

    x: Tensor
    sigma: Tensor
    classes: Maybe
    mask: Maybe
    exclude: Maybe
    rows: Tensor
    order: Maybe
    groups: Maybe
    prior: Maybe
    flip: Maybe
    backend: str
    tol: float
    finer: Maybe  # 0-d: a tolerance that only running the graph tells; the lesser of both counts

    @classmethod
    def of(cls, batch: Batch, points: PointSet, finer: Maybe = None) -> "Question":
        """The batch asked of these points."""
        x, sigma, classes, mask, exclude, tol = batch
        return cls(x, sigma, classes, mask, exclude, *points.content, tol, finer)

    def of_data(self) -> "Question":
        """Without the queries, which autograd keeps apart: it watches over them."""
        return type(self)(*[None] * len(PER_QUERY), *self[len(PER_QUERY) :])  # type: ignore[arg-type]

    def asked_by(self, *queries: Maybe) -> "Question":
        """`of_data` with queries: what stands at PER_QUERY."""
        return type(self)(*queries, *self[len(PER_QUERY) :])  # type: ignore[arg-type]

    @property
    def of_queries(self) -> tuple[Maybe, ...]:
        """What stands at PER_QUERY."""
        return self.x, self.sigma, self.classes, self.mask, self.exclude

    @property
    def content(self) -> Content:
        """What is asked."""
        return Content(*self[5:11])

    @property
    def points(self) -> PointSet:
        """The same made ready: those that the content came from, if they live."""
        return find(self.content, PointSet.of)

    def batch(self) -> Batch:
        """The queries."""
        tol = self.tol if self.finer is None else min(self.tol, float(self.finer))
        return Batch(self.x, self.sigma, self.classes, self.mask, self.exclude, tol)


#: How many arguments those are; and the places, among an operator's arguments, of tensors that have a row a query.
ASKED = len(Question._fields)
PER_QUERY = (0, 1, 2, 3, 4)


class Change(NamedTuple):
    """What the derivatives take beside a question: its answer, and a cotangent or tangent for each of two tensors."""

    mean: Tensor
    trace: Tensor
    one: Maybe
    two: Maybe


def read(args: Sequence[Any]) -> tuple[Question, Change]:
    """The arguments of a derivative."""
    return Question(*args[:ASKED]), Change(*args[ASKED:])


def fold(size: int, dims: Sequence[int | None], args: Sequence[Any], per_query: Sequence[int]) -> list[Any]:
    """The arguments that vmap over `size` maps over, its dimension folded into the batch.

    `per_query`: the places of what has a row for each query; nothing else can have been mapped over.
    """
    folded = list(args)
    for place in per_query:
        value, dim = args[place], dims[place]
        if value is not None:
            stacked = value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
            folded[place] = stacked.flatten(0, 1)
    return folded


# ---- what the operators compute ----


def _posterior(*args: Any) -> tuple[Tensor, ...]:
    asked, (topk, with_trace) = Question(*args[:ASKED]), args[ASKED:]
    batch = asked.batch().at(asked.x.detach(), asked.sigma.detach())
    answer = asked.points.posterior(batch, topk, with_trace=with_trace)
    return _apart(getattr(answer, name).to(asked.x.device) for name in FIELDS)


def _apart(values: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """The values, no two in one storage: an operator's outputs may not alias, and engines keep numbers side by side."""
    return tuple(
        value.clone() if value.numel() < value.untyped_storage().nbytes() // value.itemsize else value
        for value in values
    )


def _vjp(*args: Any) -> tuple[Tensor, Tensor]:
    asked, (mean, trace, to_mean, to_log_prob) = read(args)
    x, sigma = asked.x, asked.sigma
    by_x, by_sigma = mean.new_zeros(mean.shape), sigma.new_zeros(sigma.shape)  # dense, where sigma is expanded
    if to_mean is not None:
        rows, far = asked.points.covariance(asked.batch(), Direction(mean, to_mean, sigma.new_zeros(sigma.shape)))
        by_x += rows / sigma[:, None].square()
        by_sigma += far / sigma**3
    if to_log_prob is not None:
        by_x += to_log_prob[:, None] * (mean - x) / sigma[:, None].square()
        by_sigma += to_log_prob * _log_prob_by_sigma(x, sigma, mean, trace)
    return by_x, by_sigma


def _jvp(*args: Any) -> tuple[Tensor, Tensor]:
    asked, (mean, trace, of_x, of_sigma) = read(args)
    x, sigma = asked.x, asked.sigma
    v = torch.zeros_like(mean) if of_x is None else of_x.double()
    step = sigma.new_zeros(sigma.shape) if of_sigma is None else of_sigma
    rows, _ = asked.points.covariance(asked.batch(), Direction(mean, v, step / sigma))
    along = ((mean - x) * v).sum(1) / sigma.square()
    return rows / sigma[:, None].square(), along + step * _log_prob_by_sigma(x, sigma, mean, trace)


def _log_prob_by_sigma(x: Tensor, sigma: Tensor, mean: Tensor, trace: Tensor) -> Tensor:
    """d log p / d sigma = E_w |x - x_i|^2 / sigma^3 - d / sigma, [B]."""
    return (trace + (x - mean).square().sum(1)) / sigma**3 - x.shape[1] / sigma


# Sizes come from .shape: len(x) would be a number, and a compiled graph would hold for that batch size only.


def _fake_posterior(*args: Any) -> tuple[Tensor, ...]:
    x, topk = args[0], args[ASKED]
    batch = x.shape[0]

    def number() -> Tensor:
        return x.new_empty(batch, dtype=torch.float64)

    indices = x.new_empty(batch, topk, dtype=torch.int64)
    mean = x.new_empty(x.shape, dtype=torch.float64)
    return mean, number(), number(), number(), number(), indices, x.new_empty(batch, topk, dtype=torch.float64)


def _fake_derivative(x: Tensor, sigma: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.float64), x.new_empty(x.shape[0], dtype=torch.float64)


for _name, _compute, _fake in (
    ("posterior", _posterior, _fake_posterior),
    ("posterior_vjp", _vjp, _fake_derivative),
    ("posterior_jvp", _jvp, _fake_derivative),
):
    library.impl(_name, _compute, "CompositeExplicitAutograd")
    torch.library.register_fake(f"geodiff::{_name}", _fake, lib=library)


def recorded(*values: Tensor) -> bool:
    """Whether anyone but the caller looks at what is done to these: autograd, torch.func, a compiler, a mode."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    if transformed():
        return True
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return True
    return not _PLAIN.issuperset(map(type, values)) or _tracked(*values)


_PLAIN = frozenset((Tensor, torch.nn.Parameter))


def followed(*values: Tensor) -> bool:
    """Whether derivatives in these may be wanted: by autograd or torch.func."""
    if torch.compiler.is_compiling():  # a compiler knows no forward mode
        return torch.is_grad_enabled() and any(value.requires_grad for value in values)
    return transformed() or _tracked(*values)


def _tracked(*values: Tensor) -> bool:
    """Whether autograd records these, in either mode. Loops stand for `any`, here where every call counts."""
    recording = torch.is_grad_enabled()
    for value in values:  # noqa: SIM110
        if (recording and value.requires_grad) or unpack_dual(value).tangent is not None:
            return True
    return False


def transformed() -> bool:
    """Whether this runs inside a transform of torch.func."""
    return torch._C._are_functorch_transforms_active()
