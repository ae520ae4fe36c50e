"""The local denoisers' formulas, against numbers that loops over pixels give, and against their limits."""

import math

import pytest
import torch
from torch import Tensor

from geodiff import reference
from geodiff.reference import local, locality
from geodiff.reference.forms import Crops, Displaced, Form, Masks, Pairs, Windows

F64 = torch.float64


def axes(c: int, h: int, w: int) -> tuple[Tensor, Tensor, Tensor]:
    channel, u, v = torch.meshgrid(*(torch.arange(n, dtype=F64) for n in (c, h, w)), indexing="ij")
    return channel, u, v


def points(n: int = 8, c: int = 2, h: int = 6, w: int = 6) -> Tensor:
    """x_i[c, u, v] = sin(1 + 0.9 i + 0.5 c + 0.31 u (i + 1) + 0.47 v - 0.13 u v)."""
    channel, u, v = axes(c, h, w)
    i = torch.arange(n, dtype=F64)[:, None, None, None]
    return (1 + 0.9 * i + 0.5 * channel + 0.31 * u * (i + 1) + 0.47 * v - 0.13 * u * v).sin()


def query(c: int = 2, h: int = 6, w: int = 6) -> Tensor:
    """x[c, u, v] = 0.8 sin(2.8 + 0.5 c + 0.93 u + 0.47 v - 0.13 u v) + 0.4 cos(0.4 c + 1.7 u + 2.3 v), [1, C, H, W]."""
    channel, u, v = axes(c, h, w)
    far = 0.8 * (2.8 + 0.5 * channel + 0.93 * u + 0.47 * v - 0.13 * u * v).sin()
    return (far + 0.4 * (0.4 * channel + 1.7 * u + 2.3 * v).cos())[None]


def heatmaps(h: int = 6, w: int = 6) -> Tensor:
    """[H W, H, W], of pixel (a, b): exp(-((u - a)^2 + 0.5 (v - b)^2) / 2 + 0.05 sin(3 u + 5 v + u v))."""
    _, u, v = axes(1, h, w)
    a, b = u[0].flatten()[:, None, None], v[0].flatten()[:, None, None]
    return (-0.5 * ((u - a).square() + 0.5 * (v - b).square()) + 0.05 * (3 * u + 5 * v + u * v).sin()).exp()


def masks() -> Tensor:
    return locality.mask_of_heatmap(heatmaps(), 0.7)


def pairs(sigma: float, threshold: float) -> Pairs:
    found = locality.spectrum(points(), ddof=1)
    exact = locality.sensitivity(found, sigma)
    return Pairs(locality.pca_mask(found, sigma, threshold) if threshold else exact)


def form(name: str, sigma: float) -> Form:
    kind, _, option = name.partition(" ")
    if kind in ("LS", "circular", "Square"):
        k = int(option)
        return Crops(k) if kind == "Square" else Windows(k, circular=kind == "circular")
    if kind == "Flex":
        return Masks(masks())
    return pairs(sigma, float(option)) if kind == "PCA" else Displaced(int(option), kind)


