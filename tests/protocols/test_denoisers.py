"""What every denoiser keeps, r(x, sigma) -> [B, *shape]: list one in DENOISERS, and it is held to all of it."""

from collections.abc import Callable

import pytest
import torch

import geodiff
from geodiff.adapters import PreconditionedDenoiser, RawNetwork
from geodiff.analytic import GaussianDenoiser, GaussianMixtureDenoiser
from geodiff.learned import ConsistencyModel, LearnedDenoiser, UNetConfig
from geodiff.solvers import Denoiser

SHAPE = (2, 6, 6)
DATA = torch.randint(0, 256, (40, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 4
#: The pixels of the same row, for each pixel.
MASKS = torch.eye(6, dtype=torch.bool).repeat_interleave(6, 0)[:, :, None].expand(36, 6, 6)


def learned() -> Denoiser:
    torch.manual_seed(0)
    return LearnedDenoiser(SHAPE, UNetConfig(2, width=8)).eval()


#: name -> how to make it, over points of SHAPE
DENOISERS: dict[str, Callable[[], Denoiser]] = {
    "optimal, cpu": lambda: geodiff.OptimalDenoiser(DATA),
    "optimal, reference": lambda: geodiff.OptimalDenoiser(DATA, backend="reference"),
    "optimal, mirrored": lambda: geodiff.OptimalDenoiser(DATA, augment="hflip"),
    "optimal, weighted": lambda: geodiff.OptimalDenoiser(DATA, log_weights=torch.linspace(-2, 2, 40)),
    "optimal, floats": lambda: geodiff.OptimalDenoiser(DATA.float() / 127.5 - 1),
    **{
        f"local, {kind}": lambda kind=kind: geodiff.LocalDenoiser(
            DATA, kind=kind, masks=MASKS if kind == "pspc_flex" else None, augment="hflip"
        )
        for kind in geodiff.local.KINDS
    },
    "gaussian": lambda: GaussianDenoiser.fit(DATA),
    "mixture": lambda: GaussianMixtureDenoiser.fit(DATA, LABELS),
    "learned": learned,
    "consistency": lambda: ConsistencyModel(SHAPE, UNetConfig(2, width=8)).eval(),
    "preconditioned": lambda: PreconditionedDenoiser(RawNetwork(geodiff.OptimalDenoiser(DATA))),
}

X = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=list(DENOISERS))
def denoiser(request: pytest.FixtureRequest) -> Denoiser:
    return DENOISERS[request.param]()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 5])
@torch.no_grad()
def test_shape_and_dtype_are_those_of_x(denoiser: Denoiser, batch: int, dtype: torch.dtype) -> None:
    x = X[:batch].to(dtype)
    found = denoiser(x, 0.7)
    assert found.shape == x.shape
    assert found.dtype == dtype
    assert found.isfinite().all()


@torch.no_grad()
def test_a_level_may_be_given_in_every_way(denoiser: Denoiser) -> None:
    expected = denoiser(X, 0.7)
    for sigma in (torch.tensor(0.7), torch.full((5,), 0.7), torch.full((5, 1, 1, 1), 0.7).double()):
        torch.testing.assert_close(denoiser(X, sigma), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_each_query_has_its_own_level_and_none_sees_the_others(denoiser: Denoiser) -> None:
    levels = torch.tensor([0.1, 0.5, 1.0, 5.0, 40.0])
    together = denoiser(X, levels)
    for b in range(5):
        torch.testing.assert_close(denoiser(X[b : b + 1], float(levels[b]))[0], together[b], rtol=1e-5, atol=2e-5)


@torch.no_grad()
def test_it_leaves_x_alone_and_answers_alike_again(denoiser: Denoiser) -> None:
    before = X.clone()
    first = denoiser(X, 0.7)
    assert torch.equal(X, before)
    assert torch.equal(denoiser(X, 0.7), first)


def test_a_gradient_in_x_is_that_of_finite_differences(denoiser: Denoiser) -> None:
    if isinstance(denoiser, LearnedDenoiser):
        pytest.skip("its weights are float32, which leaves finite differences no digits")
    x = X[:2].double().requires_grad_()
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (found,) = torch.autograd.grad((denoiser(x, 1.0) * v).sum(), x)
    step = 1e-5
    # Of a float64 x that autograd follows, which is answered in float64: others may be off by the contract's 1e-5.
    ahead, behind = ((denoiser(x + s * found / found.norm(), 1.0) * v).sum().detach() for s in (step, -step))
    torch.testing.assert_close((ahead - behind) / (2 * step), found.norm(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_level_that_is_none_is_refused_by_name(denoiser: Denoiser, sigma: float) -> None:
    with pytest.raises(ValueError, match=r"^sigma: "):
        denoiser(X, sigma)


@torch.no_grad()
def test_it_can_be_sampled(denoiser: Denoiser) -> None:
    sigmas = geodiff.schedules.karras(6, sigma_max=10.0)
    trajectory = geodiff.sample(denoiser, 10 * X, sigmas)
    assert trajectory.states[-1].isfinite().all()
    assert trajectory.denoised.shape == (6, *X.shape)
