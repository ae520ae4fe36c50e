"""Rows that lie close together beside their length, or come sorted: differences and sums that large numbers enter."""

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser
from geodiff.backends import cpu
from tests.random_numbers import seeded


def model(data: Tensor) -> Tensor:
    return data.double() / 127.5 - 1 if data.dtype == torch.uint8 else data.double()


def weights(x: Tensor, rows: Tensor, sigma: float) -> Tensor:
    """w [B, N], from distances in difference form."""
    return torch.stack([-(rows - y).square().sum(1) / (2 * sigma**2) for y in x.double()]).softmax(1)


def pairs(dtype: torch.dtype) -> tuple[Tensor, float]:
    """Many rows near two, and a sigma that tells hardly one of them from another."""
    if dtype == torch.uint8:
        two = torch.randint(0, 256, (2, 784), generator=seeded(0))
        flips = torch.rand(400, 784, generator=seeded(1)) < 0.002
        changed = two.repeat(200, 1) + flips * torch.randint(-1, 2, (400, 784), generator=seeded(2))
        return changed.clamp(0, 255).to(torch.uint8), 0.01
    two = torch.rand(2, 129, generator=seeded(0)) * 2 - 1
    return (two.repeat(200, 1) + 1e-3 * torch.randn(400, 129, generator=seeded(1))).to(dtype), 3e-3


def far_from_zero(dtype: torch.dtype) -> tuple[Tensor, float]:
    return (290 + torch.randn(2000, 64, generator=seeded(3))).to(dtype), 3.0


@pytest.mark.parametrize(
    ("made", "dtype"),
    [(pairs, torch.float32), (pairs, torch.float16), (pairs, torch.uint8), (far_from_zero, torch.float32)],
)
@pytest.mark.parametrize("isa", cpu.isas())
def test_derivatives_of_rows_that_lie_close_together(isa: str, made: object, dtype: torch.dtype) -> None:
    data, sigma = made(dtype)  # type: ignore[operator]
    rows = model(data)
    at = rows[torch.randint(len(rows), (6,), generator=seeded(4))]
    x = (at + sigma * torch.randn(at.shape, generator=seeded(5), dtype=torch.float64)).float()
    v = torch.randn(x.shape, generator=seeded(6))
    w = weights(x, rows, sigma)
    r = w @ rows
    exact, trace = torch.empty_like(r), torch.empty(len(r), dtype=torch.float64)
    for b in range(len(r)):
        away = rows - r[b]
        exact[b] = (w[b] * (away @ v[b].double())) @ away / sigma**2
        trace[b] = w[b] @ away.square().sum(1)
    with cpu.use_isa(isa):
        denoiser = OptimalDenoiser(data, backend="cpu")
        asked = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(denoiser(asked, sigma), asked, v)
        divergence = denoiser.divergence(x, sigma).double()
    off = (found.double() - exact).norm(dim=1)
    assert (off <= 1e-4 * exact.norm(dim=1) + 1e-6 * v.norm(dim=1)).all()
    torch.testing.assert_close(divergence, trace / sigma**2, rtol=1e-4, atol=1e-6 * x.shape[1])


def test_no_trace_where_all_rows_are_the_same() -> None:
    row = torch.randn(1, 64, generator=seeded(7)).half()
    x = row.double() + 1.4e-3 * torch.randn(5, 64, generator=seeded(8), dtype=torch.float64)
    posterior = OptimalDenoiser(row.repeat(400, 1), backend="cpu").posterior(x, 1.4e-3)
    assert posterior.trace is not None
    assert (posterior.trace <= 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("isa", cpu.isas())
def test_sums_of_sorted_rows_that_cancel_in_the_end(isa: str, dtype: torch.dtype) -> None:
    """Float32 rounds what is there on the way, which is far longer than what is left."""
    n, d, sigma = 200_000, 64, 100.0
    if dtype == torch.uint8:
        first = torch.randint(240, 256, (n // 2, d), generator=seeded(9))
        data = torch.cat([first, 255 - torch.randint(240, 256, (n // 2, d), generator=seeded(10))]).to(torch.uint8)
    else:
        centre = torch.randn(d, generator=seeded(9))
        centre /= centre.norm() / 50
        noise = 0.01 * torch.randn(n, d, generator=seeded(10))
        data = (torch.cat([centre.expand(n // 2, d), -centre.expand(n // 2, d)]) + noise).to(dtype)
    rows, x = model(data), 0.1 * torch.randn(3, d, generator=seeded(11), dtype=torch.float64)
    exact = weights(x, rows, sigma) @ rows
    with cpu.use_isa(isa):
        found = OptimalDenoiser(data, backend="cpu")(x, sigma)
    scale = exact.norm(dim=1).clamp(min=0.01 * float(rows.norm(dim=1).max()))
    assert ((found - exact).norm(dim=1) <= 1e-5 * scale).all()


@pytest.mark.parametrize("isa", cpu.isas())
def test_sums_of_columns_that_hold_few_values(isa: str) -> None:
    """Each tile adds nearly the same, which rounds to one side."""
    data = torch.randint(250, 256, (1_000_000, 8), generator=seeded(12), dtype=torch.uint8)
    rows, x = model(data), 1 + 900 * torch.randn(2, 8, generator=seeded(13), dtype=torch.float64)
    exact = weights(x, rows, 900.0) @ rows
    with cpu.use_isa(isa):
        found = OptimalDenoiser(data, backend="cpu")(x, 900.0)
    assert ((found - exact).norm(dim=1) <= 1e-6 * exact.norm(dim=1)).all()  # a tenth of what is promised


@pytest.mark.parametrize("away", [80.0, 1e3, 1e5])
def test_weights_and_shares_of_copies_far_away(away: float) -> None:
    """log p is large there, and what it is rounded to lies far apart."""
    row = torch.randint(0, 256, (20, 1, 8, 8), generator=seeded(14), dtype=torch.uint8)
    x = away * torch.randn(4, 1, 8, 8, generator=seeded(15), dtype=torch.float64)
    found = OptimalDenoiser(row.repeat(3, 1, 1, 1), backend="cpu").posterior(x, 1e-3, topk=3)
    torch.testing.assert_close(found.weights, torch.full_like(found.weights, 1 / 3), rtol=1e-12, atol=0)
    both = torch.cat([row, row.flip(-1)])
    once, twice = OptimalDenoiser(both, backend="cpu"), OptimalDenoiser(both, backend="cpu", augment="hflip")
    exact = once(x, 1e-3)
    assert float((twice(x, 1e-3) - exact).norm() / exact.norm()) < 1e-10
    assert float(twice.divergence(x, 1e-3).abs().max()) < 1e-6
