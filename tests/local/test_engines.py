"""What every engine of local denoisers keeps: contract 1 at every pixel, against the formulas in float64."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from geodiff.backends import Query
from geodiff.backends.cpu import PATHS, CpuEngine, Subsets, add_given, isas, use_isa
from geodiff.local.cpu import CpuLocalEngine
from geodiff.local.engine import LocalEngine, LocalQuery, layout_of
from geodiff.local.engines import ENGINES, available
from geodiff.local.plain import seen_by
from geodiff.local.products import add_to_sums
from geodiff.reference import local
from geodiff.reference.contract import pixel_errors
from geodiff.reference.forms import Crops, Displaced, Form, Masks, Pairs, Windows
from geodiff.reference.formula import model_space
from geodiff.reference.local import Posteriors

SHAPE = (3, 7, 9)
FORMS: dict[str, Form] = {
    "ls 1": Windows(1),
    "ls 3": Windows(3),
    "ls 7": Windows(7),
    "ls 17": Windows(17),
    "circular 5": Windows(5, circular=True),
    "torus 3": Displaced(3, "torus"),
    "valid 3": Displaced(3, "valid"),
    "broken 3": Displaced(3, "broken"),
    "broken 9": Displaced(9, "broken"),
    "broken 1": Displaced(1, "broken"),
    "square 1": Crops(1),
    "square 4": Crops(4),
    "square 7": Crops(7),
    "flex": Masks(torch.eye(7, dtype=torch.bool)[:, :, None].expand(7, 7, 9)),
    "pca": Pairs(torch.rand(189, 189, generator=torch.Generator().manual_seed(4)) < 0.2, 1.5),
}
LEVELS = torch.tensor([0.005, 0.1, 0.5, 1.0, 4.0, 40.0], dtype=torch.float64)


def stored(dtype: torch.dtype, n: int, form: Form) -> Tensor:
    """Images with exact and near duplicates, and flat backgrounds, where patches tie."""
    generator = torch.Generator().manual_seed(n)
    shape = (2, 5, 6) if isinstance(form, Displaced) else SHAPE  # whose candidates are as many as pixels
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
    images[: n // 3, :, :, :4] = 0
    if n > 4:
        images[3], images[4] = images[1], images[1]
        images[4, 0, 2, 5] ^= 1
    return images if dtype == torch.uint8 else (images.double() / 127.5 - 1).to(dtype)


def queries(images: Tensor) -> Tensor:
    """At a datum, between two, at the mean, and noisy ones: one for each of LEVELS, [B, C, H, W]."""
    points = model_space(images, torch.float64)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(6, *images.shape[1:], generator=generator, dtype=torch.float64) * LEVELS[:, None, None, None]
    between = (points[0] + points[-1]) / 2
    return torch.stack([points[0], between, points[-1], points.mean(0), points[0], points[-1]]) + noise * torch.tensor(
        [0, 0.5, 1, 0, 1, 1]
    ).reshape(6, 1, 1, 1)


def question(images: Tensor, form: Form) -> tuple[Tensor, LocalQuery]:
    """Rows, and a question about all of them."""
    layout = layout_of(images)
    rows = torch.as_strided(images, (len(images), images[0].numel()), (images[0].numel(), 1))
    x = layout.rows(queries(images).float())
    return rows, LocalQuery(Query(x, LEVELS, range(len(images))), form, layout)


def engine_for(name: str, rows: Tensor, asked: LocalQuery) -> LocalEngine:
    engine = ENGINES[name](rows)
    if not engine.serves(asked):
        pytest.skip(f"{name} leaves this to another engine")
    return engine


def expected(asked: LocalQuery, rows: Tensor) -> Posteriors:
    x = asked.layout.images(asked.query.x.double())
    return local.posteriors(x, seen_by(asked, rows), asked.query.sigma, asked.form, details=True)


def check(name: str, rows: Tensor, asked: LocalQuery) -> None:
    engine = engine_for(name, rows, asked)
    answer, right = engine.answer(asked), expected(asked, rows)
    images = asked.layout.images(asked.query.seen(rows))
    largest = model_space(images, torch.float64).norm(dim=1).amax(0)
    errors = pixel_errors(asked.layout.images(answer.mean), right.mean, largest)
    worst = errors.flatten(1).amax(1)
    assert bool((worst <= asked.query.tol).all()), f"worst pixel of each query {worst.tolist()}"
    assert torch.equal(engine.answer(asked).mean, answer.mean), "the same question has another answer"


@pytest.fixture(params=available())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 2, 19])
def test_contract_1_at_every_pixel(name: str, form: str, n: int) -> None:
    check(name, *question(stored(torch.uint8, n, FORMS[form]), FORMS[form]))


@pytest.mark.parametrize("form", ["ls 3", "square 4", "broken 3", "pca"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_floats(name: str, form: str, dtype: torch.dtype) -> None:
    check(name, *question(stored(dtype, 19, FORMS[form]), FORMS[form]))


@pytest.mark.parametrize("form", ["torus 3", "valid 3", "broken 3"])
@pytest.mark.parametrize("far", [1e4, 1e6])
def test_a_query_is_answered_alike_whoever_is_beside_it(name: str, form: str, far: float) -> None:
    """Images that differ by less than sigma, and one query that is far from all: float64 has digits for either."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 2, 5, 6, generator=generator) + 1e-3 * torch.randn(16, 2, 5, 6, generator=generator)
    rows, asked = question(images, FORMS[form])
    x = images[:6].flatten(1) + 1e-3 * torch.randn(6, 60, generator=generator)
    x[5] += far
    levels = torch.full((6,), 1e-3, dtype=torch.float64)
    mixed = replace(asked, query=replace(asked.query, x=x, sigma=levels))
    engine = engine_for(name, rows, mixed)
    others = replace(asked, query=replace(asked.query, x=x[:5], sigma=levels[:5]))
    expected = engine.answer(others).mean
    torch.testing.assert_close(engine.answer(mixed).mean[:5].to(expected), expected, rtol=1e-6, atol=1e-6)


