"""Derivatives of the posterior of any order: the formula in plain torch, differentiated by torch.func.

A derivative goes by its recipe, one letter for each time that it is taken: "r" in reverse mode, "f" forward. With f of
n tensors to m, "r" makes (inputs, cotangents) -> n gradients, and "f" makes (inputs, tangents) -> m rates; on "" ,
which is (x, sigma) -> (r, log p), stand "rr", "rf", "frf", ... Exact, in the memory and time of a plain PyTorch program
that holds all data in float64; not compiled.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geodiff.denoiser.conditioning import Batch
from geodiff.denoiser.point_set import PointSet
from geodiff.reference.formula import model_space

#: A function of tensors that all have a row for each query.
Function = Callable[..., tuple[Tensor, ...]]

_PAIRS = 2**22  # queries times points at a time
_TILE = 2**17  # numbers in the differences at a time


def derivative(points: PointSet, batch: Batch, recipe: str, change: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The derivative that `recipe` names, at a batch, for (co)tangents `change`: as many tensors as it has outputs."""
    points.check_all_here("a second derivative")
    given = (batch.x, batch.sigma, *change)
    out: list[Tensor] = []
    for part in points.conditioning.parts(batch):
        query = part.query.with_exclude_as_prior(points.stored.n)
        rows, prior = points.stored.rows[query.rows.start : query.rows.stop], query.prior_of_rows
        data = model_space(rows, torch.float64)
        log_prior = data.new_full((len(data),), -math.log(len(data))) if prior is None else prior
        if points.mirror is not None:
            data = torch.cat([data, data[:, points.mirror.flip]])
            log_prior = torch.cat([log_prior, log_prior], -1) - math.log(2)
        size = max(1, _PAIRS // len(data))
        inputs = part.pick(*given)
        for first in range(0, len(query), size):
            some = slice(first, first + size)
            here = tuple(value[some] for value in inputs)
            prior_here = log_prior if log_prior.ndim == 1 else log_prior[some]
            found = _apply(recipe, _formula(data, prior_here, here[0]))(*here)
            where = torch.arange(len(batch.x), device=data.device) if part.chosen is None else part.chosen
            out = out or [value.new_zeros(len(batch.x), *value.shape[1:]) for value in found]
            for whole, value in zip(out, found, strict=True):
                whole[where[some]] = value
    return tuple(out)


def _apply(recipe: str, function: Function) -> Function:
    for letter, inputs in zip(recipe, _inputs(recipe), strict=True):
        function = _reverse(function, inputs) if letter == "r" else _forward(function, inputs)
    return function


def _inputs(recipe: str) -> list[int]:
    """How many tensors each function that the recipe differentiates takes."""
    taken, given = 2, 2
    counts = []
    for letter in recipe:
        counts.append(taken)
        taken, given = (taken + given, taken) if letter == "r" else (2 * taken, given)
    return counts


def _reverse(function: Function, inputs: int) -> Function:
    def gradients(*values: Tensor) -> tuple[Tensor, ...]:
        pull = torch.func.vjp(function, *values[:inputs])[1]
        found: tuple[Tensor, ...] = pull(values[inputs:])
        return found

    return gradients


def _forward(function: Function, inputs: int) -> Function:
    # By two reverse sweeps, the first being linear in its cotangents: forward mode does not nest in forward mode.
    def rates(*values: Tensor) -> tuple[Tensor, ...]:
        outputs, pull = torch.func.vjp(function, *values[:inputs])[:2]
        push = torch.func.vjp(lambda *cotangents: pull(cotangents), *map(torch.zeros_like, outputs))[1]
        found: tuple[Tensor, ...] = push(values[inputs:])
        return found

    return rates


def _formula(data: Tensor, log_prior: Tensor, x0: Tensor) -> Function:
    """(x, sigma) -> (r, log p) near x0 [b, d], for data [n, d] float64 and log_prior [n] or [b, n].

    |x - x_i|^2 = |x_0 - x_i|^2 + 2 <x - x_0, x_0 - x_i> + |x - x_0|^2 for every x: at x = x_0 the first term alone is
    not 0, and it is summed from differences, so that nothing cancels; while derivatives see the other two, which hold
    no array of b x n x d.
    """
    x0 = x0.double()
    far0 = torch.stack([_squared_distances(point, data) for point in x0]) if len(x0) else x0.new_zeros(0, len(data))

    def posterior(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        step = x.double() - x0
        across = (step * x0).sum(1, keepdim=True) - step @ data.T
        far = far0 + 2 * across + step.square().sum(1, keepdim=True)
        logits = log_prior - far / (2 * sigma.square())[:, None]
        volume = data.shape[1] * (sigma.log() + math.log(2 * math.pi) / 2)
        # From the largest, which is a constant: the derivative of logsumexp is exp(logits - log_total), which does not
        # sum to 1 where log_total is large.
        best = logits.detach().amax(1, keepdim=True)
        log_total = best[:, 0] + (logits - best).logsumexp(1)
        return logits.softmax(1) @ data, log_total - volume

    return posterior


def _squared_distances(point: Tensor, data: Tensor) -> Tensor:
    return torch.cat([(part - point).square().sum(1) for part in data.split(max(1, _TILE // data.shape[1]))])
