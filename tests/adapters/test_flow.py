"""FlowModel and FlowDenoiser: conventions, orders, scales, ends, labels; there and back again."""

import pytest
import torch
from torch import Tensor, nn

import geodiff
from geodiff import adapters, paths, reference
from geodiff.paths import Path
from tests import field


@pytest.fixture(scope="module")
def denoiser() -> geodiff.OptimalDenoiser:
    return geodiff.OptimalDenoiser(field.points().float(), labels=torch.arange(8) % 2)


def exact(x: Tensor, sigma: Tensor) -> Tensor:
    return reference.denoise(x.double(), field.points(), sigma).to(x.dtype)


@pytest.mark.parametrize("t", [0.3, 0.7, 1.0])
def test_both_conventions_orders_and_scales(denoiser: geodiff.OptimalDenoiser, t: float) -> None:
    x = field.at(t)
    v = reference.velocity(x, field.points().float(), t)
    for model in (denoiser, lambda y, s: reference.denoise(y, field.points().float(), s)):
        a = adapters.FlowModel(model, "A")
        for asked in (t, torch.tensor(t, dtype=torch.float64), torch.full((2,), t), torch.full((2, 1), t)):
            torch.testing.assert_close(a(x, asked), v, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(a(x=x, t=t), v, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(adapters.FlowModel(model, "A", scale=1000)(x, 1000 * t), v, rtol=1e-6, atol=1e-6)
        b = adapters.FlowModel(model, "B", "t,x")
        torch.testing.assert_close(b(torch.tensor(1 - t, dtype=torch.float64), x), -v, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(b(x=x, t=1 - t), -v, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(b(1 - t, x=x), -v, rtol=1e-6, atol=1e-6)
    a = adapters.FlowModel(denoiser, "A")
    assert a(x.float(), t).dtype == torch.float32
    assert a(x.bfloat16(), torch.tensor(t, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("path", [paths.Cosine(), paths.VP(), paths.Polynomial("B")], ids=lambda path: path.name)
def test_other_paths(denoiser: geodiff.OptimalDenoiser, path: Path) -> None:
    x = field.at(0.6, path)
    expected = reference.velocity(x, field.points().float(), 0.6, path=path)
    for model in (denoiser, exact):
        found = adapters.FlowModel(model, path.convention, path=path)(x, 0.6)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_at_and_beyond_the_ends(denoiser: geodiff.OptimalDenoiser) -> None:
    """Adaptive solvers ask at the data and step over it: t is kept t_guard away."""
    x = field.points().float()[:3] + 1e-7
    for model in (denoiser, exact):
        a, b = adapters.FlowModel(model, "A"), adapters.FlowModel(model, "B")
        for t in (0.0, -0.01, 1e-7):
            torch.testing.assert_close(a(x, t), a(x, 1e-5))
            torch.testing.assert_close(b(x, 1 - t), -a(x, 1e-5), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(a(x, 1.2), a(x, 1.0))
    wide = adapters.FlowModel(denoiser, "A", t_guard=0.01)
    torch.testing.assert_close(wide(x, 0.0), denoiser.velocity(x, 0.01))


def test_labels_by_every_name(denoiser: geodiff.OptimalDenoiser) -> None:
    x, labels = field.at(0.6), torch.tensor([1, 0])
    expected = denoiser.velocity(x, 0.6, labels)
    model = adapters.FlowModel(denoiser, "A")
    for named in (
        {"class_labels": labels},
        {"y": labels},
        {"label": labels},
        {"extra": {"label": labels}},
        {"args": {"y": labels}},
    ):
        torch.testing.assert_close(model(x, 0.6, **named), expected)
    torch.testing.assert_close(model(x, 0.6, y=None, extra={}, args={}), denoiser.velocity(x, 0.6))
    torch.testing.assert_close(
        model(x, 0.6, exclude=torch.tensor([2, -1])), denoiser.velocity(x, 0.6, exclude=torch.tensor([2, -1]))
    )


@pytest.mark.parametrize(
    "path", [paths.Linear(), paths.Linear("B"), paths.Cosine("B"), paths.VP()], ids=lambda path: path.name
)
@pytest.mark.parametrize("order", ["x,t", "t,x"])
def test_there_and_back_again(path: Path, order: adapters.flow.Order) -> None:
    model = adapters.FlowModel(exact, path.convention, order, 1000, path=path)
    back = adapters.FlowDenoiser(model, path.convention, order, 1000, path=path)
    x = 2 * field.noise()
    for sigma in (0.05, 1.0, torch.tensor([0.3, 20.0])):
        torch.testing.assert_close(back(x, sigma), exact(x, torch.as_tensor(sigma)), rtol=1e-5, atol=1e-5)
    t = 0.4
    torch.testing.assert_close(back.velocity(x, t), adapters.FlowModel(exact, path.convention, path=path)(x, t))


def test_a_network_is_called_in_its_own_dtype() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6).bfloat16()
            self.asked: list[tuple[torch.dtype, torch.dtype, float]] = []

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            self.asked.append((x.dtype, t.dtype, float(t[0])))
            return self.layer(x)

    network = Network()
    found = adapters.FlowDenoiser(network, "B", "t,x")(torch.randn(2, 6), 3.0)
    assert found.dtype == torch.float32
    assert network.asked == [(torch.bfloat16, torch.bfloat16, 0.25)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convention": "C"}, "convention: found 'C'"),
        ({"order": "xt"}, "order: found 'xt'; allowed 'x,t', 't,x'"),
        ({"scale": 0.0}, "scale: expected a number in range, found 0"),
        ({"t_guard": 0.0}, "t_guard: expected a number in range"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapters.FlowModel(exact, **options)  # type: ignore[arg-type]


class Scheduler:
    """What StudioDenoiser reads of a scheduler."""

    alphas_cumprod = torch.tensor([0.99, 0.5, 0.1])

    def set_timesteps(self, steps: int) -> None:
        self.steps = steps


def test_the_protocol_of_analytic_diffusion_studio(denoiser: geodiff.OptimalDenoiser) -> None:
    scheduler = Scheduler()
    studio = adapters.StudioDenoiser(denoiser, scheduler)
    z = field.noise().float()
    for t, abar in enumerate((0.99, 0.5, 0.1)):
        sigma = ((1 - abar) / abar) ** 0.5
        expected = reference.denoise(z.double() / abar**0.5, field.points(), sigma).float()
        torch.testing.assert_close(studio.denoise(z, torch.tensor(t), generator=None), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(studio.denoise_sigma(z / abar**0.5, sigma), expected, rtol=1e-4, atol=1e-5)
    each = studio.denoise(z, torch.tensor([0, 2]))
    torch.testing.assert_close(each[1], studio.denoise(z, 2)[1])
    studio.set_timesteps(7)
    assert scheduler.steps == 7