# r[0,0,0], r[1,2,3], r[0,5,1], sum r, sum r^2 of one query: each posterior of each pixel written out in loops over
# pixels, offsets and images, in float64 and without anything that is tested here.
VALUES = """
LS 3 | 0.3 | +0.3349880940 -0.4734339971 +0.8658322917 -15.3534442306 +31.0999927505
LS 5 | 0.3 | +0.3349881502 -0.4734339971 +0.8342739946 -14.6709636335 +32.2910686732
circular 3 | 0.3 | +0.3349881502 -0.4734339971 +0.8342739946 -14.6709478232 +32.2910886608
LS 3 | 1.5 | +0.1892248940 -0.4893262674 +0.7450769552 -10.4041484220 +19.0049621307
LS 5 | 1.5 | +0.3415374663 -0.4736972279 +0.8139026553 -13.1839508438 +29.5059710386
circular 3 | 1.5 | +0.3493387947 -0.4893262674 +0.7779314436 -10.5929245937 +21.3482123927
torus 3 | 0.3 | +0.3351544162 -0.3613082375 +0.8341901010 -13.7021158519 +29.7849125371
torus 5 | 0.3 | +0.3349867280 -0.4718287835 +0.8342734307 -14.6858000767 +32.2347197343
valid 3 | 0.3 | +0.0308732083 -0.3613154297 +0.9938410377 -12.7598968414 +28.7633811208
valid 5 | 0.3 | +0.0040036790 -0.4734352378 +0.9637223722 -2.7057342223 +29.6761277004
broken 3 | 0.3 | +0.3349880940 -0.3613154297 +0.8733363030 -13.6473131808 +28.3192123248
broken 5 | 0.3 | +0.3349881502 -0.4734352378 +0.8342739946 -14.7610336751 +31.9508630291
torus 3 | 1.5 | +0.1513356012 -0.4724322800 +0.6666114429 -9.5249473361 +15.1858767184
torus 5 | 1.5 | -0.0885210499 -0.3960651083 +0.7381055484 -10.6329797652 +25.0097622837
valid 3 | 1.5 | +0.1745730169 -0.5164342265 +0.6971820611 -10.4847132068 +17.1833404553
valid 5 | 1.5 | -0.0318719744 -0.4123207700 +0.9011779221 -4.3012089216 +25.5195999239
broken 3 | 1.5 | +0.1892248940 -0.5164342265 +0.7280784529 -10.4194894482 +18.3940602993
broken 5 | 1.5 | +0.3415374663 -0.4123207700 +0.8139026553 -12.2191237806 +28.0171313681
Square 3 | 0.3 | +0.3349881502 -0.4734341145 +0.8342743646 -14.6709696793 +32.2910640512
Square 4 | 0.3 | +0.3349881502 -0.4734339971 +0.8342739946 -14.6709531285 +32.2910892988
Square 6 | 0.3 | +0.3349881502 -0.4734339971 +0.8342739946 -14.6709531285 +32.2910892988
Flex | 0.3 | +0.3349880708 -0.4734341025 +0.8454664399 -14.8457953212 +31.8355068739
Square 3 | 1.5 | +0.3415374663 -0.4953708600 +0.7885465271 -10.0635436675 +22.6475860125
Square 4 | 1.5 | +0.3693529182 -0.5049830114 +0.8369668895 -13.5577936559 +29.8733460473
Square 6 | 1.5 | +0.3349778385 -0.4734145400 +0.8342615693 -14.6703525261 +32.2894364843
Flex | 1.5 | +0.2509452640 -0.4811356406 +0.7039931474 -9.3357714005 +19.0655385172
PCA 0.0 | 0.3 | -0.9907360679 -0.5401993527 +0.8836172031 -15.6602616123 +32.8517519686
PCA 0.3 | 0.3 | +0.3349881502 -0.4734339971 +0.8335673348 -15.3019566730 +31.1814453730
PCA 0.0 | 1.5 | -0.7396034326 -0.5898687385 +0.7577959027 -13.8977176266 +23.3873592922
PCA 0.3 | 1.5 | +0.3793061187 -0.5130153897 +0.7585768376 -12.4243452378 +27.9057865092
"""
CASES = [tuple(part.strip() for part in line.split("|")) for line in VALUES.strip().splitlines()]


def probes(r: Tensor) -> Tensor:
    return torch.stack([r[0, 0, 0], r[1, 2, 3], r[0, 5, 1], r.sum(), r.square().sum()])


@pytest.mark.parametrize(("name", "sigma", "numbers"), CASES, ids=[f"{name}, {sigma}" for name, sigma, _ in CASES])
def test_numbers_of_a_brute_force_loop(name: str, sigma: str, numbers: str) -> None:
    expected = torch.tensor([float(number) for number in numbers.split()], dtype=F64)
    found = local.posteriors(query(), points(), float(sigma), form(name, float(sigma))).mean[0]
    torch.testing.assert_close(probes(found), expected, rtol=0, atol=1e-9)


def test_leave_one_out() -> None:
    x = points()[2:3]
    seen = local.Seen(points(), exclude=torch.tensor([2]))
    found = local.posteriors(x, seen, 0.3, Windows(3)).mean[0]
    expected = [-0.5298359019, -0.9037175837, 0.8856826652, -16.5162716834, 37.2918480534]
    torch.testing.assert_close(probes(found), torch.tensor(expected, dtype=F64), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LS 3", 6.6560347778),
        ("Square 3", 4.94958616),
        ("torus 3", 8.3761856208),
        ("valid 3", 7.1849582293),
        ("broken 3", 7.8839836233),
    ],
)
def test_the_divergence(name: str, expected: float) -> None:
    found = local.posteriors(query(), points(), 1.5, form(name, 1.5), details=True)
    assert found.variance is not None
    assert float(found.variance.sum()) / 1.5**2 == pytest.approx(expected, abs=1e-8 if name == "Square 3" else 1e-9)


