"""The diagnostics of a flow against the optimal one: known values, and what is known of the two ends of a hybrid."""

from typing import Any

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import adapters, paths, reference
from geodiff.analysis import flow_deviation
from tests import field

B = paths.Linear("B")
MEAN = field.points().mean(0)


def optimal() -> geodiff.OptimalDenoiser:
    return geodiff.OptimalDenoiser(field.points().float(), tol=1e-6)


def to_the_mean(x: Tensor, t: float) -> Tensor:
    """The field (mean - x) / (1 - t), convention B."""
    return (MEAN - x) / (1 - t)


class Oracle:
    """The optimal velocity in float64, over points that are not rounded."""

    shape = (6,)

    def velocity(self, x: Tensor, t: float, *, path: paths.Path) -> Tensor:
        return reference.velocity(x, field.points(), t, path=path)


def test_known_values() -> None:
    """delta of the field towards the mean, and the angle between x_1 - n and v*, at t = 0.4 of convention B."""
    exact = flow_deviation.along_path(to_the_mean, Oracle(), field.points()[[2, 5]], field.noise(), [0.4], path=B)  # type: ignore[arg-type]
    assert exact.relative[0].tolist() == pytest.approx([0.82384759, 3.29747721], abs=5e-9)  # all digits that are known
    assert exact.target[0].tolist() == pytest.approx([0.75277003, -0.24295894], abs=5e-9)
    found = flow_deviation.along_path(to_the_mean, optimal(), field.points()[[2, 5]], field.noise(), [0.4], path=B)
    assert found.relative[0].tolist() == pytest.approx([0.82384759, 3.29747721], abs=1e-6)
    assert found.target[0].tolist() == pytest.approx([0.75277003, -0.24295894], abs=1e-6)
    again = flow_deviation.along_trajectory(to_the_mean, optimal(), field.at(0.4, B)[None], [0.4], path=B)
    torch.testing.assert_close(again.relative, found.relative)
    torch.testing.assert_close(again.cosine, found.cosine)
    assert again.target.isnan().all()
    v, best = to_the_mean(field.at(0.4, B), 0.4), optimal().velocity(field.at(0.4, B), 0.4, path=B)
    cosine = (v * best).sum(1) / v.norm(dim=1) / best.norm(dim=1)
    torch.testing.assert_close(found.cosine[0], cosine)


def test_the_optimal_flow_is_no_way_off_from_itself() -> None:
    denoiser = optimal()
    times = [1.0, 0.7, 0.3, 0.01]
    found = flow_deviation.along_path(denoiser.velocity, denoiser, field.points()[[1, 6]], field.noise(), times)
    assert found.relative.max() < 1e-9
    assert found.cosine.min() > 1 - 1e-9
    assert (found.target[-1] > 0.999).all()  # so near the data one point has all the weight


def test_both_ends_of_a_hybrid() -> None:
    """tau = 0 is the network, tau = 1 the optimal flow, whose samples are copies; in between the second half is its."""
    denoiser = optimal()
    network = adapters.FlowDenoiser(lambda x, t: to_the_mean(x, 1 - float(t.max())) * -1, "A")
    noise = field.noise(4)
    found = flow_deviation.hybrid(network, denoiser, noise, [0.0, 0.5, 1.0], steps=20)
    times = torch.linspace(1, 0, 21, dtype=torch.float64)
    for place, alone in ((0, network), (2, denoiser)):
        expected = geodiff.sample(alone, noise, times, "euler", path=paths.LINEAR).states[-1]
        torch.testing.assert_close(found.samples[place], expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.samples[0], MEAN.expand(4, 6), rtol=1e-5, atol=1e-5)
    assert found.distances[2].max() < 1e-5
    torch.testing.assert_close(found.samples[2], field.points()[found.nearest[2]], rtol=1e-5, atol=1e-5)
    middle = geodiff.sample(denoiser, noise, times[:11], "euler", path=paths.LINEAR).states[-1]
    torch.testing.assert_close(found.samples[1], MEAN.expand(4, 6), rtol=1e-4, atol=1e-4)
    assert (middle - MEAN).norm() > 0.1
    away = (found.samples[1][:, None] - field.points()).norm(dim=2).min(1)
    torch.testing.assert_close(found.distances[1], away.values, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"switches: expected times, found 1\.5"):
        flow_deviation.hybrid(network, denoiser, noise, [1.5])


def test_the_switch_is_where_it_is_said_to_be() -> None:
    """Of 20 steps, round(20 tau) are the optimal denoiser's."""
    asked: list[str] = []
    denoiser = optimal()
    forward = denoiser.forward

    def best(x: Tensor, sigma: Tensor, *_: object) -> Tensor:
        asked.append("optimal")
        return forward(x, sigma)

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append("network")
        return x * 0

    denoiser.forward = best  # type: ignore[assignment,method-assign]
    for tau, count in ((0.0, 0), (0.05, 1), (0.3, 6), (0.95, 19), (1.0, 20)):
        asked.clear()
        flow_deviation.hybrid(network, denoiser, field.noise(2), [tau], steps=20)
        assert asked == ["optimal"] * count + ["network"] * (20 - count), tau


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": lambda x, t: x[:, :1]}, r"network: expected an output of x's shape \[2, 6\] at t = 0\.9, found"),
        ({"network": lambda x, t: x * torch.nan}, r"network: at t = 0\.9: expected finite values"),
        ({"points": torch.zeros(3, 6)}, "noise: expected a noise for each of B = 3 points, found 2"),
        ({"points": torch.zeros(2, 5)}, r"points: expected shape \[B, 6\], found \[2, 5\]"),
        ({"noise": torch.zeros(6)}, r"noise: expected shape \[B, 6\], found \[6\]"),
        ({"times": 0.9}, r"times: expected shape \[S\], found \[\]"),
        ({"times": []}, r"times: expected shape \[S\], found \[0\]"),
    ],
)
def test_what_would_broadcast_is_refused_along_a_path(change: dict[str, Any], message: str) -> None:
    given = {"points": torch.zeros(2, 6), "noise": field.noise(), "times": [0.9], **change}
    network = given.pop("network", lambda x, t: x)
    with pytest.raises(ValueError, match=f"^{message}"):
        flow_deviation.along_path(network, optimal(), **given)


def test_what_would_broadcast_is_refused_along_a_trajectory() -> None:
    states = field.at(0.4)[None]
    for given, message in (
        ((states, [0.4, 0.2]), "times: expected one for each of S = 1 states, found 2"),
        ((states[0], [0.4]), r"states: expected shape \[S, B, 6\], found \[2, 6\]"),
        ((states, 0.4), r"times: expected shape \[S\], found \[\]"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            flow_deviation.along_trajectory(lambda x, t: x, optimal(), *given)
    with pytest.raises(ValueError, match=r"^network: expected an output of x's shape"):
        flow_deviation.along_trajectory(lambda x, t: x[:, :1], optimal(), states, [0.4])


def test_a_hybrid_of_no_noise_is_empty_and_one_without_switches_is_refused() -> None:
    found = flow_deviation.hybrid(optimal(), optimal(), field.noise()[:0], [0.5], steps=4)
    assert found.samples.shape == (1, 0, 6)
    assert found.distances.shape == found.nearest.shape == (1, 0)
    with pytest.raises(ValueError, match=r"^switches: expected shape \[K\], found \[0\]"):
        flow_deviation.hybrid(optimal(), optimal(), field.noise(), [])
