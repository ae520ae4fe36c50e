"""Temperature, smoothing, other couplings and points that are distributions: known values, and what they mean."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import paths, reference
from geodiff.denoiser.variants import MixtureDenoiser, SmoothedDenoiser, TemperedDenoiser
from tests import field

BACKENDS = [name for name in ("reference", "cpu") if geodiff.backends.is_available(name)]
X = field.at(0.6)
EPS = 0.5 * field.noise(3)
B = paths.Linear("B")


def over(backend: str) -> geodiff.OptimalDenoiser:
    return geodiff.OptimalDenoiser(field.points().float(), backend=backend, tol=1e-6)


def oracle(x: Tensor, sigma: float | Tensor) -> Tensor:
    """r* of the points in float64."""
    return reference.denoise(x.double(), field.points(), sigma)


class Exact(torch.nn.Module):
    """The float64 reference in the place of the denoiser: points that are not rounded to float32."""

    shape, data = (6,), field.points()

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return oracle(x, sigma)


def check(found: Tensor, expected: tuple[float, ...]) -> None:
    assert field.summary(found) == pytest.approx(expected, abs=1e-9)


TEMPERED = {
    1.0: (0.2748865028770, 0.5620410527455, 0.0032690609, 2.1110038432),
    4.0: (0.2093274014, 0.0612098328, -0.0176622520, 0.1539694036),
}


def test_known_values_of_temperature() -> None:
    for temperature, expected in TEMPERED.items():
        tempered = TemperedDenoiser(Exact(), temperature)  # type: ignore[arg-type]
        found = tempered(X / 0.4, 1.5)
        assert field.summary(found) == pytest.approx(expected, abs=1e-9)
        for backend in BACKENDS:
            ours = TemperedDenoiser(over(backend), temperature)
            torch.testing.assert_close(ours(X / 0.4, 1.5), found, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(ours.velocity(X, 0.6), (X - found) / 0.6, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(ours.score(X, 1.5), (ours(X, 1.5) - X) / 1.5**2, rtol=1e-6, atol=1e-6)
    check(TemperedDenoiser(Exact(), 4.0).velocity(X, 0.6), (1.0153037615, 0.4835292417, -1.0314111946, 9.8939204306))  # type: ignore[arg-type]


def test_temperature_leaves_the_prior() -> None:
    weights = torch.arange(8.0)
    tempered = TemperedDenoiser(geodiff.OptimalDenoiser(field.points().float(), log_weights=weights), 3.0)
    logits = weights - (X[:, None] - field.points()).square().sum(2) / (2 * 3 * 0.7**2)
    torch.testing.assert_close(tempered(X, 0.7), logits.softmax(1) @ field.points(), rtol=1e-5, atol=1e-5)
    left_out = TemperedDenoiser(over("auto"), 2.0)(X, 0.7, exclude=torch.tensor([2, -1]))
    kept = geodiff.OptimalDenoiser(field.points().float()[[0, 1, 3, 4, 5, 6, 7]])
    torch.testing.assert_close(left_out[0], kept(X[:1], 0.7 * 2**0.5)[0], rtol=1e-5, atol=1e-5)


SMOOTHED = (0.2723058497, 0.5478869617, -0.0047840736, 2.0593176690)
CENTRED = (0.2722517806, 0.5483376157, -0.0048748164, 2.0604987336)
VELOCITY = (-0.9103396811, 0.3275993063, 1.0528748253, 3.7672548497)


def test_known_values_of_smoothing() -> None:
    for noise, expected in ((EPS, SMOOTHED), (EPS - EPS.mean(0), CENTRED)):
        exact = SmoothedDenoiser(Exact(), 0.2, noise)  # type: ignore[arg-type]
        check(exact(X / 0.4, 1.5), expected)
        for backend in BACKENDS:
            ours = SmoothedDenoiser(over(backend), 0.2, noise)
            torch.testing.assert_close(ours(X / 0.4, 1.5), exact(X / 0.4, 1.5), rtol=1e-6, atol=1e-6)
    check(SmoothedDenoiser(Exact(), 0.2, EPS).velocity(X, 0.4, path=B), VELOCITY)  # type: ignore[arg-type]


def test_smoothing_is_one_call_and_ends_at_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = over("auto")
    smoothed = SmoothedDenoiser(denoiser, 0.3, 5, seed=1)
    assert smoothed.noise.shape == (5, 6)
    assert smoothed.noise.mean(0).abs().max() < 1e-6
    calls: list[int] = []
    monkeypatch.setattr(denoiser, "forward", lambda x, *_, **__: (calls.append(len(x)), x)[1])
    smoothed(X, 1.0)
    assert calls == [10]
    monkeypatch.undo()
    pure = smoothed.velocity(X, 0.0, path=B)
    torch.testing.assert_close(pure, denoiser.mean.double() - X, rtol=1e-5, atol=1e-5)
    exclude = torch.tensor([1, 3])
    found = smoothed(X, 0.8, exclude=exclude)
    by_hand = torch.stack([denoiser(X + 0.3 * 1.8 * one, 0.8, exclude=exclude) for one in smoothed.noise.double()])
    torch.testing.assert_close(found, by_hand.mean(0), rtol=1e-6, atol=1e-6)
    trajectory = geodiff.sample(smoothed, torch.randn(4, 6), [0.9, 0.5, 0.2, 0.0], "euler", path=paths.Linear())
    assert trajectory.states.isfinite().all()


def test_known_values_of_points_that_are_distributions() -> None:
    deviations = 0.05 + 0.02 * field.points().abs()
    expected = (0.3567119241, 0.9847025461, 0.1925985629, 6.1093966434)
    check(reference.mixture(X / 0.4, field.points(), deviations, 0.5), expected)
    check(MixtureDenoiser(field.points(), deviations)(X / 0.4, 0.5), expected)
    without = MixtureDenoiser(field.points(), torch.zeros(8, 6))
    torch.testing.assert_close(without(X, 0.5), oracle(X, 0.5), rtol=1e-12, atol=1e-12)
    score = MixtureDenoiser(field.points(), deviations).score(X, 0.5)
    x = X.clone().requires_grad_()
    variance = deviations.square() + 0.25
    log_prob = (-0.5 * ((x[:, None] - field.points()).square() / variance + variance.log()).sum(2)).logsumexp(1)
    torch.testing.assert_close(score, torch.autograd.grad(log_prob.sum(), x)[0], rtol=1e-9, atol=1e-9)


def test_known_values_of_other_couplings() -> None:
    data = field.points()
    check(
        reference.empirical_target(X, data[[2, 5]], data[[1, 5, 7]], 0.4),
        (-0.7054365807, -1.1806006591, 1.1756462162, 11.8332156438),
    )
    psi = 0.1 * torch.arange(8, dtype=torch.float64)
    check(
        reference.semidiscrete_velocity(X, data, psi, 0.4),
        (-0.8058691803, 1.0590743107, 1.4451265545, 6.0327759023),
    )
    noise = torch.randn(300, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assigned = ((noise[:, None] - data).square().sum(2) - psi).argmin(1)
    for t in (0.0, 0.3, 0.9):  # constant along straight lines
        along = reference.semidiscrete_velocity((1 - t) * noise + t * data[assigned], data, psi, t)
        torch.testing.assert_close(along, data[assigned] - noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemperedDenoiser(over("auto"), 0.0), "temperature: expected a number in range, found 0"),
        (lambda: SmoothedDenoiser(over("auto"), -1.0), "scale: expected a number in range, found -1"),
        (lambda: SmoothedDenoiser(over("auto"), 0.1, torch.randn(3, 5)), r"noise: expected shape \[B, 6\]"),
        (lambda: SmoothedDenoiser(over("auto"), 0.1, torch.randn(0, 6)), "noise: expected .* found none"),
        (lambda: SmoothedDenoiser(over("auto"), 0.1, 1), "noise: expected an integer in range, found 1"),
        (lambda: MixtureDenoiser(torch.zeros(3, 2), torch.zeros(3, 1)), "deviations: expected floats in the shape of"),
        (
            lambda: MixtureDenoiser(torch.zeros(3, 2), -torch.ones(3, 2)),
            "deviations: expected .* found -1; allowed 0 or",
        ),
        (
            lambda: MixtureDenoiser(torch.zeros(3, 2), torch.full((3, 2), torch.nan)),
            "deviations: expected finite values",
        ),
        (lambda: reference.semidiscrete_velocity(X, field.points(), torch.zeros(3), 0.4), r"psi: expected shape \[N\]"),
        (lambda: reference.semidiscrete_velocity(X, field.points(), torch.zeros(8), 1.0), "t: expected times within"),
        (lambda: TemperedDenoiser(over("auto"), 2.0).velocity(X, 0.0), "t: expected a time at which Linear A has"),
    ],
)
def test_bad_arguments(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemperedDenoiser(field.points(), 0.1), "denoiser: expected an OptimalDenoiser, found Tensor"),  # type: ignore[arg-type]
        (lambda: SmoothedDenoiser(lambda x, sigma: x, 0.1), "denoiser: expected an OptimalDenoiser, found function"),  # type: ignore[arg-type]
        (lambda: MixtureDenoiser(field.points(), 0.1), "deviations: expected a tensor or array, found float"),
        (lambda: MixtureDenoiser("latents.zip", 0.1), "means: expected a tensor or array, found str"),
    ],
)
def test_other_things_are_refused_when_it_is_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        make()


def test_a_mixture_of_arrays_is_that_of_tensors() -> None:
    means, deviations = field.points(), torch.full((8, 6), 0.2, dtype=torch.float64)
    found = MixtureDenoiser(means.numpy(), deviations.numpy())(X, 0.5)
    assert torch.equal(found, MixtureDenoiser(means, deviations)(X, 0.5))


def test_conditions_of_a_smoothed_denoiser_may_be_lists_and_arrays() -> None:
    smoothed = SmoothedDenoiser(geodiff.OptimalDenoiser(field.points().float(), labels=torch.arange(8) % 2), 0.3, 4)
    classes, exclude = torch.tensor([1, 0]), torch.tensor([3, -1])
    expected = smoothed(X, 0.7, classes, exclude=exclude)
    for kind in (Tensor.tolist, Tensor.numpy):
        assert torch.equal(smoothed(X, 0.7, kind(classes), exclude=kind(exclude)), expected)
    assert torch.equal(smoothed(X, 0.7, 1), smoothed(X, 0.7, torch.tensor([1, 1])))
    with pytest.raises(ValueError, match=r"^class_labels: expected one for each of B = 2 queries, found 3; allowed"):
        smoothed(X, 0.7, [0, 1, 1])
