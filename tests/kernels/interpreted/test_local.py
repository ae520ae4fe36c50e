"""LS, ELS and PSPC-Square in Triton against the formulas in float64: what every engine of local denoisers keeps."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from geodiff import LocalDenoiser, OptimalDenoiser
from geodiff.kernels import images as kernels
from geodiff.local import triton as engine_module
from geodiff.local.engine import LocalQuery
from geodiff.local.engines import LocalEngines, available
from geodiff.local.triton import TritonLocalEngine
from geodiff.reference.forms import Crops, Displaced, Form, Windows
from tests.kernels.interpreted.counting import counted
from tests.local.test_engines import FORMS, check, expected, question
from tests.local.test_engines import stored as images_of

SERVED = [form for form in FORMS.values() if isinstance(form, (Windows, Displaced, Crops))]
WINDOWS = [Windows(1), Windows(3), Windows(7), Windows(17), Windows(5, circular=True)]
#: In tiles of 8: of most of it, or half; windows in one piece, and in pieces of two lengths.
TILED = [*map(Windows, (1, 3, 5, 17)), Windows(7, circular=True), *map(Crops, (1, 2, 4, 6))]
#: ELS; rules, windows larger than the image, and of one pixel.
PLACES = [
    *(Displaced(3, rule) for rule in ("torus", "valid", "broken")),
    Displaced(9, "broken"),
    Displaced(1, "broken"),
]
CROPS = [Crops(1), Crops(4), Crops(7)]
N = 6  # the interpreter takes ten milliseconds for a row and a query


def some(form: Form = WINDOWS[1], dtype: torch.dtype = torch.uint8, n: int = N) -> tuple[Tensor, LocalQuery]:
    """Rows, and three queries: at a datum, at the mean and noisy, at 0.005, 1 and 40."""
    rows, asked = question(images_of(dtype, n, form), form)
    return rows, replace(asked, query=asked.query.picked(torch.tensor([0, 3, 5])))


def check_all(rows: Tensor, asked: LocalQuery) -> None:
    """Contract 1 by far, and all the rest as the formulas have it."""
    with_details = asked if asked.details else replace(asked, details=True)
    answer, right = TritonLocalEngine(rows).answer(asked), expected(with_details, rows)
    assert answer.log_mass is not None
    torch.testing.assert_close(asked.layout.images(answer.mean), right.mean, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(answer.log_mass, right.log_mass, rtol=1e-12, atol=1e-12)
    if not asked.details:
        assert (answer.variance, answer.ess, answer.nearest) == (None, None, None)
        return
    assert answer.variance is not None
    assert answer.ess is not None
    assert answer.nearest is not None
    assert right.nearest is not None
    # Of (v - x)^2, which is summed up, float64 keeps 1e-16, and x^2 is 10^4 at sigma 40.
    torch.testing.assert_close(asked.layout.images(answer.variance), right.variance, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(answer.ess, right.ess, rtol=1e-9, atol=1e-9)
    seen, n = asked.query.rows, len(rows)
    copies = right.nearest >= len(seen)
    assert torch.equal(answer.nearest, right.nearest + seen.start + copies * (n - len(seen)))


def test_all_windows_are_looked_at() -> None:
    assert SERVED == WINDOWS + PLACES + CROPS


@pytest.mark.parametrize("form", WINDOWS + CROPS, ids=str)
def test_contract_1_at_every_pixel(form: Form) -> None:
    check("triton", *question(images_of(torch.uint8, N, form), form))


@pytest.mark.parametrize("form", [*PLACES, Displaced(5, "valid"), Displaced(5, "torus")], ids=str)
def test_places_of_images(form: Displaced) -> None:
    """Images of 5 x 6, channels last, some of the rows, log weights, and a row that is not seen."""
    images = images_of(torch.uint8, 5, form).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    rows, asked = question(images, form)
    seen, prior = range(1, 4), torch.linspace(-2, 1, 5, dtype=torch.float64)
    query = replace(asked.query.picked(torch.tensor([3])), rows=seen, log_prior=prior - prior[1:4].logsumexp(0))
    check_all(rows, replace(asked, query=replace(query, exclude=torch.tensor([2])), mirrored=form.k == 3))


@pytest.mark.parametrize("form", [Windows(3), Windows(5, circular=True), Crops(4)], ids=str)
def test_every_dtype(form: Form, stored: torch.dtype) -> None:
    check_all(*some(form, stored, 3))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("form", [Windows(3), Windows(5, circular=True), Crops(2)], ids=str)
def test_conditions_and_layout(form: Form, mirrored: bool) -> None:
    """Channels last, some of the rows, log weights for all queries or for each, and a row that each does not see."""
    images = images_of(torch.uint8, 9, form).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    rows, asked = question(images, form)
    asked = replace(asked, query=asked.query.picked(torch.tensor([0, 5])), mirrored=mirrored)
    seen, exclude = range(2, 7), torch.tensor([4, -1])
    shared = torch.linspace(-3, 3, 9, dtype=torch.float64)
    shared = shared - shared[2:7].logsumexp(0)
    own = shared.expand(2, 9).clone()
    own[0, 3] = -torch.inf
    own = own - own[:, 2:7].logsumexp(1, keepdim=True)
    for prior, without in ((shared, None), (own, exclude), (None, exclude)):
        query = replace(asked.query, rows=seen, log_prior=prior, exclude=without)
        check_all(rows, replace(asked, query=query, details=prior is own))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("form", [Windows(3), Crops(2)], ids=str)
def test_details(form: Form, mirrored: bool) -> None:
    """Among rows that are there twice, and patches that tie: the first of equals."""
    rows, asked = some(form, n=7)
    check_all(rows, replace(asked, details=True, mirrored=mirrored, query=replace(asked.query, rows=range(1, 7))))


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("form", TILED, ids=str)
def test_images_of_several_tiles(form: Form, details: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 8 x 8 for images of 7 x 9."""
    monkeypatch.setattr(kernels, "SIDE", 8)
    rows, asked = some(form, n=2)
    asked = replace(asked, details=details, query=asked.query.picked(torch.tensor([2])))
    check_all(rows, replace(asked, mirrored=form.k in (4, 5)))


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("form", [Windows(3), Crops(2)], ids=str)
def test_channels_in_groups(form: Form, channels: int, details: bool) -> None:
    rows, asked = question(torch.randint(0, 256, (3, channels, 3, 5), dtype=torch.uint8), form)
    check_all(rows, replace(asked, details=details, query=asked.query.picked(torch.tensor([3, 5]))))