@pytest.mark.parametrize("name", ["Flex", "PCA 0.3", "circular 3", "Square 4"])
def test_the_divergence_is_the_trace_of_the_jacobian(name: str) -> None:
    made = form(name, 1.5)
    found = local.posteriors(query(), points(), 1.5, made, details=True)
    jacobian = torch.func.jacrev(lambda x: local.posteriors(x, points(), 1.5, made).mean)(query())
    assert found.variance is not None
    trace = float(jacobian.reshape(72, 72).trace())
    # A number's own distance counts in its posterior once, but for PCA where the mask leaves it out.
    assert float(found.variance.sum()) / 1.5**2 == pytest.approx(trace, rel=1e-9)


@pytest.mark.parametrize(
    "made", [Windows(11), Crops(6), Masks(torch.ones(1, 6, 6, dtype=torch.bool)), Pairs(torch.ones(72, 72))]
)
def test_whole_windows_make_the_optimal_denoiser(made: Form) -> None:
    expected = reference.posterior(query(), points(), 0.7)
    found = local.posteriors(query(), points(), 0.7, made, details=True)
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-12)
    log_prob = found.log_mass.flatten() - 36 * math.log(2 * math.pi * 0.7**2)
    torch.testing.assert_close(log_prob, expected.log_prob.expand_as(log_prob))
    assert found.ess is not None
    torch.testing.assert_close(found.ess.flatten(), expected.ess.expand(found.ess.numel()))


def test_broken_windows_that_are_whole_make_ls() -> None:
    found, expected = (
        local.posteriors(query(), points(), 0.7, made).mean for made in (Displaced(11, "broken"), Windows(11))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["LS 3", "circular 3", "torus 3", "valid 3", "broken 3", "Square 3", "Flex", "PCA 0.3"]
)
def test_limits_and_symmetries(name: str) -> None:
    made = form(name, 1.5)
    far = local.posteriors(query(), points(), 1e6, made).mean
    if name.startswith(("torus", "valid")):
        inner = points() if name.startswith("torus") else points()[..., 1:-1, 1:-1]
        torch.testing.assert_close(far, inner.mean((0, 2, 3))[:, None, None].expand_as(far), rtol=0, atol=1e-9)
    elif not name.startswith("broken"):
        torch.testing.assert_close(far, points().mean(0, keepdim=True), rtol=0, atol=1e-9)
    if not name.startswith("valid"):  # where a border pixel may not be a candidate for itself
        near = local.posteriors(points()[2:3], points(), 1e-3, made).mean
        torch.testing.assert_close(near[0], points()[2], rtol=0, atol=1e-12)
    r = local.posteriors(query(), points(), 0.7, made).mean
    torch.testing.assert_close(local.posteriors(query() + 3, points() + 3, 0.7, made).mean, r + 3)
    if not name.startswith("PCA"):
        flipped = local.posteriors(query().flip(1), points().flip(1), 0.7, made).mean
        torch.testing.assert_close(flipped, r.flip(1))


@pytest.mark.parametrize(
    "name", ["LS 3", "circular 3", "torus 3", "valid 3", "broken 3", "Square 3", "Flex", "PCA 0.3"]
)
def test_mirror_images_are_further_images(name: str) -> None:
    made = form(name, 1.5)
    weights = torch.linspace(-1, 1, 8, dtype=F64)
    both = local.Seen(torch.cat([points(), points().flip(-1)]), weights.repeat(2))
    once = local.posteriors(query(), local.Seen(points(), weights, mirrored=True), 0.7, made, details=True)
    for name_, found, expected in zip(
        once._fields, once, local.posteriors(query(), both, 0.7, made, details=True), strict=True
    ):
        torch.testing.assert_close(found, expected, msg=lambda text, name_=name_: f"{name_}: {text}")


