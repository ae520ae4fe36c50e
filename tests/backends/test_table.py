"""Which backend is chosen: the table's first line that fits and can be used."""

import copy
from pathlib import Path
from typing import Literal

import pytest
import torch

from geodiff import OptimalDenoiser, backends, reference
from geodiff.backends import cuda, selection
from geodiff.backends.mapped_file import MappedFile
from geodiff.backends.table import ANY, TABLE, UINT8, Rule

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def everything_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_reason_missing", lambda name: "")
    monkeypatch.setattr(cuda, "streams", lambda *arguments: True)
    monkeypatch.setattr(cuda, "dense", lambda *arguments: False)


@pytest.fixture
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_reason_missing", lambda name: "" if name in request.param else "not here")


@pytest.mark.usefixtures("everything_is_here")
@pytest.mark.parametrize(
    ("device", "dtype", "d", "batch", "name"),
    [
        (CPU, torch.uint8, 3072, 1, "cpu"),
        (CPU, torch.float32, 3, None, "cpu"),
        (GPU, torch.uint8, 3072, 1, "cuda"),
        (GPU, torch.uint8, 3072, 64, "cuda"),
        (GPU, torch.uint8, 3072, 65, "triton"),
        (GPU, torch.uint8, 3073, 1, "triton"),
        (GPU, torch.uint8, 3072, None, "triton"),
        (GPU, torch.uint8, 50_000, 1, "triton"),
        (GPU, torch.uint8, None, 1, "triton"),
        (GPU, torch.bfloat16, 3072, 1, "triton"),
        (GPU, None, 3072, 1, "triton"),
    ],
)
def test_auto(device: torch.device, dtype: torch.dtype | None, d: int | None, batch: int | None, name: str) -> None:
    assert backends.choose("auto", device, dtype=dtype, d=d, batch=batch) == name


@pytest.mark.usefixtures("everything_is_here")
@pytest.mark.parametrize("batch", [1, 64, 65, None])
def test_a_gpu_with_the_dense_pass_takes_it_for_any_number_of_queries(
    batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "dense", lambda device, dtype, d: d % 16 == 0)
    assert backends.choose("auto", GPU, dtype=torch.uint8, d=12_288, batch=batch) == "cuda"
    assert backends.choose("auto", GPU, dtype=torch.uint8, d=12_289, batch=batch) == "triton"
    assert backends.choose("auto", GPU, dtype=torch.float32, d=12_288, batch=batch) == "triton"


@pytest.mark.usefixtures("everything_is_here")
def test_a_gpu_that_cannot_take_the_data_in_one_pass_leaves_few_queries_to_the_next_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def streams(device: torch.device, dtype: torch.dtype, d: int, batch: int) -> bool:
        asked.append((device, dtype, d, batch))
        return d <= 2000

    monkeypatch.setattr(cuda, "streams", streams)
    for d, name in ((2000, "cuda"), (3072, "triton")):
        assert backends.choose("auto", GPU, dtype=torch.uint8, d=d, batch=4) == name
        assert asked.pop() == (GPU, torch.uint8, d, 4)


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
    assert backends.choose("auto", device, dtype=torch.float32, d=5) == name


@pytest.mark.usefixtures("everything_is_here")
@pytest.mark.parametrize(("name", "device"), [("cpu", GPU), ("cuda", CPU), ("triton", CPU)])
def test_a_backend_on_the_wrong_device(name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=rf"^backend: expected one that serves device .*found '{name}'; allowed"):
        backends.choose(name, device)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engines opened so far, where the table has a backend for up to four queries and another for more."""
    names: list[str] = []
    open_engine = backends.open_engine

    def noted(name: str, rows: torch.Tensor, file: MappedFile | None) -> backends.Engine:
        names.append(name)
        return open_engine(name, rows, file)

    few = Rule("reference", "cpu", UINT8, "few", largest_b=4, measured="here")
    monkeypatch.setattr(selection, "TABLE", (few, Rule("cpu", "cpu", ANY, "many")))
    monkeypatch.setattr(selection, "open_engine", noted)
    return names


@pytest.mark.parametrize("augment", [None, "hflip"])
def test_auto_chooses_call_by_call_and_opens_an_engine_when_it_is_wanted(
    opened: list[str], augment: Literal["hflip"] | None
) -> None:
    data = torch.randint(0, 256, (40, 1, 3, 5), dtype=torch.uint8)
    denoiser = OptimalDenoiser(data, augment=augment)
    assert (denoiser.backend, opened) == ("cpu", ["cpu"]), "what serves any number of queries is opened at once"
    largest = 4 if augment is None else 2  # a mirrored query counts twice
    everything = data if augment is None else torch.cat([data, data.flip(-1)])
    for batch, engines in ((largest + 1, ["cpu"]), (largest, ["cpu", "reference"]), (1, ["cpu", "reference"])):
        x = torch.randn(batch, 1, 3, 5, dtype=torch.float64)
        torch.testing.assert_close(denoiser(x, 0.7), reference.denoise(x, everything, 0.7), rtol=1e-5, atol=1e-5)
        assert opened == engines
    serving = denoiser._points.engines.serving
    assert serving(1).rows is serving(1000).rows, "the data are stored once"
    assert serving(1) is serving(2)
    twin = copy.deepcopy(denoiser)
    assert twin._points.engines.serving(1) is not serving(1)


def test_a_backend_asked_for_serves_every_call(opened: list[str]) -> None:
    denoiser = OptimalDenoiser(torch.randint(0, 256, (40, 3), dtype=torch.uint8), backend="cpu")
    denoiser(torch.randn(1, 3), 1.0)
    denoiser(torch.randn(9, 3), 1.0)
    assert opened == ["cpu"]


def test_every_threshold_says_where_it_comes_from() -> None:
    for rule in TABLE:
        threshold = rule.largest_b is not None or rule.largest_d is not None
        assert bool(rule.measured) == threshold, rule
        assert not threshold or (ROOT / rule.measured.partition(":")[0]).is_file(), "a measurement that is kept"


def test_the_explanation_is_the_table() -> None:
    lines = backends.explain()
    assert [line["backend"] for line in lines] == [rule.backend for rule in TABLE]
    assert all(line["usable"] == backends.is_available(str(line["backend"])) for line in lines)


def test_a_triton_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # so that no device is missing
    said = {}
    for version in ("3.2.0", "3.4.0", "3.10.1+git5f4"):
        monkeypatch.setattr(selection.importlib.metadata, "version", lambda name, version=version: version)
        said[version] = backends.available()["triton"]
    assert said["3.2.0"] == "triton 3.2.0 is too old: its language lacks what the kernels use, allowed 3.4 or later"
    assert said["3.4.0"] == "triton 3.4.0"
    assert said["3.10.1+git5f4"] == "triton 3.10.1+git5f4"
