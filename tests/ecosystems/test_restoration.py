"""Restoration with deepinv's and azula's own guidance, our denoiser in it, beside ours on the same problem."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser
from geodiff.data import load
from geodiff.inverse import Options, diffpir, dps
from geodiff.measure.restoration import TASKS, Case, Setting, psnr
from tests.ecosystems.conftest import load as load_package

NUM = 20


@pytest.fixture(scope="module")
def deepinv() -> ModuleType:
    return load_package(
        "deepinv", "--no-deps deepinv, and torchvision, h5py, natsort, optimal-denoiser[ecosystems,restore]"
    )


@pytest.fixture(scope="module", params=TASKS)
def case(request: pytest.FixtureRequest) -> Case:
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed: pip install optimal-denoiser[restore]")
    return Case(load("mnist5k"), Setting(task=request.param, num=NUM))


@pytest.fixture(scope="module")
def prior(case: Case) -> OptimalDenoiser:
    return OptimalDenoiser(case.known)


def begin() -> Options:
    return Options(generator=torch.Generator().manual_seed(0))


def compared(name: str, theirs: Tensor, ours: Tensor, case: Case) -> float:
    found = psnr(theirs.float(), case.truth), psnr(ours, case.truth)
    print(f"{case.setting.task}, {name}: {found[0]:.2f} dB by theirs, {found[1]:.2f} by ours")
    return abs(found[0] - found[1])


def test_diffpir_of_deepinv(deepinv: ModuleType, case: Case, prior: OptimalDenoiser) -> None:
    """lambda is twice ours there: |u - u_0|^2 is a quarter of |x - x_0|^2, and its proximal step has a half."""
    from geodiff.adapters.deepinv import DeepinvDenoiser, physics_of

    physics, y = physics_of(case.problem)
    fidelity = deepinv.optim.data_fidelity.L2()
    model = deepinv.sampling.DiffPIR(DeepinvDenoiser(prior), fidelity, sigma=0.025, max_iter=40, zeta=1.0, lambda_=2.0)
    torch.manual_seed(0)
    theirs = 2 * model(y, physics) - 1
    levels = model.sigmas[model.seq.long()].unique().flip(0).double()
    ours = diffpir(prior, case.problem, levels, lam=1.0, zeta=1.0, options=begin()).images
    assert compared("DiffPIR of deepinv", theirs, ours, case) <= 0.5


def test_diffpir_of_azula(azula: ModuleType, case: Case, prior: OptimalDenoiser) -> None:
    """Its denoiser is our proximal step on the denoised image, if it may iterate: where 15 iterations suffice."""
    from azula.guidance.diffpir import DiffPIRDenoiser

    from geodiff.adapters.azula import AzulaDenoiser

    schedule = azula.noise.VESchedule(sigma_min=0.02, sigma_max=10.0)
    flat, shape = case.problem.y.flatten(1), prior.shape  # it solves along the last dimension

    def seen(x: Tensor) -> Tensor:
        return case.problem.operator(x.reshape(-1, *shape)).flatten(1)

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        return prior(x.reshape(-1, *shape), sigma).flatten(1)

    guided = DiffPIRDenoiser(
        AzulaDenoiser(denoised, schedule), flat, seen, 0.05**2, lmbda=1.0, solver="cg", iterations=15
    )
    t = torch.tensor(0.3)
    sigma = float(schedule(t)[1])
    x = case.truth + sigma * torch.randn(case.truth.shape, generator=torch.Generator().manual_seed(1))
    expected = case.problem.proximal(prior(x, sigma), 0.05**2 / sigma**2)
    error = (guided(x.flatten(1), t).mean - expected.flatten(1)).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert error.max() <= 1e-3


def test_dps_of_azula(azula: ModuleType, case: Case, prior: OptimalDenoiser) -> None:
    """One image, whose norm is that of the batch there; on its levels, 100 steps."""
    from azula.guidance.dps import DPSSampler

    from geodiff.adapters.azula import AzulaDenoiser

    schedule = azula.noise.VPSchedule()
    operator, problem = case.problem.operator, case.problem
    theirs = []
    for b in range(4):
        sampler = DPSSampler(
            AzulaDenoiser(prior, schedule), problem.y[b : b + 1], operator, zeta=1.0, steps=100, silent=True
        )
        torch.manual_seed(b)
        theirs.append(sampler(sampler.init((1, *prior.shape))))
    alpha, sigma = schedule(sampler.timesteps.double())
    levels = [*(sigma / alpha)[:-1].tolist(), 0.0]
    four = type(problem)(operator, problem.y[:4], problem.sigma)
    ours = dps(prior, four, levels, options=begin()).images
    found = psnr(torch.cat(theirs), case.truth[:4]), psnr(ours, case.truth[:4])
    print(f"{case.setting.task}, DPS of azula: {found[0]:.2f} dB by theirs, {found[1]:.2f} by ours")
    assert abs(found[0] - found[1]) <= 3  # four images, of independent noise; step by step they agree: see below


def test_a_step_of_dps_of_azula_is_ours(azula: ModuleType, case: Case, prior: OptimalDenoiser) -> None:
    """The same state and the same noise, one image: the same next state, so any apart is chance."""
    from azula.guidance.dps import DPSSampler

    from geodiff.adapters.azula import AzulaDenoiser

    schedule = azula.noise.VPSchedule()
    problem = type(case.problem)(case.problem.operator, case.problem.y[:1], case.problem.sigma)
    sampler = DPSSampler(AzulaDenoiser(prior, schedule), problem.y, problem.operator, silent=True)
    t, s = torch.tensor(0.7), torch.tensor(0.65)
    (a, b), (c, d) = schedule(t), schedule(s)
    sigma, following = float(b / a), float(d / c)
    ours = dps(prior, problem, [sigma, following], options=Options(torch.Generator().manual_seed(3), clip=None)).images
    generator = torch.Generator().manual_seed(3)
    x = sigma * torch.randn(1, *prior.shape, generator=generator)
    torch.set_rng_state(generator.get_state())
    theirs = sampler.step(a * x, t, s) / c
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_their_operators_are_ours(deepinv: ModuleType) -> None:
    from geodiff.adapters.deepinv import operator_of

    kernel = deepinv.physics.functional.blur.gaussian_blur(sigma=(1.0, 1.0))
    for physics in (
        deepinv.physics.BlurFFT(img_size=(1, 16, 16), filter=kernel),
        deepinv.physics.Downsampling(img_size=(1, 16, 16), factor=2, filter=kernel),
    ):
        operator = operator_of(physics, (1, 16, 16))
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 1, 16, 16, generator=generator, dtype=torch.float64)
        y = torch.randn(2, *operator.measured, generator=generator, dtype=torch.float64)
        torch.testing.assert_close((operator(x) * y).sum(), (x * operator.adjoint(y)).sum())
        z = operator.proximal(x, y, 0.1)
        left = operator.adjoint(operator(z)) + 0.1 * z
        torch.testing.assert_close(left, operator.adjoint(y) + 0.1 * x, rtol=1e-6, atol=1e-6)


def test_our_operators_are_theirs(deepinv: ModuleType, case: Case) -> None:
    from geodiff.adapters.deepinv import physics_of

    physics, y = physics_of(case.problem)
    truth = (case.truth + 1) / 2
    noise = (y - physics.A(truth)).std()
    share = 1.0 if case.setting.task != "inpaint" else float(case.problem.operator.mask.mean()) ** 0.5  # type: ignore[attr-defined]
    assert float(noise) == pytest.approx(0.025 * share, rel=0.1)
    assert float(physics.adjointness_test(truth).abs()) < 1e-2
