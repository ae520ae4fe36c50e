"""Inner products that a trajectory carries: the core beside its twin, state for state, on every instruction set."""

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, reference, sample, schedules
from geodiff.backends import cpu
from geodiff.denoiser.along_trajectory import AlongTrajectory
from geodiff.reference.known_products import DITHERS, Known, carry, dithers
from tests.random_numbers import seeded

N, D = 400, 150  # rows longer than those whose dense pass is in float32
#: Bits of a digit, by instruction set; "portable" has no integer products and carries nothing.
BYTES, WORDS = ("avx512_amx", "avx512_vnni", "avx_vnni", "neon_dotprod", "neon_i8mm"), ("avx2", "avx512", "neon")
BITS = dict.fromkeys(BYTES, 8) | dict.fromkeys(WORDS, 16)
INTEGERS = [isa for isa in cpu.isas() if isa in BITS]
#: Those for which a digit of many queries costs more than coordinates do.
SHAPED = [isa for isa in INTEGERS if isa != "avx512_amx"]
UNIT, SHIFT = 127.5, 0.5  # the core's units, in which bytes are integers


def waves(n: int, d: int) -> Tensor:
    """[n, d] bytes that vary along a few directions, duplicates and near-duplicates among them."""
    random = seeded(0)
    lines = torch.randn(6, d, generator=random).cumsum(1)
    rows = torch.randn(n, 6, generator=random) @ (30 * lines / lines.abs().amax(1, keepdim=True))
    rows = (rows + 8 * torch.randn(n, d, generator=random) + 128).round().clamp(0, 255).to(torch.uint8)
    rows[7] = rows[8]
    rows[9] = rows[10] ^ (torch.arange(d) == 3)
    return rows


@pytest.fixture(scope="module")
def large() -> Tensor:
    return waves(24_000, 1452)  # csrc/cpu/products/shaping.cpp, worth_shaping


def state(walked: AlongTrajectory, q: int) -> tuple[Known | None, int, int]:
    """What the core knows of query q, by how many digits it came, and the number of passes so far."""
    for _, memory in walked._memories._kept.values():
        y, products, digits, passes = memory.products(q)
        known = Known(torch.tensor(y, dtype=torch.float64), torch.tensor(products, dtype=torch.float64))
        return (known if products else None), digits, passes
    return None, 0, 0


def close(found: Tensor, said: Tensor, most: float) -> None:
    torch.testing.assert_close(found, said, rtol=0.0, atol=most)


def check_along(
    denoiser: OptimalDenoiser, stored: Tensor, isa: str, sigmas: Tensor, batch: int, held: range
) -> list[int]:
    """Walks down Euler steps, holding the queries `held` against the twin: how many were rounded up, and to nearest.

    What is left tells which of the two it was: to nearest it is half a unit of the last digit at most.
    """
    v = reference.model_space(stored, torch.float64).flatten(1) * UNIT - SHIFT
    walked, compared, d = AlongTrajectory(denoiser, {}), [0, 0], v.shape[1]
    longest = float(v.norm(dim=1).max())
    x = float(sigmas[0]) * torch.randn(batch, d, generator=seeded(1), dtype=torch.float64)
    x[1] = 0.3
    ups = dithers(d)
    rounded = dict.fromkeys(held, 0.0)  # what digits have lost is kept in float32, by which y and its products differ
    with cpu.use_isa(isa):
        for sigma, following in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
            before = {q: state(walked, q) for q in held}
            r = torch.empty_like(x)
            walked.combine(x, sigma, 1.0, (), r)
            for q in held:
                (was, _, passes), (now, digits, done) = before[q], state(walked, q)
                if done == passes or now is None:
                    assert now is None or was is None or bool((now.y == was.y).all())  # not asked, or interrupted
                    continue
                there = x[q] * UNIT - SHIFT
                least = 1e-12 * float(there.norm())  # of sums in float64, in one order and another
                # Whatever the digits, the products are those of y.
                rounded[q] += 2.0**-24 * float((there - now.y).norm())
                close(now.products, v @ now.y, (10 * least + rounded[q]) * longest)
                if done - passes > 1:  # finer passes have gone on from what a first one left
                    continue
                said = carry(was, there, v, BITS[isa], digits)
                rest = float((there - said.y).abs().max())
                nearest = float((there - now.y).abs().max()) <= 1.01 * rest
                if not nearest:
                    said = carry(was, there, v, BITS[isa], digits, ups)
                # Both lose numbers in float32; another way of rounding one digit would show as a million times as much.
                off = 1e-6 * float((there - said.y).abs().max()) + least
                close(now.y, said.y, off)
                close(now.products, said.products, off * d**0.5 * longest)
                compared[nearest] += 1
            x = torch.lerp(r, x, following / sigma)
    return compared


@pytest.mark.parametrize("isa", INTEGERS)
@pytest.mark.parametrize("tol", [1e-5, 1e-3])
def test_the_core_carries_what_the_twin_does(isa: str, tol: float) -> None:
    stored = waves(N, D)
    denoiser = OptimalDenoiser(stored, tol=tol, backend="cpu")
    assert check_along(denoiser, stored, isa, schedules.karras(12, 2.0, 80.0)[:-1], 9, range(9))[0] >= 40


