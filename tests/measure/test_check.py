"""The check of the accuracy contract: that every backend passes it, and that it sees what it has to see."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from geodiff import backends, reference
from geodiff.backends import cpu
from geodiff.base.posterior import Posterior
from geodiff.data import load
from geodiff.measure import check

DIGITS = load("digits")
SMALL = check.subset(DIGITS, 40)


KERNELS = [name for name in backends.available() if backends.is_available(name) and name != "reference"]


@pytest.mark.parametrize("backend", KERNELS)
def test_every_kernel_keeps_the_contract_on_digits(backend: str) -> None:
    rows = check.run(DIGITS, backends=[backend])
    assert {row.sigma for row in rows} == set(check.SIGMAS)
    broken = [row for row in rows if not row.ok]
    assert not broken, f"{len(broken)} of {len(rows)} cells, the worst {max(broken, key=lambda row: row.error)}"


def test_grid_covers_every_backend_isa_dtype_sigma_batch_and_size() -> None:
    calls: list[tuple[int, int]] = []
    sigmas = (0.1, 10.0)
    rows = check.run(SMALL, sigmas=sigmas, progress=lambda done, total: calls.append((done, total)))
    names = [name for name in backends.available() if backends.is_available(name)]
    variants = {(name, isa) for name in names for isa in (cpu.isas() if name == "cpu" else [""])}
    assert {(row.backend, row.isa) for row in rows} == variants
    assert {row.dtype for row in rows} == {"uint8", "float16", "bfloat16", "float32"}
    assert {row.B for row in rows} == {1, 7, 64}
    twins = 2 * check.TWINS
    assert {(row.N, row.d) for row in rows} == {(40 + twins, 64), (1 + twins, 64), (17 + twins, 33), (40 + twins, 1)}
    assert len(rows) == len(variants) * 4 * 4 * len(sigmas) * 3
    assert calls == [(done, len(rows) // 3) for done in range(1, len(rows) // 3 + 1)]


def too_long(exact: Posterior, data: Tensor) -> Posterior:
    return replace(exact, mean=exact.mean * (1 + 2e-5))


def too_likely(exact: Posterior, data: Tensor) -> Posterior:
    return replace(exact, log_prob=exact.log_prob + 2e-3 + 2e-6 * exact.log_prob.abs())


def one_nan(exact: Posterior, data: Tensor) -> Posterior:
    mean = exact.mean.clone()
    mean[-1, -1] = torch.nan
    return replace(exact, mean=mean)


def nearest_point_only(exact: Posterior, data: Tensor) -> Posterior:
    return replace(exact, mean=reference.model_space(data, torch.float64)[exact.indices[:, 0]])


def nothing(exact: Posterior, data: Tensor) -> Posterior:
    return exact


@pytest.mark.parametrize("spoil", [too_long, too_likely, one_nan, nearest_point_only, nothing])
def test_a_broken_answer_is_seen(monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., Posterior]) -> None:
    class Denoiser:
        def __init__(self, data: Tensor, **_: object) -> None:
            self.data = data

        def posterior(self, x: Tensor, sigma: float) -> Posterior:
            return spoil(reference.posterior(x.double(), self.data, sigma, topk=1), self.data)

        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            return self.posterior(x, sigma).mean

    monkeypatch.setattr(check.job, "denoiser_over", Denoiser)
    rows = check.run(SMALL, backends=["reference"], sigmas=(0.01,), batches=(7,), dtypes=(torch.uint8,))
    assert len(rows) == 4  # one per size
    assert [row.ok for row in rows] == [spoil is nothing] * 4


def test_twins_are_exact_or_one_level_apart() -> None:
    points = SMALL.data.flatten(1)
    joined = check._with_twins(points, torch.Generator().manual_seed(0)).int()
    near, exact = joined[len(points) : -check.TWINS], joined[-check.TWINS :]
    apart = (near[:, None] - points.int()).abs().sum(2).amin(1)
    assert apart.tolist() == [1] * check.TWINS
    assert (exact[:, None] == points.int()).all(2).any(1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_near_duplicates_stay_apart_in_every_storage_dtype(dtype: torch.dtype) -> None:
    joined = check._stored_as(check._with_twins(SMALL.data.flatten(1), torch.Generator().manual_seed(0)), dtype)
    near = joined[len(SMALL) : -check.TWINS]
    assert not (near[:, None] == joined[: len(SMALL)]).all(2).any()


def test_uint8_storage_is_left_out_for_data_that_are_no_pixels() -> None:
    data = replace(SMALL, data=3 * torch.randn(20, 5))
    rows = check.run(data, backends=["reference"], sigmas=(1.0,), batches=(1,))
    assert {row.dtype for row in rows} == {"float16", "bfloat16", "float32"}


def test_subset_is_named_repeatable_and_keeps_labels_with_their_points() -> None:
    part = check.subset(DIGITS, 100, seed=3)
    assert part.name == "digits (a random 100 of 1,797 points)"
    assert torch.equal(part.data, check.subset(DIGITS, 100, seed=3).data)
    assert not torch.equal(part.data, check.subset(DIGITS, 100, seed=4).data)
    where = (part.data[0] == DIGITS.data).flatten(1).all(1).nonzero()[0]
    assert part.labels is not None
    assert DIGITS.labels is not None
    assert part.labels[0] == DIGITS.labels[where]
    assert check.subset(DIGITS) is DIGITS
    with pytest.raises(ValueError, match="limit: found 0"):
        check.subset(DIGITS, 0)