def test_places_of_images_of_many_channels() -> None:
    rows, asked = question(torch.randint(0, 256, (2, 5, 3, 4), dtype=torch.uint8), Displaced(3, "broken"))
    check_all(rows, replace(asked, query=asked.query.picked(torch.tensor([3]))))


@pytest.mark.parametrize("parts", [1, 3, 20])
@pytest.mark.parametrize("form", [Windows(3), Crops(2)], ids=str)
def test_shares_of_the_rows(form: Form, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_PARTS", parts)
    rows, asked = some(form, n=20)
    for details in (False, True) if form == Crops(2) else (True,):
        check_all(rows, replace(asked, details=details, query=asked.query.picked(torch.tensor([1]))))


@pytest.mark.parametrize("form", [Windows(3), Crops(2)], ids=str)
def test_what_nobody_wrote_is_not_read(form: Form) -> None:
    """Under deterministic algorithms torch.empty is NaN."""
    rows, asked = question(torch.randint(0, 256, (3, 6, 3, 5), dtype=torch.uint8), form)
    torch.use_deterministic_algorithms(True)
    try:
        for details in (False, True):
            check_all(rows, replace(asked, details=details, query=asked.query.picked(torch.tensor([3]))))
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_window_over_all_is_the_optimal_denoiser() -> None:
    data = images_of(torch.uint8, N, Windows(3))
    x = torch.randn(2, *data.shape[1:], dtype=torch.float64)
    found = LocalDenoiser(data, patch=17, backend="triton")(x, 1.0)
    torch.testing.assert_close(found, OptimalDenoiser(data, backend="reference")(x, 1.0), rtol=1e-9, atol=1e-10)
    data, x = data[..., :7], x[..., :7]
    found = LocalDenoiser(data, kind="pspc_square", patch=7, backend="triton")(x, 1.0)
    torch.testing.assert_close(found, OptimalDenoiser(data, backend="reference")(x, 1.0), rtol=1e-9, atol=1e-10)


def test_pixels_near_zero_whose_sums_cancel() -> None:
    """Pictures in black and white: sums in float32 have no digits left where both weigh alike."""
    images = 255 * (torch.rand(30, 1, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.5).to(torch.uint8)
    rows, asked = question(images, Windows(3))
    check("triton", rows, replace(asked, query=asked.query.picked(torch.tensor([3]))))


@pytest.mark.parametrize("form", [Windows(3), Crops(2)], ids=str)
def test_queries_pass_by_pass(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, asked = some(form, n=3)
    own = torch.randn(3, 3, dtype=torch.float64).log_softmax(1)
    query = replace(asked.query, log_prior=own, exclude=torch.tensor([1, -1, 0]))
    asked = replace(asked, query=query, details=True)
    together = TritonLocalEngine(rows).answer(asked)
    monkeypatch.setattr(engine_module, "_QUERIES", 2)
    apart = TritonLocalEngine(rows).answer(asked)
    for name in ("mean", "log_mass", "variance", "ess", "nearest"):
        assert torch.equal(getattr(apart, name), getattr(together, name)), name


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("form", [Windows(3), Crops(2)], ids=str)
def test_few_launches_and_no_wait(form: Form, details: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    launches = ["local_kernel", "local_merge_kernel"]
    if isinstance(form, Crops):
        second = "crops_apart_kernel" if details else "crops_sum_kernel"
        launches = ["crops_mass_kernel", "local_merge_kernel", second, "crops_merge_kernel"]
    for rows, asked in (some(form, n=2), some(form, n=5)):
        own = torch.randn(3, len(rows), dtype=torch.float64).log_softmax(1)
        asked = replace(asked, query=replace(asked.query, log_prior=own), details=details)
        engine = TritonLocalEngine(rows)
        with counted(monkeypatch) as count:
            assert engine.serves(asked)
            engine.answer(asked)
        assert not count.waits, f"the host waits: {dict(count.waits)}"
        assert count.launches == dict.fromkeys(launches, 1)


def test_rows_that_are_no_numbers_are_refused() -> None:
    rows = some(dtype=torch.float32)[0].clone()
    rows[4, 7] = torch.nan
    with pytest.raises(ValueError, match=r"^data: "):
        TritonLocalEngine(rows)


def test_who_is_served() -> None:
    rows, asked = some(n=2)
    assert "triton" in available()
    assert "triton" not in LocalEngines("auto", rows).names, "interpreted without being asked for"
    assert LocalEngines("triton", rows).names == ["triton"]
    engine = TritonLocalEngine(rows)
    assert engine.serves(asked)
    assert engine.serves(replace(asked, form=Crops(3), details=True))
    assert engine.serves(replace(asked, form=Displaced(3, "torus")))
    assert not engine.serves(replace(asked, form=Displaced(3, "torus"), details=True))
    assert not engine.serves(replace(asked, form=Displaced(8, "torus"))), "which would count a pixel twice"
    assert not engine.serves(replace(asked, form=Windows(8, circular=True))), "which would count a pixel twice"
    x = asked.query.x.double()
    assert engine.serves(replace(asked, query=replace(asked.query, x=x)))
    assert not engine.serves(replace(asked, query=replace(asked.query, x=x * 1e200)))
