"""Which backend is chosen: the table's first line that fits and can be used."""

import pytest
import torch

from geodiff import backends
from geodiff.backends.table import NOT_MEASURED, TABLE

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def everything_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_reason_missing", lambda name: "")


@pytest.fixture
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_reason_missing", lambda name: "" if name in request.param else "not here")


@pytest.mark.usefixtures("everything_is_here")
@pytest.mark.parametrize(
    ("device", "dtype", "d", "batch", "name"),
    [
        (CPU, torch.uint8, 3072, 1, "cpu"),
        (CPU, torch.float32, 3, None, "cpu"),
        (GPU, torch.uint8, 3072, 1, "cuda"),
        (GPU, torch.uint8, 3072, 16, "cuda"),
        (GPU, torch.uint8, 3072, 17, "triton"),
        (GPU, torch.uint8, 3072, None, "triton"),
        (GPU, torch.uint8, 50_000, 1, "triton"),
        (GPU, torch.uint8, None, 1, "triton"),
        (GPU, torch.bfloat16, 3072, 1, "triton"),
        (GPU, None, 3072, 1, "triton"),
    ],
)
def test_auto(device: torch.device, dtype: torch.dtype | None, d: int | None, batch: int | None, name: str) -> None:
    assert backends.choose("auto", device, dtype=dtype, n=1000, d=d, batch=batch) == name


@pytest.mark.parametrize(
    ("here", "device", "name"),
    [
        ({"reference"}, CPU, "reference"),
        ({"reference"}, GPU, "reference"),
        ({"reference", "cuda"}, GPU, "cuda"),
        ({"reference", "cuda", "cpu"}, CPU, "cpu"),
    ],
    indirect=["here"],
)
@pytest.mark.usefixtures("here")
def test_what_is_missing_is_passed_over(device: torch.device, name: str) -> None:
    assert backends.choose("auto", device, dtype=torch.float32, n=10, d=5) == name


@pytest.mark.usefixtures("everything_is_here")
@pytest.mark.parametrize(("name", "device"), [("cpu", GPU), ("cuda", CPU), ("triton", CPU)])
def test_a_backend_on_the_wrong_device(name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=rf"^backend: expected one that serves device .*found '{name}'; allowed"):
        backends.choose(name, device)


def test_every_threshold_says_where_it_comes_from() -> None:
    for rule in TABLE:
        threshold = rule.largest_b is not None or rule.largest_d is not None
        assert bool(rule.measured) == threshold, rule


def test_the_explanation_is_the_table() -> None:
    lines = backends.explain()
    assert [line["backend"] for line in lines] == [rule.backend for rule in TABLE]
    assert any(line["measured"] == NOT_MEASURED for line in lines)
    assert all(line["usable"] == backends.is_available(str(line["backend"])) for line in lines)
