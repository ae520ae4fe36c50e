"""Geometry of paths that are known: lines, circles, helices, and the closed-form trajectories of Gaussians."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geodiff import schedules
from geodiff.analysis import geometry
from geodiff.analytic import GaussianDenoiser
from geodiff.solvers import sample
from geodiff.solvers.trajectory import Trajectory


def line(b: int = 3) -> Tensor:
    """[5, b, 2, 4], from a random start straight to a random end, at uneven times."""
    start, end = torch.randn(2, b, 2, 4, dtype=torch.float64)
    times = torch.tensor([0, 0.1, 0.4, 0.9, 1.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    return start + times * (end - start)


def turned(path: Tensor) -> Tensor:
    """[P, B, k] in a random orientation in R^9, somewhere else."""
    basis = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64))[0]
    return path @ basis[: path.shape[2]] + torch.randn(9, dtype=torch.float64)


def half_circle(points: int = 200) -> Tensor:
    """[points, 2, 9]: half circles of radius 1 and 3."""
    angle = torch.linspace(0, math.pi, points, dtype=torch.float64)
    unit = torch.stack([-angle.cos(), angle.sin()], 1)
    return turned(torch.stack([unit, 3 * unit], 1))


def gaussian(variances: list[float]) -> GaussianDenoiser:
    d = len(variances)
    return GaussianDenoiser(torch.zeros(d).double(), torch.eye(d).double(), torch.tensor(variances).double())


def test_a_line_has_no_deviation_and_the_length_of_its_chord() -> None:
    path = line()
    assert geometry.deviation(path).abs().max() < 1e-14
    assert torch.allclose(geometry.path_length(path), geometry.distance_to_end(path)[0], rtol=1e-13)
    assert geometry.straightness(path).max() < 1e-14


def test_deviation_of_a_half_circle() -> None:
    path = half_circle()
    sine = torch.linspace(0, math.pi, 200, dtype=torch.float64).sin()
    assert torch.allclose(geometry.deviation(path), torch.stack([sine, 3 * sine], 1), atol=1e-13)
    assert torch.allclose(geometry.path_length(path), torch.tensor([1.0, 3.0]).double() * math.pi, rtol=1e-4)
    expected = geometry.deviation(path).amax(0) / path[0].norm(dim=1)
    assert torch.allclose(geometry.straightness(path), expected, rtol=1e-13)


def test_deviation_of_a_closed_path_is_the_distance_from_its_start() -> None:
    path = torch.cat([line(), line()[:1] * 0])
    path[-1] = path[0]
    assert torch.allclose(geometry.deviation(path), (path - path[0]).flatten(2).norm(dim=2))


def test_lengths_are_those_of_the_flattened_points() -> None:
    path = torch.randn(4, 3, 2, 5)
    flat = path.double().flatten(2)
    assert torch.equal(geometry.magnitude(path), flat.norm(dim=2))
    assert torch.equal(geometry.distance_to_end(path), (flat - flat[-1]).norm(dim=2))
    for found in (geometry.magnitude(path), geometry.distance_to_end(path), geometry.deviation(path)):
        assert found.dtype == torch.float64
        assert found.shape == (4, 3)


def test_deviation_in_float32_keeps_its_digits_beside_a_long_chord() -> None:
    """As in a sampling trajectory: 14 aside on a way of 4434."""
    path = torch.zeros(3, 1, 1000, dtype=torch.float32)
    path[0, 0, 0], path[1, 0, 0], path[1, 0, 1] = 4434.0, 1000.0, 14.0
    assert geometry.deviation(path)[1].item() == pytest.approx(14, rel=1e-7)


def test_directions_are_the_slopes_of_the_ode() -> None:
    trajectory = sample(gaussian([1.0, 4.0]), 8 * torch.randn(5, 2).double(), [8.0, 3.0, 0.5, 0.0], "euler")
    slopes = trajectory.states.diff(dim=0) / trajectory.sigmas.diff()[:, None, None]
    assert torch.allclose(geometry.directions(trajectory), slopes, rtol=1e-12)
    assert torch.allclose(geometry.direction_magnitude(trajectory), slopes.norm(dim=2), rtol=1e-12)
    away = trajectory.states[:-1] - trajectory.states[-1]
    assert torch.allclose(geometry.cosines(trajectory), torch.cosine_similarity(slopes, away, dim=2), rtol=1e-12)
    assert torch.allclose(geometry.cosines(trajectory)[-1], torch.ones(5).double(), rtol=1e-12)


def exact_bending(variances: list[float], start: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Curvature and torsion of x_k = c_k sqrt(sigma^2 + v_k), from its derivatives and Gram determinants, [S, B]."""
    v = torch.tensor(variances).double()
    c = start / (sigma[0] ** 2 + v).sqrt()
    root = (sigma[:, None] ** 2 + v).sqrt()[:, None]  # [S, 1, d]
    first = c * sigma[:, None, None] / root
    second = c * v / root**3
    third = -3 * c * v * sigma[:, None, None] / root**5
    derivatives = torch.stack([first, second, third], 2)  # [S, B, 3, d]
    gram = derivatives @ derivatives.transpose(2, 3)
    one, two, three = (torch.linalg.det(gram[..., :k, :k]) for k in (1, 2, 3))
    return two.sqrt() / one**1.5, three.clamp_min(0).sqrt() / two


