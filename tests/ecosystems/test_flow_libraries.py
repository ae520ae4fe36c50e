"""torchcfm and flow_matching: what they train towards, their schedulers, and their ways of solving."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser, adapters, paths
from geodiff.paths import Path


def solver_of(velocity: torch.nn.Module) -> Any:
    from flow_matching.solver import ODESolver

    return ODESolver(velocity_model=velocity)


@pytest.mark.parametrize(("method", "steps"), [("euler", 100), ("midpoint", 20)])
def test_flow_matching_ends_where_sample_ends(
    method: str, steps: int, flow_matching: ModuleType, digits: OptimalDenoiser, noise: Tensor
) -> None:
    solver = solver_of(adapters.FlowModel(digits, "B"))
    theirs = solver.sample(noise, step_size=1 / steps, method=method)
    times = paths.times(steps, convention="B")
    ours = geodiff.sample(digits, noise, times, method, path=paths.Linear("B")).states[-1]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)


def test_flow_matchings_grid_of_edm(flow_matching: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    """t_j = 1 / (1 + sigma_j) on Karras' levels, then 1: the times of the path at those levels."""
    sigmas = geodiff.schedules.karras(18)
    grid = 1 / (1 + sigmas)
    torch.testing.assert_close(paths.Linear("B").time(sigmas), grid)
    theirs = solver_of(adapters.FlowModel(digits, "B")).sample(
        noise.double(), step_size=None, method="euler", time_grid=grid
    )
    ours = geodiff.sample(digits, noise.double(), grid, "euler", path=paths.Linear("B")).states[-1]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)


def test_adaptive_steps_ask_at_the_very_end(flow_matching: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    found = solver_of(adapters.FlowModel(digits, "B")).sample(noise[:8], step_size=None, method="dopri5")
    assert (found - digits(found, 0.01)).abs().max() < 1e-2


SCHEDULERS: list[tuple[str, tuple[Any, ...], Path]] = [
    ("CondOTScheduler", (), paths.Linear("B")),
    ("PolynomialConvexScheduler", (3,), paths.Polynomial("B", 3)),
    ("VPScheduler", (), paths.VP("B")),
    ("LinearVPScheduler", (), paths.LinearVP("B")),
    ("CosineScheduler", (), paths.Cosine("B")),
]


@pytest.mark.parametrize(("name", "options", "path"), SCHEDULERS)
def test_paths_are_the_schedulers_of_flow_matching(
    name: str, options: tuple[Any, ...], path: Path, flow_matching: ModuleType
) -> None:
    t = torch.tensor([0.05, 0.3, 0.5, 0.9], dtype=torch.float64)
    theirs, ours = getattr(flow_matching, name)(*options)(t), path.at(t)
    for found, expected in zip(ours, (theirs.alpha_t, theirs.sigma_t, theirs.d_alpha_t, theirs.d_sigma_t), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "options", "path"), SCHEDULERS[1:])
def test_a_change_of_path_is_the_same_flow(
    name: str, options: tuple[Any, ...], path: Path, flow_matching: ModuleType, digits: OptimalDenoiser, noise: Tensor
) -> None:
    """Their rule that turns a velocity of one path into that of another, against our velocity of the other."""
    turned = flow_matching.ScheduleTransformedModel(
        adapters.FlowModel(digits, "B"), flow_matching.CondOTScheduler(), getattr(flow_matching, name)(*options)
    )
    t = torch.tensor(0.4, dtype=torch.float64)
    x = noise[:8].double()
    found = adapters.FlowModel(digits, "B", path=path)(x, t)
    torch.testing.assert_close(found, turned(x=x, t=t), rtol=1e-4, atol=1e-4)


