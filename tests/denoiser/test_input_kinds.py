"""Data, queries and all that goes with them as arrays, lists, and what shows its memory by __dlpack__ or __array__."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import geodiff


class OnlyDlpack:
    """As arrays of JAX and CuPy are, to those who know neither."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __dlpack__(self, **options: object) -> object:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> object:
        return self.values.__dlpack_device__()


class OnlyArray:
    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.values.numpy()


class ReadOnly(OnlyArray):
    """Its __dlpack__ refuses, as that of a read-only array does."""

    def __dlpack__(self, **_: object) -> object:
        raise BufferError("read-only")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


KINDS: dict[str, Callable[[Tensor], object]] = {
    "array": lambda values: values.numpy(),
    "list": lambda values: values.tolist(),
    "tuple": lambda values: tuple(values.tolist()),
    "list of tensors": list,
    "list of arrays": lambda values: [*values.numpy()],
    "dlpack": OnlyDlpack,
    "__array__": OnlyArray,
    "read-only": ReadOnly,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Callable[[Tensor], object]:
    return KINDS[request.param]


def test_data_of_every_kind(kind: Callable[[Tensor], object]) -> None:
    data, x = torch.randn(20, 3), torch.randn(5, 3)
    labels, weights = torch.arange(20) % 3, torch.randn(20)
    expected = geodiff.OptimalDenoiser(data, labels=labels, log_weights=weights)(x, 0.6, torch.arange(5) % 3)
    found = geodiff.OptimalDenoiser(kind(data), labels=kind(labels), log_weights=kind(weights))
    assert torch.equal(found(x, 0.6, torch.arange(5) % 3), expected)


def test_queries_of_every_kind(kind: Callable[[Tensor], object]) -> None:
    denoiser = geodiff.OptimalDenoiser(torch.randn(20, 3), labels=torch.arange(20) % 3)
    x, classes = torch.randn(5, 3), torch.arange(5) % 3
    mask = torch.rand(5, 20) < 0.8
    for method in ("forward", "score", "log_prob", "divergence"):
        ask = getattr(denoiser, method)
        found = ask(kind(x), 0.6, kind(classes), mask=kind(mask))
        assert torch.equal(torch.as_tensor(found), ask(x, 0.6, classes, mask=mask))
        assert isinstance(found, np.ndarray if isinstance(kind(x), np.ndarray) else Tensor)


def test_pixels_of_every_kind(kind: Callable[[Tensor], object]) -> None:
    pixels, x = torch.randint(0, 256, (20, 1, 2, 2), dtype=torch.uint8), torch.randn(2, 1, 2, 2)
    given = kind(pixels)
    if isinstance(given, list | tuple) and not isinstance(given[0], Tensor | np.ndarray):
        with pytest.raises(TypeError, match="data: expected a supported dtype, found int64"):  # bytes, or model space?
            geodiff.OptimalDenoiser(given)
        return
    assert torch.equal(geodiff.OptimalDenoiser(given)(x, 0.5), geodiff.OptimalDenoiser(pixels)(x, 0.5))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_array_is_answered_by_an_array(dtype: type) -> None:
    denoiser = geodiff.OptimalDenoiser(torch.randn(20, 3))
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(dtype)
    found = denoiser(x, 0.7)
    assert isinstance(found, np.ndarray)
    assert found.dtype == dtype
    posterior = denoiser.posterior(x, 0.7, topk=2)
    for name in ("mean", "log_prob", "entropy", "ess", "indices", "weights", "trace"):
        assert isinstance(getattr(posterior, name), np.ndarray), name
    assert np.array_equal(posterior.mean, found)
    drawn = posterior.sample(5)
    assert isinstance(drawn, np.ndarray)
    assert drawn.shape == (4, 5)
    assert posterior.covariance(torch.randn(4, 3)).shape == (4, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda data: geodiff.denoiser.variants.TemperedDenoiser(geodiff.OptimalDenoiser(data), 2.0),
        lambda data: geodiff.denoiser.variants.SmoothedDenoiser(geodiff.OptimalDenoiser(data), 0.1),
        lambda data: geodiff.denoiser.variants.MixtureDenoiser(data, torch.full_like(data, 0.1)),
    ],
)
def test_variants_take_queries_of_any_kind(make: Callable[[Tensor], geodiff.denoiser.variants._Variant]) -> None:
    variant, x = make(torch.randn(20, 3)), torch.randn(4, 3)
    for method in ("forward", "score", "velocity"):
        ask = getattr(variant, method)
        assert isinstance(ask(x.numpy(), 0.6), np.ndarray)
        assert np.array_equal(ask(x.numpy(), 0.6), ask(x, 0.6).numpy())
        assert torch.equal(ask(x.tolist(), 0.6), ask(x, 0.6))


def test_sigma_of_an_array_kind() -> None:
    denoiser, x = geodiff.OptimalDenoiser(torch.randn(20, 3)), torch.randn(4, 3)
    levels = torch.tensor([0.1, 0.5, 1.0, 2.0])
    for given in (levels.numpy(), OnlyDlpack(levels), OnlyArray(levels), np.float32(0.5), OnlyArray(torch.tensor(0.5))):
        assert denoiser(x, given).shape == x.shape
    assert torch.equal(denoiser(x, OnlyDlpack(levels)), denoiser(x, levels))


def test_an_array_is_not_copied() -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 4), dtype=np.uint8)
    assert geodiff.OptimalDenoiser(array).data.data_ptr() == array.ctypes.data


def test_the_owner_of_an_array_may_go() -> None:
    x = torch.randn(2, 1000)
    array = np.random.default_rng(0).standard_normal((500, 1000)).astype(np.float32)
    denoiser = geodiff.OptimalDenoiser(array)
    expected = denoiser(x, 1.0)
    del array
    _ = [np.full((500, 1000), 7, np.float32) for _ in range(5)]
    assert torch.equal(denoiser(x, 1.0), expected)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (np.zeros((4, 3), np.float32)[::-1], ValueError, "negative strides"),
        (np.zeros((4, 3), ">f4"), ValueError, "byte order"),
        (np.zeros((4, 3), object), TypeError, "dtype object"),
        (np.array(["a"]), TypeError, "dtype <U1"),
        ([[1.0], [1.0, 2.0]], ValueError, "equally long lists"),
        ([["a"]], TypeError, "expected numbers, found a list of <U1"),
        (3.0, TypeError, "expected a tensor or array, found float; allowed a tensor, array or list"),
        (torch.empty(4, 3, device="meta"), ValueError, "device meta"),
    ],
)
def test_what_will_not_do_is_named(data: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=rf"^data: .*{words}"):
        geodiff.OptimalDenoiser(data)


def test_a_device_without_values_is_refused() -> None:
    denoiser, x = geodiff.OptimalDenoiser(torch.randn(4, 3)), torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"^device: .*meta"):
        denoiser.to("meta")
    with pytest.raises(ValueError, match=r"^device: .*meta"):
        geodiff.OptimalDenoiser(torch.randn(4, 3), device="meta")
    assert denoiser(x, 1.0).isfinite().all()