def test_bending_of_a_gaussian_trajectory() -> None:
    variances = [0.3, 1.0, 2.5, 6.0]
    start = 10 * torch.randn(3, 4, dtype=torch.float64)
    levels = torch.logspace(1, -1, 2000, dtype=torch.float64)
    found = geometry.bending(gaussian(variances).trajectory(start, levels))
    curvature, torsion = exact_bending(variances, start, levels[:-1])
    assert found.curvature.shape == found.torsion.shape == (1999, 3)
    assert torch.allclose(found.curvature[1:-1], curvature[1:-1], rtol=1e-4)
    assert torch.allclose(found.torsion[1:-1], torsion[1:-1], rtol=1e-3)


def test_a_trajectory_in_a_plane_has_no_torsion_and_a_straight_one_no_curvature() -> None:
    start, levels = 10 * torch.randn(3, 2, dtype=torch.float64), torch.logspace(1, -1, 100, dtype=torch.float64)
    plane = geometry.bending(gaussian([0.5, 3.0]).trajectory(start, levels))
    assert plane.curvature.min() > 1e-6
    assert plane.torsion.max() < 1e-6
    straight = geometry.bending(gaussian([2.0, 2.0]).trajectory(start, levels))
    assert straight.curvature.max() < 1e-10


def test_projection_of_a_half_circle_is_the_half_circle() -> None:
    found = geometry.project(half_circle(), 2)
    angle = torch.linspace(0, math.pi, 200, dtype=torch.float64)
    assert found.coordinates.shape == (200, 2, 3)
    for sample_index, radius in enumerate((1, 3)):
        along, across, rest = found.coordinates[:, sample_index].T
        assert torch.allclose(along, radius * (1 - angle.cos()), atol=1e-12)
        assert torch.allclose(across, radius * angle.sin(), atol=1e-12)
        assert rest.abs().max() < 1e-6
    assert torch.allclose(found.explained[:, 1:], torch.ones(2, 2).double(), atol=1e-12)
    assert torch.allclose(found.complement, torch.ones(2, 2).double(), atol=1e-12)


def test_projection_explains_what_a_decomposition_of_the_whole_does() -> None:
    path = torch.randn(7, 5, 3, 4, dtype=torch.float64)
    found = geometry.project(path, 3)
    for b in range(5):
        moved = (path[:, b] - path[0, b]).flatten(1)
        unit = moved[-1] / moved[-1].norm()
        left = moved - (moved @ unit)[:, None] * unit
        values = torch.linalg.svdvals(left).square()
        of_chord = (moved @ unit).square().sum()
        expected = (of_chord + torch.cat([torch.zeros(1).double(), values[:3].cumsum(0)])) / moved.square().sum()
        assert torch.allclose(found.explained[b], expected, rtol=1e-10)
        assert torch.allclose(found.complement[b], values[:3].cumsum(0) / values.sum(), rtol=1e-10)


def test_projection_does_not_depend_on_the_batch() -> None:
    path = torch.randn(7, 5, 12, dtype=torch.float64)
    together, alone = geometry.project(path), geometry.project(path[:, 2:3])
    assert torch.allclose(together.coordinates[:, 2:3], alone.coordinates, atol=1e-12)