@pytest.mark.parametrize("isa", [SHAPED[0], SHAPED[-1]] if len(SHAPED) > 1 else SHAPED)
def test_and_where_coordinates_carry_a_part_of_the_rounding(large: Tensor, isa: str) -> None:
    denoiser = OptimalDenoiser(large, backend="cpu").prepare()
    assert check_along(denoiser, large, isa, schedules.karras(4, 20.0, 80.0)[:-1], 20, range(0, 20, 4))[1] >= 4


def test_the_portable_core_carries_nothing() -> None:
    walked = AlongTrajectory(OptimalDenoiser(waves(N, D), backend="cpu"), {})
    with cpu.use_isa("portable"):
        walked.combine(torch.zeros(2, D), 20.0, 1.0, (), torch.empty(2, D))
    assert state(walked, 0) == (None, 0, 0)


def test_nothing_is_lost_from_one_evaluation_to_the_next() -> None:
    """The twin alone: a digit of each query, and products of y stay exact; y stays a digit's unit from x."""
    data = torch.randn(30, 12, generator=seeded(2), dtype=torch.float64)
    x = 50 * torch.randn(12, generator=seeded(3), dtype=torch.float64)
    known: Known | None = None
    for _ in range(40):
        known = carry(known, x, data, 8, 1)
        close(known.products, data @ known.y, 1e-5 * float((x - known.y).norm() * data.norm(dim=1).max()))  # of float32
        assert float((x - known.y).norm()) < 1e-2 * float(x.norm())
        x = 0.9 * x + 0.1 * data[3]


def test_the_table_of_random_numbers_is_uniform_and_repeats() -> None:
    table = dithers(DITHERS + 5)
    assert float(table.min()) >= 0
    assert float(table.max()) < 1
    assert abs(float(table[:DITHERS].mean()) - 0.5) < 0.02
    assert bool((table[DITHERS:] == table[:5]).all())


@pytest.mark.parametrize("batch", [3, 20])
def test_lists_of_what_is_known_keep_the_contract_and_the_bits(large: Tensor, batch: int) -> None:
    sigmas = schedules.karras(16, 0.002, 80.0)
    noise = 80.0 * torch.randn(batch, large.shape[1], generator=seeded(3))
    fresh, ready = (OptimalDenoiser(large, tol=1e-3, backend="cpu") for _ in range(2))
    ready(large[:20].double() / 127.5 - 1, 40.0)  # makes coordinates
    found, again = sample(fresh, noise, sigmas), sample(ready, noise, sigmas)
    assert torch.equal(found.states, again.states)  # whether there were coordinates before or not
    checked = sample(ready, noise, sigmas, verify=True)
    assert [cost.paths for cost in checked.cost] == [cost.paths for cost in again.cost]
    # Lists that serve no longer than an evaluation are not made for ever.
    assert all(cost.paths == {"remembered": batch} for cost in found.cost[-8:])


@pytest.mark.parametrize("tol", [1e-5, 1e-3])
def test_few_samples_make_lists_where_coordinates_were_prepared(large: Tensor, tol: float) -> None:
    sigmas = schedules.karras(16, 0.002, 80.0)
    noise = 80.0 * torch.randn(2, large.shape[1], generator=seeded(3))
    plain = sample(OptimalDenoiser(large, tol=tol, backend="cpu"), noise, sigmas)
    found = sample(OptimalDenoiser(large, tol=tol, backend="cpu").prepare(), noise, sigmas, verify=True)
    assert sum(cost.rows for cost in found.cost) < sum(cost.rows for cost in plain.cost)


def uneven(n: int, side: int) -> Tensor:
    """[n, 3, side, side] bytes with the spectrum of photographs, each of a contrast and brightness of its own."""
    random = seeded(0)
    along = torch.fft.fftfreq(side)
    frequency = (along[:, None] ** 2 + along**2).sqrt()
    frequency[0, 0] = 1 / side
    noise = torch.fft.fft2(torch.randn(n, 3, side, side, generator=random))
    images = torch.fft.ifft2(noise * frequency**-1.5).real
    contrast = 60 * torch.rand(n, 1, 1, 1, generator=random) ** 0.7 + 5
    brightness = 127.5 + 50 * torch.randn(n, 1, 1, 1, generator=random)
    images = images / images.std((1, 2, 3), keepdim=True) * contrast + brightness
    return images.round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("isa", INTEGERS)
def test_a_guess_of_bits_that_failed_is_mended_for_the_next_evaluation(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEODIFF_ISA", isa)
    data, batch = uneven(8_000, 16), 16
    noise = 80.0 * torch.randn(batch, 3, 16, 16, generator=seeded(1))
    torch.set_num_threads(1)  # each would read the rows for its own queries; the root conftest puts it back
    found = sample(OptimalDenoiser(data, backend="cpu"), noise, schedules.karras(18, 0.002, 80.0), "heun", "end")
    dense = [cost for cost in found.cost if cost.paths == {"dense": batch}]
    again = [cost.sigma for cost in dense if cost.rows > len(data)]
    assert len(dense) > 15
    assert len(again) <= 2, again  # 5 where each evaluation guesses anew