def test_likelihood_through_their_solver(flow_matching: ModuleType) -> None:
    """Their exact divergence differentiates the velocity: of one point, x_1 is N(point, sigma_min^2 I) on this path."""
    one = OptimalDenoiser(torch.tensor([[0.3, -0.2]]), backend="reference")
    x = torch.tensor([[0.31, -0.2], [0.28, -0.19]])

    def standard(z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(1) - torch.log(torch.tensor(2 * torch.pi))

    model = adapters.FlowModel(one, "B", path=paths.Lipman("B", 0.05))
    _, found = solver_of(model).compute_likelihood(
        x, standard, step_size=None, method="dopri5", exact_divergence=True, atol=1e-7, rtol=1e-7
    )
    exact = standard((x - torch.tensor([0.3, -0.2])) / 0.05) - 2 * torch.log(torch.tensor(0.05))
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-3)


def test_torchcfm_trains_towards_the_velocity(torchcfm: ModuleType) -> None:
    """No field is nearer to its random targets: their mean, given x_t near a place, is v* there."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(5, 2, generator=generator)
    for sigma, path in ((0.0, paths.Linear("B")), (0.3, paths.Blurred("B", 0.3))):
        matcher = torchcfm.ConditionalFlowMatcher(sigma=sigma)
        denoiser = OptimalDenoiser(data)
        count = 200_000
        x1 = data[torch.randint(5, (count,), generator=generator)]
        t = torch.full((count,), 0.5)
        t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn(count, 2, generator=generator), x1, t=t)
        v = denoiser.velocity(xt, 0.5, path=path)
        off = ut - v
        # Orthogonal to every function of x_t: here to v itself, to x_t and to 1.
        for probe in (v, xt, torch.ones_like(xt)):
            products = (off * probe).sum(1)
            assert products.mean().abs() < 4 * products.std() / count**0.5
        wrong = ut - denoiser.velocity(xt, 0.55, path=path)
        assert wrong.square().mean() > off.square().mean()


def test_torchcfms_other_paths(torchcfm: ModuleType) -> None:
    """mu_t and sigma_t, and the conditional flow, as its matchers have them."""
    x0, x1 = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    t = torch.rand(4, dtype=torch.float64)
    target = torchcfm.TargetConditionalFlowMatcher(sigma=0.2)
    scales = paths.Lipman("B", 0.2).at(t)
    torch.testing.assert_close(target.compute_sigma_t(t), scales.sigma)
    torch.testing.assert_close(target.compute_mu_t(x0, x1, t), scales.per_point(x1).alpha * x1)
    xt = scales.per_point(x1).alpha * x1 + scales.per_point(x1).sigma * x0
    torch.testing.assert_close(target.compute_conditional_flow(x0, x1, t, xt), scales.velocity(xt, x1))
    preserving = torchcfm.VariancePreservingConditionalFlowMatcher()
    scales = paths.Cosine("B").at(t)
    torch.testing.assert_close(preserving.compute_mu_t(x0, x1, t), paths.Cosine("B").mix(x1, x0, t))
    per = scales.per_point(x1)
    torch.testing.assert_close(
        preserving.compute_conditional_flow(x0, x1, t, None), per.d_alpha * x1 + per.d_sigma * x0
    )


def test_torchcfms_way_of_sampling(
    torchcfm: ModuleType, torchdiffeq: ModuleType, digits: OptimalDenoiser, noise: Tensor
) -> None:
    """odeint(net, x0, linspace(0, 1, 100)), the network called as net(t, x) with a 0-d t."""
    net = adapters.FlowModel(digits, "B", "t,x")
    times = torch.linspace(0, 1, 100)
    theirs = torchdiffeq.odeint(net, noise, times, method="euler")[-1]
    ours = geodiff.sample(digits, noise, times, "euler", path=paths.Linear("B")).states[-1]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    adaptive = torchdiffeq.odeint(net, noise[:4], torch.tensor([0.0, 1.0]), method="dopri5", rtol=1e-5, atol=1e-5)[-1]
    assert (adaptive - digits(adaptive, 0.01)).abs().max() < 1e-2
