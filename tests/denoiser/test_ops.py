"""The separate steps against plain float64 arithmetic, on every instruction set and in the reference."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from geodiff import backends, ops, reference
from geodiff.backends import cpu
from geodiff.backends.plain import PlainEngine

DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32]


@pytest.fixture(params=["reference", *cpu.isas()])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each instruction set, and the torch twin in its place."""
    if request.param == "reference":
        monkeypatch.setattr(backends, "open_engine", lambda _, rows: PlainEngine(rows))
        yield "reference"
        return
    with cpu.use_isa(request.param):
        yield request.param


def _data(n: int, d: int, dtype: torch.dtype) -> Tensor:
    levels = torch.randint(0, 256, (n, d), dtype=torch.uint8, generator=torch.Generator().manual_seed(n + d))
    return levels if dtype == torch.uint8 else (levels / 127.5 - 1).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d", "batch"), [(1, 1, 1), (257, 65, 7), (1100, 193, 70), (40, 1025, 3), (9, 70_000, 2)])
def test_inner_products(where: str, n: int, d: int, batch: int, dtype: torch.dtype) -> None:
    data = _data(n, d, dtype)
    x = 30 * torch.randn(batch, d, dtype=torch.float64)
    points = reference.model_space(data, torch.float64)
    allowed = 1e-8 * x.norm(dim=1)[:, None] * points.norm(dim=1)
    assert ((ops.inner_products(x, data) - x @ points.T).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0, 300.0])
def test_weighted_mean(where: str, spread: float, dtype: torch.dtype) -> None:
    data = _data(1500, 130, dtype)
    logits = spread * torch.randn(13, 1500, dtype=torch.float64)
    logits[:, ::5] = -torch.inf
    points = reference.model_space(data, torch.float64)
    exact = logits.softmax(1) @ points
    scale = exact.norm(dim=1).clamp_min(0.01 * points.norm(dim=1).max())
    assert ((ops.weighted_mean(logits, data) - exact).norm(dim=1) <= 1e-5 * scale).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_refine(where: str, dtype: torch.dtype) -> None:
    data = _data(300, 77, dtype)
    points = reference.model_space(data, torch.float64)
    candidates = torch.randint(-1, 300, (6, 11))
    x = points[:6] + 1e-9 * torch.randn(6, 77, dtype=torch.float64)
    candidates[:, 0] = torch.arange(6)  # nearly no distance: all but the difference form would lose it
    exact = (x[:, None] - points[candidates]).square().sum(2)
    exact[candidates < 0] = torch.inf
    torch.testing.assert_close(ops.refine(x, data, candidates), exact, rtol=1e-6, atol=0)


def test_the_steps_make_the_whole() -> None:
    data = _data(900, 100, torch.uint8)
    x, sigma = torch.randn(5, 100, dtype=torch.float64), 2.5
    half_norms = reference.model_space(data, torch.float64).square().sum(1) / 2
    logits = (ops.inner_products(x, data) - half_norms) / sigma**2
    exact = reference.denoise(x, data, sigma)
    assert ((ops.weighted_mean(logits, data) - exact).norm(dim=1) <= 1e-5 * exact.norm(dim=1)).all()


def test_images_keep_their_shape_and_changed_data_are_seen() -> None:
    data = _data(20, 48, torch.uint8).reshape(20, 4, 4, 3).permute(0, 3, 1, 2)
    x = torch.randn(2, 3, 4, 4)
    before = ops.inner_products(x, data)
    assert ops.weighted_mean(before, data).shape == (2, 3, 4, 4)
    torch.testing.assert_close(before, x.flatten(1) @ reference.model_space(data, torch.float32).flatten(1).T)
    data[3] = 255
    assert ops.inner_products(x, data)[0, 3] == pytest.approx(x[0].sum().item(), abs=1e-4)


def test_answers_that_a_dtype_does_not_hold_are_refused_by_name() -> None:
    x, large = torch.full((1, 300), 80.0).half(), torch.full((2, 300), 5e5)
    with pytest.raises(ValueError, match=r"^x: expected a dtype that holds the answer, found torch.float16"):
        ops.inner_products(x, large)
    with pytest.raises(ValueError, match=r"^logits: expected a dtype that holds the answer"):
        ops.weighted_mean(torch.zeros(1, 2).half(), large)
    assert ops.inner_products(x.float(), large).isfinite().all()
    assert ops.inner_products(x[:0], large).shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda d: ops.inner_products(torch.zeros(2, 5), d), ValueError, "x"),
        (lambda d: ops.weighted_mean(torch.zeros(2, 5), d), ValueError, "logits"),
        (lambda d: ops.weighted_mean(torch.full((2, 20), float("nan")), d), ValueError, "logits"),
        (lambda d: ops.weighted_mean(torch.full((2, 20), -torch.inf), d), ValueError, "logits"),
        (lambda d: ops.refine(torch.zeros(2, 4), d, torch.zeros(3, 1).long()), ValueError, "candidates"),
        (lambda d: ops.refine(torch.zeros(2, 4), d, torch.full((2, 1), 20)), ValueError, "candidates"),
        (lambda d: ops.refine(torch.zeros(2, 4), d, torch.zeros(2, 1)), TypeError, "candidates"),
    ],
)
def test_bad_input(call: object, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=rf"^{name}: "):
        call(_data(20, 4, torch.uint8))  # type: ignore[operator]