def test_pixels_near_zero_whose_sums_cancel(name: str) -> None:
    """Pictures in black and white: sums in float32 have no digits left where both weigh alike."""
    g = torch.Generator().manual_seed(0)
    images = 255 * (torch.rand(300, 1, 7, 9, generator=g) < 0.5).to(torch.uint8)
    rows, asked = question(images, Windows(3))
    if ENGINES[name](rows).serves(asked):
        check(name, rows, asked)


@pytest.mark.skipif(bool(CpuLocalEngine.missing()), reason=CpuLocalEngine.missing())
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("shape", [(3, 19, 32), (1, 12, 28), (2, 9, 17), (1, 6, 64), (1, 5, 70)], ids=str)
def test_rows_of_some_registers(isa: str, shape: tuple[int, int, int]) -> None:
    """Windows along rows of every number of registers, and bands of rows, of more images than one group has."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (29, *shape), dtype=torch.uint8, generator=g)
    images[:20] = images[:1] // 2 + images[:20] // 2  # alike, so that several share the weight
    forms = (
        *(Windows(k) for k in (1, 3, 5, 7, 9, 17)),
        *(Windows(k, circular=True) for k in (3, 5, 9) if k <= shape[1]),
        *(Crops(k) for k in (1, 2, 3, 4, 5, 6, 7) if k <= shape[1]),
    )
    with use_isa(isa):
        for form in forms:
            check("cpu", *question(images, form))


WIDE = {
    (1, 3, 80): (Windows(47), Windows(79), Windows(95), Windows(127), Windows(159)),
    (1, 80, 3): (Windows(47), Windows(79), Windows(127), Windows(159)),
    (1, 50, 48): (Windows(47), Windows(95), Windows(47, circular=True), Crops(46), Crops(47), Crops(48)),
}


@pytest.mark.skipif(bool(CpuLocalEngine.missing()), reason=CpuLocalEngine.missing())
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("shape", list(WIDE), ids=str)
def test_windows_of_more_parts_than_loops_are_unrolled_for(isa: str, shape: tuple[int, int, int]) -> None:
    """A window of 47 numbers or more can be eight sums of 1, 2, 4, ... neighbours."""
    images = torch.randint(0, 256, (7, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with use_isa(isa):
        for form in WIDE[shape]:
            check("cpu", *question(images, form))


@pytest.mark.parametrize("form", [Windows(3), Windows(7, circular=True), Crops(3)], ids=str)
def test_rows_that_tie_where_logits_are_large(name: str, form: Form) -> None:
    """Queries half way between two images, of whose logits float32 has no digit behind the point."""
    images = 20 * torch.randn(40, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    rows, asked = question(images, form)
    x = ((images[:6] + images[6:12]) / 2).flatten(1)
    levels = torch.full((6,), 1e-3, dtype=torch.float64)
    tied = replace(asked, query=replace(asked.query, x=x, sigma=levels))
    if ENGINES[name](rows).serves(tied):
        check(name, rows, tied)


@pytest.mark.skipif(bool(CpuLocalEngine.missing()), reason=CpuLocalEngine.missing())
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("form", [Windows(3), Windows(17), Windows(5, circular=True), Crops(3)], ids=str)
def test_single_pixels_are_answered_in_float64(form: Form, mirrored: bool) -> None:
    """Bright pictures with two pixels that are black or white, both alike: those that float32 cannot do."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(160, 256, (18, *SHAPE), dtype=torch.uint8, generator=g)
    images[:9, :, 1, 2::4], images[9:, :, 1, 2::4] = 0, 255
    images[:, :, 1, 8] = 200
    images = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    rows, asked = question(images, form)
    prior = torch.full((18,), -20.0, dtype=torch.float64)
    prior[[3, 16]] = 0  # an effective number of two: what each is rounded by does not average out
    query = replace(
        asked.query, sigma=torch.full((6,), 40.0, dtype=torch.float64), log_prior=prior - prior.logsumexp(0)
    )
    asked = replace(asked, query=query, mirrored=mirrored)
    engine = CpuLocalEngine(rows)
    if not engine.serves(asked):
        pytest.skip("cpu leaves this to another engine")
    answer, right = engine.answer(asked), expected(asked, rows)
    assert engine._core is not None
    assert engine._core.last_paths.tolist() == [PATHS.index("dense")] * 6
    errors = pixel_errors(asked.layout.images(answer.mean), right.mean, torch.ones(SHAPE[1:]))
    assert errors[:, 1, 2].max() < 1e-12
    assert errors.max() > 1e-10, "all of it in float64"
    if answer.log_mass is not None:
        torch.testing.assert_close(answer.log_mass[:, 1, 2], right.log_mass[:, 1, 2], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("form", ["ls 3", "circular 5", "square 4", "broken 3", "pca"])
def test_conditions_and_layout(name: str, form: str) -> None:
    images = stored(torch.uint8, 19, FORMS[form]).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    rows, asked = question(images, FORMS[form])
    prior = torch.linspace(-3, 3, 19, dtype=torch.float64)
    seen = range(4, 15)
    prior = prior - prior[4:15].logsumexp(0)
    exclude = torch.tensor([4, -1, 14, 7, 5, -1])
    own = prior.expand(6, 19).clone()
    own[2, 6:9] = -torch.inf
    own = own - own[:, 4:15].logsumexp(1, keepdim=True)
    for query in (
        replace(asked.query, rows=seen),
        replace(asked.query, rows=seen, log_prior=prior),
        replace(asked.query, rows=seen, exclude=exclude),
        replace(asked.query, rows=seen, log_prior=own),
    ):
        for mirrored in (False, True):
            made = replace(asked, query=query, mirrored=mirrored)
            if ENGINES[name](rows).serves(made):
                check(name, rows, made)


@pytest.mark.parametrize("form", ["ls 3", "square 4", "torus 3", "flex", "pca"])
def test_details(name: str, form: str) -> None:
    rows, asked = question(stored(torch.uint8, 19, FORMS[form]), FORMS[form])
    asked = replace(asked, details=True, query=replace(asked.query, rows=range(2, 17)))
    answer, right = engine_for(name, rows, asked).answer(asked), expected(asked, rows)
    assert answer.variance is not None
    assert answer.ess is not None
    assert answer.nearest is not None
    assert right.nearest is not None
    torch.testing.assert_close(asked.layout.images(answer.variance.double()), right.variance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(answer.ess.double(), right.ess, rtol=1e-4, atol=1e-4)
    assert torch.equal(answer.nearest, right.nearest + 2)


@pytest.mark.skipif(bool(CpuLocalEngine.missing()), reason=CpuLocalEngine.missing())
def test_sums_by_differences_that_may_lose_digits_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-way between black and white at a level where logits are 1e6: both weigh alike, and r is 0."""
    images = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    images[1] = 255
    rows, asked = question(images, FORMS["pca"])
    lost = replace(asked.query, x=torch.zeros(2, rows.shape[1]), sigma=torch.tensor([1e-3, 10.0], dtype=torch.float64))
    answered: list[int] = []
    once = CpuEngine.subset

    def counted(self: CpuEngine, query: Query, subsets: Subsets) -> tuple[Tensor, Tensor]:
        answered.append(len(query))
        return once(self, query, subsets)

    monkeypatch.setattr(CpuEngine, "subset", counted)
    check("cpu", rows, replace(asked, query=lost))
    assert answered == [2, 1, 2, 1]


@pytest.mark.parametrize("rule", ["torus", "valid", "broken"])
def test_products_say_how_many_pairs_they_weighed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geodiff.local.products._LOGITS", 500)  # so that there is something to be left out
    rows, asked = question(stored(torch.uint8, 19, Displaced(3, rule)), Displaced(3, rule))
    asked = replace(asked, query=asked.query.picked(torch.tensor([0, 5])))
    work = ENGINES["products"](rows).answer(asked).work
    assert work is not None
    # Pixels and candidates: all; those with a whole window; and clipped alike: inside, on four edges, in four corners.
    pairs = {"torus": 30 * 30, "valid": 30 * 12, "broken": 12 * 12 + 2 * (3 * 3 + 4 * 4) + 4}
    assert work.pairs == 2 * 19 * pairs[rule]
    assert 0 < work.weighed < work.pairs


@pytest.mark.parametrize("name", isas())
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("count", [1, 7, 33, 200])
def test_given_logits_are_added_like_their_twin(name: str, channels: int, count: int) -> None:
    g = torch.Generator().manual_seed(count)
    made = [
        (torch.full((5,), -torch.inf).double(), torch.zeros(5).double(), torch.zeros(5, channels).double())
        for _ in range(2)
    ]
    pairs = weighed = 0
    for at in (0.0, -500.0, 30.0):  # the second part is left out, the third moves the maximum
        logits = at + 20 * torch.randn(5, count, generator=g, dtype=torch.float64)
        logits[2, 0], logits[4] = -torch.inf, -torch.inf
        values = torch.randn(channels, count, generator=g, dtype=torch.float64)
        with use_isa(name):
            weighed += add_given(logits, values, 40.0, made[0])
        add_to_sums(logits, values, 40.0, made[1])
        pairs += logits.numel()
    assert 0 < weighed <= pairs * 2 // 3
    assert made[0][1][4] == 0, "a row without candidates"
    for found, right in zip(made[0], made[1], strict=True):
        torch.testing.assert_close(found[:4], right[:4], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("far", [1e15, 1e17, 1e40, 1e300])
def test_given_logits_so_large_that_a_cut_is_less_than_their_rounding(far: float) -> None:
    """max - cut is max there, and even the largest logit is not above it."""
    logits, values = torch.full((1, 33), -far, dtype=torch.float64), torch.arange(33.0).double()[None]
    for name, add in (("twin", add_to_sums), *((name, add_given) for name in isas())):
        sums = torch.full((1,), -torch.inf).double(), torch.zeros(1).double(), torch.zeros(1, 1).double()
        with use_isa(name) if add is add_given else nullcontext():
            for _ in range(2):  # of equals none is lost in the second part either
                add(logits.clone(), values, 40.0, sums)
        assert (float(sums[0]), float(sums[1])) == (-far, 66)
        assert float(sums[2] / sums[1]) == 16


@pytest.mark.parametrize("rule", ["torus", "valid", "broken"])
def test_queries_too_far_away_for_any_logit_are_refused_by_name(rule: str) -> None:
    rows, asked = question(stored(torch.uint8, 5, Displaced(3, rule)), Displaced(3, rule))
    far = replace(asked, query=replace(asked.query, x=asked.query.x.double() * 1e200))
    with pytest.raises(ValueError, match=r"^x: expected within reach of the data"):
        ENGINES["products"](rows).answer(far)


def test_what_products_leave_out_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geodiff.local.products._LOGITS", 500)  # so that there is something to be left out
    for k in (3, 5):
        for rule in ("torus", "valid", "broken"):
            check("products", *question(stored(torch.uint8, 19, Displaced(k, rule)), Displaced(k, rule)))
