"""LS, ELS and PSPC-Square on a real GPU, against the formulas in float64: contract 1 at every pixel."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from geodiff import LocalDenoiser
from geodiff.local.engines import LocalEngines
from geodiff.reference.contract import pixel_errors
from geodiff.reference.forms import Crops, Form, Windows
from geodiff.reference.formula import model_space
from tests.gpu.needed import need_backend
from tests.local.test_engines import LEVELS, expected, question, stored

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
FORMS = [Windows(1), Windows(3), Windows(7), Windows(17), Windows(63), Windows(5, circular=True)]
#: Each with an image that it fits into, in one tile, several, and pieces.
CROPS = [(3, (3, 32, 32)), (8, (1, 28, 28)), (32, (4, 32, 32)), (4, (6, 9, 5)), (3, (3, 64, 64)), (12, (2, 40, 33))]
#: In one tile; lines and columns that are no powers of two; more channels than a program sums; several tiles.
SHAPES = [(3, 32, 32), (1, 28, 28), (6, 9, 5), (3, 64, 64), (2, 40, 33)]


@pytest.fixture(autouse=True)
def _triton(device: torch.device) -> None:
    need_backend("triton")


def some_data(n: int, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Smooth pictures, of which one is there twice."""
    generator = torch.Generator().manual_seed(n)
    points = torch.randn(n, *shape, generator=generator).cumsum(-1).cumsum(-2)
    points = points / points.abs().amax((1, 2, 3), keepdim=True)
    points[-1] = points[0]
    pixels = ((points + 1) * 127.5).round().to(torch.uint8)
    return (pixels if dtype == torch.uint8 else points.to(dtype)).to("cuda")


def noisy(data: Tensor) -> tuple[Tensor, Tensor]:
    """A query at each of LEVELS."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(len(LEVELS), *data.shape[1:], generator=generator)
    levels = LEVELS.to(data.device)
    points = model_space(data[torch.arange(len(LEVELS)) % len(data)], torch.float32)
    return points + levels.float()[:, None, None, None] * noise.to(data.device), levels


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_contract_1_at_every_pixel(form: Windows, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    check("ls_circular" if form.circular else "ls", form.k, shape, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("k", "shape"), CROPS, ids=str)
def test_crops(k: int, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    check("pspc_square", k, shape, dtype)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rule", ["torus", "valid", "broken"])
@pytest.mark.parametrize(("k", "shape"), [(3, (3, 32, 32)), (7, (1, 28, 28)), (5, (6, 9, 7))], ids=str)
def test_places_of_images(k: int, shape: tuple[int, int, int], rule: str, mirrored: bool) -> None:
    data = some_data(40, shape, torch.uint8)
    x, levels = noisy(data)
    answers = []
    for backend in ("triton", "reference"):
        made = LocalDenoiser(data, kind=f"els_{rule}", patch=k, backend=backend, augment="hflip" if mirrored else None)
        answers.append(made(x.double(), levels))
    torch.testing.assert_close(*answers, rtol=1e-9, atol=1e-9)


def check(kind: str, k: int, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    data = some_data(300, shape, dtype)
    x, levels = noisy(data)
    found = LocalDenoiser(data, kind=kind, patch=k, backend="triton")
    right = LocalDenoiser(data, kind=kind, patch=k, backend="reference")
    largest = model_space(data, torch.float64).norm(dim=1).amax(0)
    worst = pixel_errors(found(x.double(), levels), right(x.double(), levels), largest).flatten(1).amax(1)
    assert bool((worst <= 1e-5).all()), f"worst pixel of each level {worst.tolist()}"
    assert torch.equal(found(x, levels), found(x, levels)), "the same question has another answer"
    one, other = found.posteriors(x, levels), right.posteriors(x, levels)
    torch.testing.assert_close(one.ess, other.ess, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one.log_mass, other.log_mass, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one.variance, other.variance, rtol=1e-5, atol=1e-8)
    assert torch.equal(one.nearest, other.nearest)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("form", [Windows(3), Windows(5, circular=True), Crops(4)], ids=str)
def test_conditions_and_layout(form: Form, mirrored: bool) -> None:
    images = stored(torch.uint8, 19, form).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    rows, asked = question(images, form)
    own = torch.randn(len(asked.query), 19, dtype=torch.float64)
    own = (own - own[:, 4:15].logsumexp(1, keepdim=True)).cuda()
    exclude = torch.tensor([4, -1, 14, 7, 5, -1], device="cuda")
    query = replace(asked.query, x=asked.query.x.cuda(), sigma=asked.query.sigma.cuda(), rows=range(4, 15))
    for prior, without in ((None, None), (own[0], None), (own, None), (None, exclude), (own, exclude)):
        made = replace(asked, query=replace(query, log_prior=prior, exclude=without), mirrored=mirrored, details=True)
        answer, right = LocalEngines("triton", rows.cuda()).answer(made), expected(made, rows.cuda())
        torch.testing.assert_close(asked.layout.images(answer.mean), right.mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(answer.log_mass, right.log_mass, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_an_answer_waits_for_nothing() -> None:
    rows, asked = question(stored(torch.uint8, 19, Windows(3)), Windows(3))
    sigma = asked.query.sigma.cuda()
    asked = replace(asked, query=replace(asked.query, x=asked.query.x.cuda(), sigma=sigma))
    engines = LocalEngines("auto", rows.cuda())
    assert engines.names[0] == "triton"
    first = engines.answer(asked).mean
    mode = torch.cuda.get_sync_debug_mode()
    try:
        torch.cuda.set_sync_debug_mode("error")
        again = engines.answer(asked).mean
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert torch.equal(again, first)


@pytest.mark.parametrize("kind", ["ls", "pspc_square"])
def test_memory_is_the_data_and_a_fixed_budget(kind: str) -> None:
    data = torch.randint(0, 256, (20_000, 3, 32, 32), dtype=torch.uint8, device="cuda")
    denoiser = LocalDenoiser(data, kind=kind, patch=7, backend="triton")
    x = torch.randn(64, 3, 32, 32, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    denoiser(x, 1.0)
    assert torch.cuda.max_memory_allocated() - before <= 2**28
