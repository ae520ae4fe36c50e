"""Evaluations that remember: no certificate lies, and whatever moves the states, answers keep contract 1."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser, reference, sample, schedules
from geodiff.backends.query import Query
from geodiff.denoiser.along_trajectory import AlongTrajectory
from geodiff.denoiser.trajectory_memory import Memories
from geodiff.reference import remembering
from geodiff.solvers import SOLVERS
from tests.random_numbers import seeded

TOL = 1e-5


def cut_of(data: Tensor, tol: float) -> float:
    """What csrc/common/contract.h has for it, and no less than keeps the weight of all other rows below tol."""
    radius, least = float((data - data.mean(0)).norm(dim=1).max()), 0.01 * float(data.norm(dim=1).max())
    least_of_weight = len(data) / tol
    return math.log(max(least_of_weight, len(data) * 2 * max(radius, 1e-300) * 50 / (tol * max(least, 1e-300))))


# ---- the twin, on small problems of every kind ----


def small_problem(seed: int) -> tuple[Tensor, Tensor | None]:
    """Points [N, d] float64, duplicates and near-duplicates among them, and log priors or None."""
    random = seeded(seed)
    n, d = (int(torch.randint(1, most, (), generator=random)) for most in (31, 9))
    data = torch.randn(n, d, generator=random, dtype=torch.float64)
    pick = torch.randint(0, n, (n,), generator=random)
    near = 10 ** (-1 - 6 * torch.rand(n, 1, generator=random, dtype=torch.float64))
    close = torch.rand(n, generator=random) < 0.3
    data[close] = (data[pick] + near * torch.randn(n, d, generator=random, dtype=torch.float64))[close]
    same = torch.rand(n, generator=random) < 0.1
    data[same] = data[pick][same]
    if seed % 3:
        return data, None
    prior = 4 * torch.randn(n, generator=random, dtype=torch.float64)
    return data, (prior - prior.logsumexp(0))


def holds(anchor: remembering.Anchor, outside: Tensor, data: Tensor, prior: Tensor | None) -> bool:
    """Whether all rows outside that are seen lie where the anchor says."""
    far = (anchor.x - data).square().sum(1) / 2 - (0 if prior is None else anchor.sigma**2 * prior)
    return not bool(outside.any()) or float(far[outside].min()) >= anchor.floor - 1e-9 * abs(anchor.floor)


def check_small_problem(seed: int) -> int:
    """Walks down a random schedule by a random solver on what the twin remembers; returns how often it sufficed."""
    data, prior = small_problem(seed)
    random = seeded(seed + 2**40)
    cut, remembered = cut_of(data, TOL), 0
    solver = list(SOLVERS)[seed % len(SOLVERS)]
    steps = 3 + seed % 20
    sigmas = schedules.karras(steps, 10 ** float(-3 + 2 * torch.rand((), generator=random)), 10.0, 1.0 + seed % 8)
    anchors: list[remembering.Anchor | None] = [None]

    def ask(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal remembered
        at, level = x[0].clone(), float(sigma)
        logits = remembering.logits_of(at, level, data, prior)
        exact = logits.softmax(0) @ data
        known = anchors[0] and remembering.recall(anchors[0], at, level, data, prior, cut)
        if known is None:
            anchors[0] = remembering.keep(at, level, logits, cut * (1 + seed % 4))
            return exact[None]
        r, anchors[0] = known
        remembered += 1
        outside = torch.ones(len(data), dtype=torch.bool)
        outside[anchors[0].rows] = False
        weights = logits.softmax(0)
        assert float(weights[outside].sum()) <= TOL, seed  # none was declared out that carries weight
        assert holds(anchors[0], outside, data, prior), seed
        allowed = TOL * max(float(exact.norm()), 0.01 * float(data.norm(dim=1).max()))
        assert float((r - exact).norm()) <= allowed, seed
        return r[None]

    start = 10 * torch.randn(1, data.shape[1], generator=random, dtype=torch.float64)
    jolt = seed % 5 == 0

    def disturb(step: int, sigma: float, x: Tensor, r: Tensor) -> None:
        if jolt and step % 3 == 2:
            x += 0.3 * sigma * torch.randn(x.shape, generator=random, dtype=torch.float64)

    sample(ask, start, sigmas, solver, callback=disturb)
    return remembered


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31))
def test_no_certificate_lies_on_small_problems(seed: int) -> None:
    check_small_problem(seed)


def test_certificates_are_had_on_small_problems() -> None:
    assert sum(check_small_problem(seed) for seed in range(40)) > 100


@pytest.mark.heavy
def test_no_certificate_lies_on_100000_small_problems() -> None:
    assert sum(check_small_problem(seed) for seed in range(100_000)) > 250_000


# ---- the core beside the twin, state for state ----


def points(dtype: torch.dtype, n: int = 300) -> Tensor:
    """[n, 64] points in 40 clusters, some twice, some nearly."""
    random = seeded(0)
    centres = torch.randn(40, 64, generator=random)
    data = centres[torch.randint(0, 40, (n,), generator=random)]
    data = data + 10 ** (-1 - 5 * torch.rand(n, 1, generator=random)) * torch.randn(n, 64, generator=random)
    data[7] = data[8]
    data = data / data.abs().max()
    return (127.5 * (data + 1)).round().to(torch.uint8) if dtype == torch.uint8 else data.to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("with_prior", [False, True])
def test_the_core_remembers_what_the_twin_does(dtype: torch.dtype, with_prior: bool) -> None:
    stored = points(dtype)
    log_weights = 3 * torch.randn(300, generator=seeded(5)) if with_prior else None
    denoiser = OptimalDenoiser(stored, log_weights=log_weights, backend="cpu")
    prior = None if log_weights is None else log_weights.double().log_softmax(0)
    # In the core's units, in which distances of bytes are of integers.
    unit, shift = (127.5, 0.5) if dtype == torch.uint8 else (1.0, 0.0)
    data = reference.model_space(stored, torch.float64) * unit - shift
    cut = cut_of(reference.model_space(stored, torch.float64), TOL)
    walked = AlongTrajectory(denoiser, {})
    x = 3.0 * torch.randn(6, 64, generator=seeded(1), dtype=torch.float64)
    recalled = 0
    for sigma, following in zip(*[schedules.karras(24, 0.002, 3.0).tolist()[k : k + 24] for k in (0, 1)], strict=True):
        before = [known(walked, q) for q in range(6)]
        r = torch.empty_like(x)
        cost = walked.combine(x, sigma, 1.0, (), r)
        recalled += cost.paths.get("remembered", 0)
        for q in range(6):
            there, after = x[q] * unit - shift, known(walked, q)
            if after is None:
                continue
            outside = torch.ones(300, dtype=torch.bool)
            outside[after.rows] = False
            assert holds(after, outside, data, prior)
            said = before[q] and remembering.recall(before[q], there, sigma * unit, data, prior, cut)
            if said and len(after.rows) <= len(before[q].rows) and bool((after.x == there).all()):
                assert after.rows.tolist() == said[1].rows.tolist()
                torch.testing.assert_close(after.floor, said[1].floor, rtol=1e-6, atol=0.0)
        x = torch.lerp(r, x, following / sigma)
    assert recalled > 60


def known(walked: AlongTrajectory, q: int) -> remembering.Anchor | None:
    """What the core knows of a query, as the twin has it."""
    for _, memory in walked._memories._kept.values():
        rows, x, sigma, floor = memory.known(q)  # type: ignore[attr-defined]
        if rows:
            return remembering.Anchor(torch.tensor(rows), torch.tensor(x, dtype=torch.float64), sigma, floor)
    return None


# ---- trajectories ----

SIGMAS = schedules.karras(14, 0.002, 20.0)


def start(denoiser: OptimalDenoiser, batch: int = 5) -> Tensor:
    return 20 * torch.randn(batch, *denoiser.shape, generator=seeded(3))


def remembered(trajectory: geodiff.Trajectory) -> int:
    return sum(cost.paths.get("remembered", 0) for cost in trajectory.cost)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("tol", [1e-5, 1e-3])
def test_every_solver_keeps_the_contract(solver: str, tol: float) -> None:
    denoiser = OptimalDenoiser(points(torch.uint8), tol=tol, backend="cpu")
    found = sample(denoiser, start(denoiser), SIGMAS, solver, verify=True)
    assert remembered(found) > 10
    if solver not in ("ipndm3", "ipndm4"):  # which on these levels extrapolate beyond the data
        assert found.cost[-1].rows < 50


def two(d: int = 9000) -> Tensor:
    return torch.randn(2, d, generator=seeded(4))


def not_apart() -> Tensor:
    """Points that lie within sigma_min of each other."""
    return 1 + 1e-4 * torch.randn(400, 50, generator=seeded(5))


@pytest.mark.parametrize(
    "made",
    [
        {"data": two()},
        {"data": two()[[0, 1, 1]]},
        {"data": not_apart()},
        {"data": points(torch.float16)},
        {"data": points(torch.float32), "labels": torch.arange(300) % 2},
        {"data": points(torch.uint8), "log_weights": 5 * torch.randn(300, generator=seeded(6))},
        {"data": points(torch.uint8), "log_weights": torch.where(torch.arange(300) % 3 == 0, -torch.inf, -9.0)},
        {"data": points(torch.uint8), "log_weights": -300.0 * (torch.arange(300) % 2)},
        {"data": points(torch.uint8).reshape(300, 1, 8, 8), "augment": "hflip"},
        {"data": points(torch.uint8).reshape(300, 8, 4, 2).permute(0, 3, 1, 2)},
    ],
)
def test_data_of_all_kinds(made: dict[str, Any]) -> None:
    denoiser = OptimalDenoiser(backend="cpu", **made)
    for noise in (start(denoiser), start(denoiser).double()):
        for keep in ("all", "end"):
            sample(denoiser, noise, SIGMAS, "heun", keep, verify=True)


@pytest.mark.parametrize(
    "conditions",
    [
        {"class_labels": torch.tensor([0, 1, 1, 0, 1])},
        {"class_labels": torch.tensor([1, 1, 1, 1, 1])},
        {"exclude": torch.tensor([8, -1, 3, 250, 7])},
        {"mask": torch.rand(5, 800, generator=seeded(7)) < 0.5},
    ],
)
def test_conditions(conditions: dict[str, Tensor]) -> None:
    denoiser = OptimalDenoiser(points(torch.uint8, 800), labels=torch.arange(800) % 2, backend="cpu")
    found = sample(denoiser, start(denoiser), SIGMAS, conditions=conditions, verify=True)
    assert remembered(found) > 10
    held = {name: value.clone() for name, value in conditions.items()}

    def spoil(*_: object) -> None:
        for value in held.values():
            value.zero_()

    again = sample(denoiser, start(denoiser), SIGMAS, conditions=held, callback=spoil)
    torch.testing.assert_close(again.states, found.states, rtol=1e-4, atol=1e-4)  # taken as they were at the start


def test_states_that_a_callback_changes_and_data_that_change() -> None:
    stored = points(torch.uint8)
    denoiser = OptimalDenoiser(stored, backend="cpu")
    random = seeded(8)

    def jolt(step: int, sigma: float, x: Tensor, r: Tensor) -> None:
        if step % 3 == 1:
            x[step % 5] += 3 * sigma * torch.randn(x.shape[1:], generator=random)
        if step % 4 == 2:
            r[0] = r[1]
            x[2] = x[3]

    assert remembered(sample(denoiser, start(denoiser), SIGMAS, callback=jolt, verify=True)) > 5

    def replaced(step: int, *_: object) -> None:
        if step == 11:
            stored.copy_(255 - stored)

    found = sample(denoiser, start(denoiser), SIGMAS, callback=replaced, verify=True)
    assert remembered(found) > 5


def test_paths_and_steps_of_ones_own() -> None:
    denoiser = OptimalDenoiser(points(torch.uint8), backend="cpu")
    times = geodiff.paths.times(20)
    assert remembered(sample(denoiser, start(denoiser) / 20, times, path=geodiff.paths.LINEAR, verify=True)) > 5

    def wild(ask: Callable[..., Tensor], at: Any, sigma_next: float, history: Any = ()) -> Tensor:
        with torch.enable_grad():
            x = at.x.clone().requires_grad_()
            ask(x, at.sigma).square().sum().backward()  # an answer that autograd follows
        return torch.lerp(at.denoised, at.x, sigma_next / at.sigma) - 1e-3 * sigma_next * x.grad

    assert remembered(sample(denoiser, start(denoiser), SIGMAS, wild, verify=True)) > 5


def test_what_is_remembered_is_of_one_engine() -> None:
    denoiser = OptimalDenoiser(points(torch.float32), backend="cpu")
    engine = denoiser._points.engines.serving()
    query = Query(torch.zeros(3, 64), torch.ones(3, dtype=torch.float64), range(300))
    memories = Memories()
    first = memories.of(engine, query)
    assert memories.of(engine, query) is first
    assert memories.of(engine, query.picked(torch.tensor([0]))) is not first
    denoiser.data.add_(0)
    assert memories.of(denoiser._points.engines.serving(), query) is not first
