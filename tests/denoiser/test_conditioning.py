"""Classes, masks and mirror images, alone and together: the reference on the data that they stand for."""

import time
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import reference
from geodiff.base.posterior import Posterior
from geodiff.reference import moments

BACKENDS = [name for name in ("reference", "cpu") if geodiff.backends.is_available(name)]
SIGMAS = [0.02, 0.3, 1.0, 5.0, 80.0]


def images(n: int = 90, dtype: torch.dtype = torch.uint8) -> Tensor:
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 3, 8, 9), dtype=torch.uint8, generator=g)
    return pixels if dtype == torch.uint8 else reference.model_space(pixels, torch.float32).to(dtype)


def queries(data: Tensor, sigma: float, batch: int = 5) -> Tensor:
    g = torch.Generator().manual_seed(1)
    points = reference.model_space(data[torch.randint(len(data), (batch,), generator=g)], torch.float32)
    return points + sigma * torch.randn(points.shape, generator=g)


def agree(found: Posterior, b: int, exact: Posterior, scale: float, names: Tensor) -> None:
    """Row b of `found` against the only row of `exact`, whose index i is called names[i]."""
    error = (found.mean[b].double() - exact.mean[0]).norm()
    assert error <= 1e-5 * max(float(exact.mean[0].norm()), 0.01 * scale)
    torch.testing.assert_close(found.log_prob[b].double(), exact.log_prob[0], rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(found.entropy[b].double(), exact.entropy[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.ess[b].double(), exact.ess[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(found.indices[b], names[exact.indices[0]])
    torch.testing.assert_close(found.weights[b].double(), exact.weights[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_class_mask_and_mirror_image_together(backend: str, sigma: float, dtype: torch.dtype) -> None:
    data, n = images(dtype=dtype), 90
    g = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 3, (n,), generator=g)
    log_weights = torch.randn(n, generator=g)
    wanted, seen = torch.tensor([2, 0, 1, 1, 2]), torch.rand(5, n, generator=g) < 0.6
    denoiser = geodiff.OptimalDenoiser(data, labels=labels, log_weights=log_weights, augment="hflip", backend=backend)
    x = queries(data, sigma)
    found = denoiser.posterior(x, sigma, wanted, topk=3, mask=seen)
    scale = float(reference.model_space(data, torch.float64).flatten(1).norm(dim=1).max())
    for b in range(5):
        members = ((labels == wanted[b]) & seen[b]).nonzero()[:, 0]
        both = torch.cat([data[members], data[members].flip(-1)])
        weights = log_weights[members].repeat(2)
        exact = reference.posterior(x[b : b + 1].double(), both, sigma, topk=3, log_weights=weights)
        agree(found, b, exact, scale, torch.cat([members, members + n]))
        assert found.trace is not None
        trace = geodiff.moments.trace(x[b : b + 1].double(), both, sigma, log_weights=weights)
        torch.testing.assert_close(found.trace[b : b + 1].double(), trace, rtol=1e-4, atol=1e-6 * scale**2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("augment", [None, "hflip"])
@pytest.mark.parametrize("wanted", [[1, 0, 1], [1, 1, 1]])
def test_more_points_named_than_a_class_has(backend: str, augment: Literal["hflip"] | None, wanted: list[int]) -> None:
    """As for a mask, -1 of weight 0 stands where there are no points; of two, with copies, there are four."""
    data, n = images(9), 9
    labels = torch.tensor([0] * 7 + [1] * 2)
    denoiser = geodiff.OptimalDenoiser(data, labels=labels, augment=augment, backend=backend)
    x = queries(data, 1.0, batch=3)
    found = denoiser.posterior(x, 1.0, torch.tensor(wanted), topk=6)
    assert found.indices.shape == found.weights.shape == (3, 6)
    for b, label in enumerate(wanted):
        members = (labels == label).nonzero()[:, 0]
        both = data[members] if augment is None else torch.cat([data[members], data[members].flip(-1)])
        count = min(6, len(both))
        exact = reference.posterior(x[b : b + 1].double(), both, 1.0, topk=count)
        names = members if augment is None else torch.cat([members, members + n])
        assert found.indices[b].tolist() == names[exact.indices[0]].tolist() + [-1] * (6 - count)
        assert found.weights[b, count:].tolist() == [0] * (6 - count)
        torch.testing.assert_close(found.weights[b, :count].double(), exact.weights[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_mask_alone_leaves_one_out(backend: str, sigma: float) -> None:
    data = images()
    denoiser = geodiff.OptimalDenoiser(data, backend=backend)
    x = queries(data, sigma)
    seen = ~torch.nn.functional.one_hot(denoiser.posterior(x, sigma, topk=1).indices[:, 0], 90).bool()
    found = denoiser.posterior(x, sigma, topk=2, mask=seen)
    scale = float(reference.model_space(data, torch.float64).flatten(1).norm(dim=1).max())
    for b in range(5):
        kept = seen[b].nonzero()[:, 0]
        agree(found, b, reference.posterior(x[b : b + 1].double(), data[kept], sigma, topk=2), scale, kept)
    torch.testing.assert_close(denoiser(x, sigma, mask=seen), found.mean)


def test_mirror_images_store_nothing_and_average_to_a_symmetric_mean() -> None:
    data = images()
    denoiser = geodiff.OptimalDenoiser(data, augment="hflip")
    assert denoiser.data.data_ptr() == data.data_ptr()
    torch.testing.assert_close(denoiser.mean, denoiser.mean.flip(-1))
    x = queries(data, 2.0)
    torch.testing.assert_close(denoiser(x.flip(-1), 2.0), denoiser(x, 2.0).flip(-1), rtol=0, atol=2e-6)


def test_mirror_images_of_what_seems_to_have_its_channels_last_are_warned_about() -> None:
    for shape in ((8, 8, 3), (8, 8, 1)):
        data = torch.randint(0, 256, (6, *shape), dtype=torch.uint8)
        with pytest.warns(
            UserWarning, match=r"augment: 'hflip' mirrors along the last .*pass data.permute\(0, 3, 1, 2\)"
        ):
            geodiff.OptimalDenoiser(data, augment="hflip")
        geodiff.OptimalDenoiser(data)
        denoiser = geodiff.OptimalDenoiser(data.permute(0, 3, 1, 2), augment="hflip")
        assert denoiser.data.data_ptr() == data.data_ptr()  # as the warning says
        x = torch.randn(2, *denoiser.shape)
        torch.testing.assert_close(denoiser(x.flip(3), 1.0), denoiser(x, 1.0).flip(3), rtol=0, atol=2e-6)
    for shape in ((3, 8, 3), (2, 3, 4)):  # [C, H, W] fits
        geodiff.OptimalDenoiser(torch.randint(0, 256, (6, *shape), dtype=torch.uint8), augment="hflip")


def test_fewer_points_than_topk_leave_minus_one() -> None:
    denoiser = geodiff.OptimalDenoiser(images(400), backend=BACKENDS[-1])
    seen = torch.zeros(2, 400, dtype=torch.bool)
    seen[:, 7] = True
    found = denoiser.posterior(queries(images(), 1.0, 2), 1.0, topk=2, mask=seen)
    assert found.indices[:, 0].tolist() == [7, 7]
    assert found.weights.tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda d, x: d(x, 1.0, torch.tensor([0, 3])), ValueError, r"class_labels: .* found 3; allowed 0 \.\. 2"),
        (lambda d, x: d(x, 1.0, torch.tensor([0, 1])), ValueError, "class_labels: expected a class with data, found 1"),
        (lambda d, x: d(x, 1.0, torch.tensor([0.0, 1.0])), TypeError, "class_labels: expected integers"),
        (lambda d, x: d(x, 1.0, torch.tensor([0, 1, 2])), ValueError, "class_labels: expected shape"),
        (lambda d, x: d(x, 1.0, torch.eye(2)), ValueError, r"class_labels: expected a one-hot \[B, K\] = \[2, 3\]"),
        (lambda d, x: d(x, 1.0, torch.ones(2, 3)), ValueError, "class_labels: expected one-hot rows"),
        (lambda d, x: d(x, 1.0, mask=torch.ones(2, 6)), TypeError, "mask: expected a supported dtype"),
        (lambda d, x: d(x, 1.0, mask=torch.ones(6).bool()), ValueError, r"mask: expected shape \[B, N\] = \[2, 6\]"),
        (lambda d, x: d(x, 1.0, mask=torch.zeros(2, 6).bool()), ValueError, "mask: expected a point of weight above 0"),
        (lambda d, x: d.posterior(x, 1.0).covariance(x[:, :3]), ValueError, "v: expected shape"),
        (lambda d, x: d.posterior(x, 1.0).covariance(x[:1]), ValueError, "v: expected one direction for each"),
        (lambda d, x: d.posterior(x, 1.0).sample(-1), ValueError, "n: expected an integer in range"),
        (lambda d, x: geodiff.OptimalDenoiser(d.data)(x, 1.0, torch.tensor([0, 0])), ValueError, "allowed only with"),
        (lambda d, x: geodiff.OptimalDenoiser(d.data, augment="vflip"), ValueError, "augment: expected a known"),
        (lambda d, x: geodiff.OptimalDenoiser(d.data, augment="hflip"), ValueError, "augment: expected data with rows"),
    ],
)
def test_bad_conditions_are_refused(call, error, message) -> None:  # type: ignore[no-untyped-def]
    data = torch.randint(0, 256, (6, 4), dtype=torch.uint8)
    denoiser = geodiff.OptimalDenoiser(data, labels=torch.tensor([0, 0, 2, 2, 0, 2]))
    with pytest.raises(error, match=message):
        call(denoiser, torch.randn(2, 4))


def test_denoising_under_a_prior_takes_no_second_look_at_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an engine knows no trace, it costs a pass in plain torch: only what needs the trace may ask for it."""
    looks: list[int] = []
    trace = moments.trace

    def noted(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        looks.append(len(x))
        return trace(x, *arguments, **options)

    monkeypatch.setattr(moments, "trace", noted)
    denoiser = geodiff.OptimalDenoiser(torch.rand(20, 3), log_weights=torch.randn(20), backend="reference")
    x = torch.randn(4, 3, requires_grad=True)
    (denoiser(x, 0.5) + denoiser.score(x, 0.5)).sum().backward()
    assert not looks
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert denoiser.divergence(x, 0.5).isfinite().all()
    assert looks == [4]


@pytest.mark.heavy
@pytest.mark.skipif("cpu" not in BACKENDS, reason=f"needs the compiled core: {geodiff.backends.available()['cpu']}")
@pytest.mark.parametrize("sigma", [1.0, 20.0])
def test_one_class_of_ten_costs_a_fifth_at_most(sigma: float) -> None:
    g = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (50000, 3072), dtype=torch.uint8, generator=g)
    denoiser = geodiff.OptimalDenoiser(data, labels=torch.arange(50000) % 10)
    x = queries(data[3::10], sigma, 16)  # points of the class that is asked for
    one, every = [], []
    for _ in range(3):
        for times, classes in ((one, torch.full((16,), 3)), (every, None)):
            denoiser(x, sigma, classes)  # calls of one kind follow each other when one samples
            for _ in range(3):
                start = time.perf_counter()
                denoiser(x, sigma, classes)
                times.append(time.perf_counter() - start)
    assert sorted(one)[4] <= 0.2 * sorted(every)[4]
