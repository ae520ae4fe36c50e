"""Contract 3: every wrong input raises an exception of the right type whose message opens with the argument's name."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import geodiff
from geodiff import BackendUnavailable, DataError, OptimalDenoiser, ops
from geodiff.backends import cpu

NAN, INF = float("nan"), float("inf")
DATA = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
X = torch.zeros(2, 3, 4, 4)


def _with(value: float, place: tuple[int, ...], tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


def _denoiser(**options: object) -> OptimalDenoiser:
    return OptimalDenoiser(DATA, **options)  # type: ignore[arg-type]


CASES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "sigma zero": (lambda: _denoiser()(X, 0.0), ValueError, "sigma"),
    "sigma negative": (lambda: _denoiser()(X, -1.0), ValueError, "sigma"),
    "sigma NaN": (lambda: _denoiser()(X, NAN), ValueError, "sigma"),
    "sigma Inf": (lambda: _denoiser()(X, INF), ValueError, "sigma"),
    "one sigma of two is NaN": (lambda: _denoiser()(X, torch.tensor([1.0, NAN])), ValueError, "sigma"),
    "sigma for three queries": (lambda: _denoiser()(X, torch.ones(3)), ValueError, "sigma"),
    "sigma a string": (lambda: _denoiser()(X, "1"), TypeError, "sigma"),  # type: ignore[arg-type]
    "sigma None": (lambda: _denoiser()(X, None), TypeError, "sigma"),  # type: ignore[arg-type]
    "sigma complex": (lambda: _denoiser()(X, torch.tensor(1j)), TypeError, "sigma"),
    "x NaN": (lambda: _denoiser()(_with(NAN, (0, 0, 0, 0), X), 1.0), ValueError, "x"),
    "x Inf": (lambda: _denoiser()(_with(INF, (1, 2, 3, 3), X), 1.0), ValueError, "x"),
    "x of another shape": (lambda: _denoiser()(torch.zeros(2, 3, 4, 5), 1.0), ValueError, "x"),
    "x without a batch": (lambda: _denoiser()(torch.zeros(3, 4, 4), 1.0), ValueError, "x"),
    "x flat": (lambda: _denoiser()(torch.zeros(2, 48), 1.0), ValueError, "x"),
    "x integer": (lambda: _denoiser()(X.int(), 1.0), TypeError, "x"),
    "x complex": (lambda: _denoiser()(X + 0j, 1.0), TypeError, "x"),
    "x an array of integers": (lambda: _denoiser()(X.int().numpy(), 1.0), TypeError, "x"),
    "x a set": (lambda: _denoiser()({1.0}, 1.0), TypeError, "x"),
    "x on another device": (lambda: _denoiser()(X.to("meta"), 1.0), ValueError, "x"),
    "v on another device": (lambda: _denoiser().posterior(X, 1.0).covariance(X.to("meta")), ValueError, "v"),
    "x of a product on another device": (lambda: ops.inner_products(X.to("meta"), DATA), ValueError, "x"),
    "logits on another device": (
        lambda: ops.weighted_mean(torch.zeros(2, 20, device="meta"), DATA),
        ValueError,
        "logits",
    ),
    "candidates on another device": (
        lambda: ops.refine(X, DATA, torch.zeros(2, 1, dtype=torch.int64, device="meta")),
        ValueError,
        "candidates",
    ),
    "topk negative": (lambda: _denoiser().posterior(X, 1.0, topk=-1), ValueError, "topk"),
    "topk beyond N": (lambda: _denoiser().posterior(X, 1.0, topk=21), ValueError, "topk"),
    "topk a float": (lambda: _denoiser().posterior(X, 1.0, topk=1.5), TypeError, "topk"),  # type: ignore[arg-type]
    "data NaN": (lambda: OptimalDenoiser(_with(NAN, (3, 1), torch.zeros(5, 4))), ValueError, "data"),
    "data Inf in half": (lambda: OptimalDenoiser(torch.full((5, 4), INF).half()), ValueError, "data"),
    "data -Inf in bfloat16": (lambda: OptimalDenoiser(torch.full((5, 4), -INF).bfloat16()), ValueError, "data"),
    "data NaN, reference": (lambda: OptimalDenoiser(torch.full((5, 4), NAN), backend="reference"), ValueError, "data"),
    "data empty": (lambda: OptimalDenoiser(torch.zeros(0, 4)), ValueError, "data"),
    "data without features": (lambda: OptimalDenoiser(torch.zeros(4, 0)), ValueError, "data"),
    "data one-dimensional": (lambda: OptimalDenoiser(torch.zeros(4)), ValueError, "data"),
    "data float64": (lambda: OptimalDenoiser(torch.zeros(4, 2).double()), TypeError, "data"),
    "data int64": (lambda: OptimalDenoiser(torch.zeros(4, 2).long()), TypeError, "data"),
    "data a set": (lambda: OptimalDenoiser({1.0, 2.0}), TypeError, "data"),
    "data an uneven list": (lambda: OptimalDenoiser([[1.0, 2.0], [3.0]]), ValueError, "data"),
    "data float64 array": (lambda: OptimalDenoiser(np.zeros((4, 2))), TypeError, "data"),
    "data sparse": (lambda: OptimalDenoiser(torch.eye(3).to_sparse()), TypeError, "data"),
    "labels too few": (lambda: _denoiser(labels=torch.zeros(19).long()), ValueError, "labels"),
    "labels negative": (lambda: _denoiser(labels=torch.full((20,), -1)), ValueError, "labels"),
    "labels floating": (lambda: _denoiser(labels=torch.zeros(20)), TypeError, "labels"),
    "class without labels": (lambda: _denoiser()(X, 1.0, torch.tensor([0, 1])), ValueError, "class_labels"),
    "class out of range": (
        lambda: _denoiser(labels=torch.arange(20) % 4)(X, 1.0, torch.tensor([0, 4])),
        ValueError,
        "class_labels",
    ),
    "one-hot too wide": (
        lambda: _denoiser(labels=torch.arange(20) % 4)(X, 1.0, torch.eye(5)[:2]),
        ValueError,
        "class_labels",
    ),
    "two hot": (
        lambda: _denoiser(labels=torch.arange(20) % 4)(X, 1.0, torch.ones(2, 4)),
        ValueError,
        "class_labels",
    ),
    "class a float": (
        lambda: _denoiser(labels=torch.arange(20) % 4)(X, 1.0, torch.tensor([0.0, 1.0])),
        TypeError,
        "class_labels",
    ),
    "log_weights too few": (lambda: _denoiser(log_weights=torch.zeros(3)), ValueError, "log_weights"),
    "log_weights NaN": (lambda: _denoiser(log_weights=torch.full((20,), NAN)), ValueError, "log_weights"),
    "log_weights all -Inf": (lambda: _denoiser(log_weights=torch.full((20,), -INF)), ValueError, "log_weights"),
    "tol zero": (lambda: _denoiser(tol=0), ValueError, "tol"),
    "tol beyond float32": (lambda: _denoiser(tol=1e-9), ValueError, "tol"),
    "tol NaN": (lambda: _denoiser(tol=NAN), ValueError, "tol"),
    "tol a string": (lambda: _denoiser(tol="tight"), TypeError, "tol"),
    "backend unknown": (lambda: _denoiser(backend="gpu"), ValueError, "backend"),
    "sigmas rising": (
        lambda: geodiff.sample(_denoiser(), X, torch.tensor([1.0, 2.0])),
        ValueError,
        "sigmas",
    ),
    "solver unknown": (
        lambda: geodiff.sample(_denoiser(), X, torch.tensor([2.0, 1.0]), solver="rk45"),
        ValueError,
        "solver",
    ),
    "noise NaN": (lambda: geodiff.sample(_denoiser(), X + NAN, torch.tensor([2.0, 1.0])), ValueError, "noise"),
    "isa unknown": (lambda: cpu.use_isa("mmx").__enter__(), ValueError, "GEODIFF_ISA"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str) -> None:
    call, error, name = CASES[case]
    with pytest.raises(error, match=rf"^{name}\b") as caught:
        call()
    assert type(caught.value) in (error, DataError, TypeError, ValueError)
    assert "found" in str(caught.value), "a message says what was found"
    assert "allowed" in str(caught.value), "a message says what is allowed"


def test_a_missing_backend_says_why() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here: no backend is missing for want of one")
    with pytest.raises(BackendUnavailable, match=r"^backend\b.*(no CUDA device|built without CUDA)"):
        _denoiser(backend="cuda")