def test_tiles_and_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.cat([query(), points()[:3] + 0.3])
    expected = {
        name: local.posteriors(x, points(), 0.7, form(name, 0.7), details=True) for name in ("LS 3", "broken 3", "Flex")
    }
    monkeypatch.setattr(local, "_TILE_CPU", 3 * 72 * 4)
    monkeypatch.setattr(local, "_KEPT", 0)
    for name, whole in expected.items():
        for found, one in zip(local.posteriors(x, points(), 0.7, form(name, 0.7), details=True), whole, strict=True):
            torch.testing.assert_close(found, one)


def test_wiener() -> None:
    expected = {
        (0, 0.3): [0.2468463901, -0.3705672568, 0.6464329795, -11.7798616042, 20.4878592953],
        (1, 0.3): [0.2472908663, -0.3713861028, 0.6474824382, -11.7993041537, 20.5643761055],
        (0, 1.5): [0.2295048136, -0.2936532236, 0.4969010147, -8.4252902354, 11.4647652549],
        (1, 1.5): [0.2310140622, -0.3010319886, 0.5120863727, -8.7573853118, 12.2327679236],
    }
    for (ddof, sigma), numbers in expected.items():
        found = locality.spectrum(points(), ddof=ddof)
        r = (found.mean + locality.wiener(found, sigma) @ (query().flatten() - found.mean)).reshape(2, 6, 6)
        torch.testing.assert_close(probes(r), torch.tensor(numbers, dtype=F64), rtol=0, atol=1e-9)


def test_masks_have_the_entries_that_they_should() -> None:
    assert int(masks().sum()) == 264
    found = locality.spectrum(points(), ddof=1)
    density = [float(locality.pca_mask(found, sigma, 0.3).double().mean()) for sigma in (0.3, 1.5)]
    assert density == pytest.approx([0.260417, 0.316165], abs=1e-6)


def test_of_equal_entries_the_first_are_dropped() -> None:
    kept = locality.mask_of_heatmap(torch.ones(1, 2, 2), 0.5)
    assert kept.tolist() == [[[False, True], [True, True]]]  # 0.5, 0.75 and 1 are not below 0.5


def test_pixels_that_never_vary_divide_as_one() -> None:
    data = points().clone()
    data[:, 0, 0, 0] = 0.25
    found = locality.sensitivity(locality.spectrum(data, ddof=1), 0.3)
    assert found.isfinite().all()
    assert float(found[0].abs().max()) < 1e-12


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("sigma", [1e-3, 0.1])
def test_pixels_that_never_vary_count_for_nothing_whatever_sigma(scale: float, sigma: float) -> None:
    """In eigenvectors their variance is rounding, which over sigma^2 passes 1e-6: rounding divided by rounding."""
    data = scale * (torch.rand(300, 1, 8, 8, dtype=F64) * 2 - 1 + torch.randn(300, 1, 1, 1, dtype=F64))
    data[..., 0] = 0
    varies = data.flatten(1).std(0) > 0
    covariance = torch.cov(data.flatten(1)[:, varies].T)
    w = torch.linalg.solve(covariance + sigma**2 * torch.eye(len(covariance), dtype=F64), covariance)
    size = (w / w.diagonal()[:, None]).abs()
    expected = torch.zeros(64, 64, dtype=F64)
    expected[varies.nonzero(), varies.nonzero().T] = size
    found = locality.sensitivity(locality.spectrum(data, ddof=1), sigma).abs()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * float(expected.max()))
    mask = locality.pca_mask(locality.spectrum(data, ddof=1), sigma, 0.05)
    assert torch.equal(mask, expected >= 0.05 * expected.max())


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^masks: expected each pixel in a mask, found 35"):
        Masks(torch.nn.functional.one_hot(torch.tensor([0]), 36).bool().reshape(1, 6, 6))
    with pytest.raises(ValueError, match=r"^data: expected images"):
        local.posteriors(query(), points().flatten(1), 1.0, Windows(3))
    with pytest.raises(ValueError, match=r"^exclude: "):
        local.posteriors(query(), local.Seen(points()[:1], exclude=torch.tensor([0])), 1.0, Windows(3))
    with pytest.raises(ValueError, match=r"^x: expected within reach"):
        local.posteriors(query().float() * 1e30, points().float(), 1e-3, Windows(3))