def test_thin_shell_of_gaussian_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, z = torch.rand(2000, 3, 500, generator=generator), torch.randn(2000, 3, 500, generator=generator)
    found = geometry.thin_shell(clean, 4 * z, 4.0)
    assert found.norm_limit == 4 * math.sqrt(1500)
    assert found.norm == pytest.approx(found.norm_limit, rel=2e-3)
    assert found.spread_limit == pytest.approx(4 / math.sqrt(2))
    assert found.spread == pytest.approx(found.spread_limit, rel=0.06)
    assert found.growth == pytest.approx(1, abs=0.01)
    assert found.outward == 1


def test_a_band_holds_what_it_says() -> None:
    values = torch.arange(101.0).expand(2, 101) + torch.tensor([[0.0], [10.0]])
    found = geometry.band(values)
    assert found.mean.tolist() == [50, 60]
    assert found.low.tolist() == pytest.approx([5, 15])
    assert found.high.tolist() == pytest.approx([95, 105])
    assert found.std.tolist() == pytest.approx([values[0].std().item()] * 2)
    assert geometry.band(values[:, :1]).std.tolist() == [0, 0]


def test_observations_on_a_trajectory_of_two_clusters() -> None:
    """The sampling trajectory is the straighter one; distances to the end fall; |x| falls and |r| rises."""
    data = torch.cat([torch.randn(40, 32) * 0.3 + 1, torch.randn(40, 32) * 0.3 - 1])
    denoiser = GaussianDenoiser.fit(data, dtype=torch.float64)
    trajectory = sample(denoiser, 80 * torch.randn(50, 32).double(), schedules.karras(30)[:-1])
    relative = [(geometry.deviation(p).amax(0) / geometry.distance_to_end(p)[0]).mean() for p in paths(trajectory)]
    assert relative[0] < 0.2 * relative[1]
    for path in paths(trajectory):
        assert (geometry.distance_to_end(path).mean(1).diff() < 0).all()
    assert (geometry.magnitude(trajectory.states).mean(1).diff() < 0).all()
    assert (geometry.magnitude(trajectory.denoised).mean(1).diff() > 0).all()


def paths(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    return trajectory.states, trajectory.denoised


@pytest.mark.parametrize("b", [0, 1])
def test_small_batches(b: int) -> None:
    path = torch.randn(4, b, 6)
    assert geometry.deviation(path).shape == (4, b)
    assert geometry.path_length(path).shape == (b,)
    assert geometry.project(path).coordinates.shape == (4, b, 3)


FUNCTIONS = (geometry.deviation, geometry.distance_to_end, geometry.path_length, geometry.project)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    ("path", "error"),
    [(torch.zeros(1, 2, 3), ValueError), (torch.zeros(3), ValueError), ([[1.0]], TypeError)],
    ids=["one point", "no batch", "a list"],
)
def test_what_is_no_path(function: Callable[[object], object], path: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^path: expected .* found .*; allowed "):
        function(path)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("values", lambda: geometry.band(torch.zeros(3))),
        ("coverage", lambda: geometry.band(torch.zeros(3, 2), coverage=2)),
        ("components", lambda: geometry.project(torch.zeros(3, 2, 5), 4)),
        ("noise", lambda: geometry.thin_shell(torch.zeros(3, 2), torch.zeros(2, 2), 1.0)),
        ("sigma", lambda: geometry.thin_shell(torch.zeros(3, 2), torch.zeros(3, 2), 0.0)),
        ("trajectory", lambda: geometry.bending(sample(gaussian([1.0]), torch.ones(1, 1).double(), [2.0, 1.0, 0.0]))),
    ],
)
def test_bad_arguments_are_named(name: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .* found .*; allowed "):
        call()


@pytest.mark.parametrize(
    "function", [geometry.bending, geometry.cosines, geometry.directions, geometry.direction_magnitude]
)
def test_a_trajectory_that_keeps_its_end_alone_is_refused(function: Callable[[object], object]) -> None:
    noise, levels = torch.ones(1, 1).double(), [4.0, 2.0, 1.0, 0.0]
    end = sample(gaussian([1.0]), noise, levels, keep="end")
    with pytest.raises(ValueError, match=r"^trajectory: expected one that keeps all states.*allowed sample\(.*'all'\)"):
        function(end)
    with pytest.raises(TypeError, match=r"^trajectory: expected a Trajectory, found Tensor; allowed"):
        function(end.states)
    with pytest.raises(TypeError, match=r"^path: expected a torch.Tensor, found a Trajectory; allowed its \.states"):
        geometry.deviation(sample(gaussian([1.0]), noise, levels))  # type: ignore[arg-type]
