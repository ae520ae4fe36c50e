"""The learned flow: velocity and denoiser agree, targets are what they say, and weights come back."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import adapters, learned, paths, reference
from geodiff.learned import LearnedDenoiser, LearnedFlow, Training, UNetConfig, train
from geodiff.learned.objectives import Lesson, Objective

_SEEDED = torch.Generator().manual_seed(0)
#: Bright and dark pictures, with a little noise: easily learned.
DATA = torch.randint(0, 220, (40, 1, 1, 1), dtype=torch.uint8, generator=_SEEDED) + torch.randint(
    0, 30, (40, 1, 6, 6), dtype=torch.uint8, generator=_SEEDED
)
POINTS = reference.model_space(DATA, torch.float32)


def flow() -> LearnedFlow:
    """Untrained, but with an answer: the last layer is not 0."""
    torch.manual_seed(0)
    made = LearnedFlow((1, 6, 6), UNetConfig(1, width=8))
    torch.nn.init.normal_(made.network.head.weight, std=0.1)
    return made.eval().requires_grad_(False)


def test_velocity_and_denoiser_are_one(tmp_path: Path) -> None:
    network = flow()
    x = torch.randn(4, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    turned = adapters.FlowDenoiser(network.velocity, "A")
    for sigma in (0.01, 0.7, torch.tensor([0.1, 1.0, 5.0, 80.0])):
        torch.testing.assert_close(network(x, sigma), turned(x, sigma), rtol=1e-5, atol=1e-5)
    r = network(x / 0.4, 1.5)
    torch.testing.assert_close(
        paths.LINEAR.at(0.6).velocity(x, r), network.velocity(x, 0.6).double(), rtol=1e-5, atol=1e-5
    )
    assert network.velocity(x, 1.0).isfinite().all()
    assert network.velocity(x[:0], 0.5).shape == (0, 1, 6, 6)
    assert network.features(x, 2.0).shape == (4, 16)
    assert geodiff.sample(network, 80 * x, geodiff.schedules.karras(5)).states.isfinite().all()
    learned.save(network, tmp_path / "flow.safetensors")
    back = learned.load(tmp_path / "flow.safetensors")
    assert isinstance(back, LearnedFlow)
    torch.testing.assert_close(back.velocity(x, 0.3), network.velocity(x, 0.3), rtol=1e-2, atol=1e-3)


def test_bad_arguments() -> None:
    network = flow()
    x = torch.zeros(2, 1, 6, 6)
    with pytest.raises(ValueError, match="t: expected times"):
        network.velocity(x, 1.5)
    with pytest.raises(ValueError, match="class_labels: expected None"):
        network(x, 1.0, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="config: expected channels = 1"):
        LearnedFlow((1, 6, 6), UNetConfig(3))
    with pytest.raises(ValueError, match="shape: expected"):
        LearnedFlow((6, 6))
    with pytest.raises(ValueError, match="target: found 'best'; allowed 'data', 'expected', 'optimal'"):
        Training(target="best")


def lesson(flow: bool, target: str) -> Lesson:
    return Objective(DATA, flow, target, 0.5).draw(24, torch.Generator().manual_seed(5))


def own(at: Lesson, flow: bool) -> Tensor:
    """Which point each x was made from: the same draw, aimed at the data."""
    plain = lesson(flow, "data")
    assert torch.equal(plain.x, at.x)
    points = plain.target if not flow else at.x - at.t.reshape(-1, 1, 1, 1) * plain.target  # type: ignore[union-attr]
    return (points[:, None] - POINTS).flatten(2).norm(dim=2).argmin(1)


@pytest.mark.parametrize("flow", [False, True])
def test_targets_are_what_they_say(flow: bool) -> None:
    for target in ("expected", "optimal"):
        at = lesson(flow, target)
        made_from = own(at, flow)
        for b in range(24):
            x = at.x[b : b + 1].double()
            exclude = made_from[b : b + 1] if target == "optimal" else None
            if flow:
                assert at.t is not None
                exact = reference.velocity(x, DATA, at.t[b].double(), exclude=exclude)
            else:
                exact = reference.posterior(x, DATA, at.sigma[b].double(), exclude=exclude).mean
            torch.testing.assert_close(at.target[b].double(), exact[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("target", ["data", "expected", "optimal"])
def test_training_makes_it_better_and_goes_on(tmp_path: Path, flow: bool, target: str) -> None:
    settings = Training(steps=60, batch=16, width=8, flow=flow, target=target, ema=0.5, learning_rate=5e-3)
    network = train(DATA, tmp_path, settings, save_every=20)
    assert isinstance(network, LearnedFlow if flow else LearnedDenoiser)
    asked = Objective(DATA, flow, target, 0.5).draw(256, torch.Generator().manual_seed(9))

    def loss(of: LearnedFlow | LearnedDenoiser) -> float:
        with torch.no_grad():
            return float((asked.weight * (asked.answer(of) - asked.target).square().mean((1, 2, 3))).mean())

    assert loss(network) < 0.97 * loss(type(network)((1, 6, 6), UNetConfig(1, width=8)))
    again = train(DATA, tmp_path, settings, save_every=20)
    for one, two in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match=f"flow: expected {flow} as in"):
        train(DATA, tmp_path, replace(settings, flow=not flow))
