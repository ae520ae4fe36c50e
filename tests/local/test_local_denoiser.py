"""LocalDenoiser: conditions, levels, derivatives, moves and refusals, for every kind."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import LocalDenoiser, OptimalDenoiser
from geodiff.local.registry import TAKES
from geodiff.reference import local
from geodiff.reference.forms import Crops, Windows

SHAPE = (2, 6, 5)
GENERATOR = torch.Generator().manual_seed(0)
DATA = torch.randint(0, 256, (12, *SHAPE), dtype=torch.uint8, generator=GENERATOR)
X = torch.randn(4, *SHAPE, generator=GENERATOR)
#: The pixels of the same row, for each row.
MASKS = torch.eye(6, dtype=torch.bool)[:, :, None].expand(6, 6, 5)
KINDS = list(geodiff.local.KINDS)


def make(kind: str, data: Tensor = DATA, **options: Any) -> LocalDenoiser:
    return LocalDenoiser(data, kind=kind, masks=MASKS if kind == "pspc_flex" else None, **options)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_subset_is_what_every_condition_leaves(kind: str) -> None:
    if kind == "pca":
        pytest.skip("its masks are made of all data, whatever is left")
    labels = torch.arange(12) % 3
    expected = make(kind, DATA[labels == 1])(X, 0.7)
    torch.testing.assert_close(make(kind, labels=labels)(X, 0.7, torch.ones(4, dtype=torch.int64)), expected)
    torch.testing.assert_close(make(kind)(X, 0.7, mask=(labels == 1).expand(4, 12)), expected)
    weights = torch.zeros(12).masked_fill(labels != 1, -torch.inf)
    torch.testing.assert_close(make(kind, log_weights=weights)(X, 0.7), expected)
    without = make(kind, torch.cat([DATA[:4], DATA[5:]]))(X, 0.7)
    torch.testing.assert_close(make(kind)(X, 0.7, exclude=torch.full((4,), 4)), without)


def test_classes_and_levels_of_a_batch_are_answered_one_by_one(kind: str) -> None:
    windows = {"patch": lambda sigma: 3 if sigma < 1 else 5} if "patch" in TAKES[kind] else {}
    denoiser = make(kind, labels=torch.arange(12) % 3, **windows)
    classes, levels = torch.tensor([2, 0, 1, 2]), torch.tensor([0.3, 2.0, 0.3, 2.0])
    exclude = torch.tensor([5, -1, 1, 2])
    together = denoiser(X, levels, classes, exclude=exclude)
    for b in range(4):
        one = slice(b, b + 1)
        torch.testing.assert_close(denoiser(X[one], levels[b], classes[one], exclude=exclude[one])[0], together[b])


def test_mirror_images_are_data(kind: str) -> None:
    both = make(kind, torch.cat([DATA, DATA.flip(-1)]))
    mirrored = make(kind, augment="hflip")
    if kind == "pca":  # whose covariance has 1 / (2 N - 1) either way
        assert mirrored._kind.form(0.7, both_source := _source(mirrored)).matrix.shape == (60, 60)  # type: ignore[attr-defined]
        assert both_source.mirrored
    torch.testing.assert_close(mirrored(X, 0.7), both(X, 0.7))
    torch.testing.assert_close(mirrored.divergence(X, 0.7), both.divergence(X, 0.7))
    torch.testing.assert_close(mirrored.posteriors(X, 0.7).nearest, both.posteriors(X, 0.7).nearest)
    torch.testing.assert_close(
        mirrored(X, 0.7, exclude=torch.full((4,), 15)), mirrored(X, 0.7, exclude=torch.full((4,), 3))
    )


def _source(denoiser: LocalDenoiser) -> Any:
    from geodiff.local.kind import Source

    return Source(denoiser.data, denoiser.augment is not None, "test")


def test_data_in_any_order_of_axes(kind: str) -> None:
    hwc = DATA.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(make(kind, hwc)(X, 0.7), make(kind)(X, 0.7))
    posteriors = make(kind, hwc).posteriors(X, 0.7)
    torch.testing.assert_close(posteriors.variance, make(kind).posteriors(X, 0.7).variance)


def test_the_divergence_is_the_trace_of_the_jacobian(kind: str) -> None:
    masks = torch.eye(4, dtype=torch.bool)[:, :, None].expand(4, 4, 3)
    denoiser = LocalDenoiser(DATA[..., :4, :3], kind=kind, masks=masks if kind == "pspc_flex" else None)
    x = X[:1, :, :4, :3].double().requires_grad_()
    r = denoiser(x, 0.9).flatten()
    trace = sum(torch.autograd.grad(r[m], x, retain_graph=True)[0].flatten()[m] for m in range(len(r)))
    torch.testing.assert_close(denoiser.divergence(x.detach(), 0.9)[0], trace)


def test_a_gradient_in_sigma(kind: str) -> None:
    sigma = torch.tensor([0.7, 0.8, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    options = {"threshold": 0.9} if kind == "pca" else {}
    denoiser = make(kind, backend="reference", **options)  # differences of 1e-6 ask for more than tol
    v = torch.randn(X.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (found,) = torch.autograd.grad((denoiser(X.double(), sigma) * v).sum(), sigma)
    step = 1e-6
    with torch.no_grad():
        ahead, behind = ((denoiser(X.double(), sigma + s) * v).sum((1, 2, 3)) for s in (step, -step))
    torch.testing.assert_close((ahead - behind) / (2 * step), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("els")])  # whose places are no copies
@pytest.mark.parametrize("far", [1.0, 1e2, 1e4])
def test_copies_of_one_image_have_no_gradient_however_far_x_is(kind: str, far: float) -> None:
    x = (far * X[:1].double()).requires_grad_()
    sigma = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    r = make(kind, DATA[:1].expand(3, *SHAPE).contiguous())(x, sigma)
    v = torch.randn(r.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    by_x, by_sigma = torch.autograd.grad(r, (x, sigma), v)
    assert by_x.abs().max() <= 1e-12
    assert by_sigma.abs() <= 1e-12


def test_numbers_of_float64_data_are_those_of_the_formula() -> None:
    data = DATA.double() / 127.5 - 1
    expected = local.posteriors(X.double(), data, 0.5, Windows(3)).mean
    torch.testing.assert_close(LocalDenoiser(data)(X.double(), 0.5), expected, rtol=0, atol=1e-12)


def test_whole_windows_make_the_optimal_denoiser() -> None:
    expected = OptimalDenoiser(DATA)(X, 0.7)
    torch.testing.assert_close(LocalDenoiser(DATA, patch=11)(X, 0.7), expected, rtol=1e-5, atol=1e-5)
    square = DATA[..., :5, :5].contiguous()
    found = LocalDenoiser(square, kind="pspc_square", patch=5)(X[..., :5, :5], 0.7)
    torch.testing.assert_close(found, OptimalDenoiser(square)(X[..., :5, :5], 0.7), rtol=1e-5, atol=1e-5)


def test_posteriors_of_every_query() -> None:
    denoiser = LocalDenoiser(DATA, labels=torch.arange(12) % 3, kind="pspc_square", patch=2)
    found = denoiser.posteriors(X, 0.7, torch.tensor([2, 0, 1, 2]))
    expected = local.posteriors(X[1:2].double(), DATA[0::3], 0.7, Crops(2), details=True)
    assert expected.nearest is not None
    assert found.nearest is not None
    torch.testing.assert_close(found.ess[1:2], expected.ess.float())  # type: ignore[index, union-attr]
    assert torch.equal(found.nearest[1:2], 3 * expected.nearest)
    sizes = LocalDenoiser(DATA, kind="pspc_square", patch=lambda sigma: 2 if sigma < 1 else 3)
    with pytest.raises(ValueError, match=r"^sigma: expected levels with crops of one size"):
        sizes.posteriors(X, torch.tensor([0.5, 1.5, 0.5, 0.5]))
    with pytest.raises(ValueError, match=r"^x: expected a query"):
        denoiser.posteriors(X[:0], 0.7)


def test_velocity_and_score_go_with_r() -> None:
    denoiser = LocalDenoiser(DATA)
    r = denoiser(X.double() / 0.6, 0.4 / 0.6)
    torch.testing.assert_close(denoiser.velocity(X.double(), 0.4), (X.double() - r) / 0.4, rtol=1e-5, atol=1e-5)
    expected = (denoiser(X.double(), 0.7) - X.double()) / 0.49
    torch.testing.assert_close(denoiser.score(X.double(), 0.7), expected, rtol=1e-5, atol=1e-5)


def test_copies_pickles_and_states(kind: str) -> None:
    denoiser = make(kind, log_weights=torch.linspace(-1, 1, 12), augment="hflip")
    expected = denoiser(X, 0.7)
    for twin in (copy.deepcopy(denoiser), pickle.loads(pickle.dumps(denoiser)), denoiser.to("cpu")):
        assert torch.equal(twin(X, 0.7), expected)
        denoiser.load_state_dict(twin.state_dict())
    with pytest.raises(ValueError, match=r"^state_dict: expected that of a denoiser over the same data"):
        make(kind).load_state_dict(denoiser.state_dict())


def test_changed_data_are_noticed(kind: str) -> None:
    data = DATA.clone()
    denoiser = make(kind, data)
    denoiser(X, 0.7)
    data[:] = DATA.flip(0)
    data[0] = 7
    assert torch.equal(denoiser(X, 0.7), make(kind, data)(X, 0.7))


def test_arrays_are_answered_with_arrays() -> None:
    denoiser = LocalDenoiser(DATA.numpy())
    found = denoiser(X.numpy(), 0.7)
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, denoiser(X, 0.7).numpy())
    for method in ("divergence", "score", "velocity"):
        ask = getattr(denoiser, method)
        assert isinstance(ask(X.numpy(), 0.7), np.ndarray)
        assert np.array_equal(ask(X.numpy(), 0.7), ask(X, 0.7).numpy())
        assert torch.equal(ask(X.tolist(), 0.7), ask(X, 0.7))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "lss"}, ValueError, r"^kind: expected a known kind, found 'lss'; allowed \['ls'"),
        ({"patch": 4}, ValueError, r"^patch: expected an odd number of pixels"),
        ({"patch": 0}, ValueError, r"^patch: expected an integer in range, found 0"),
        ({"patch": 3.0}, TypeError, r"^patch: expected an integer, found float"),
        ({"kind": "ls_circular", "patch": 7}, ValueError, r"^patch: .* allowed 1..5"),
        ({"kind": "pspc_square", "patch": 6}, ValueError, r"^patch: .* allowed 1..5"),
        ({"kind": "pspc_flex"}, ValueError, r"^masks: expected masks"),
        (
            {"kind": "pspc_flex", "masks": MASKS[:, :5]},
            ValueError,
            r"^masks: expected \[A, H, W\] with H, W = \[6, 5\]",
        ),
        ({"kind": "pca", "threshold": 0.0}, ValueError, r"^threshold: .* allowed 0 < threshold <= 1"),
        ({"kind": "pca", "temperature": -1}, ValueError, r"^temperature: "),
        ({"kind": "pca", "pool_average": 0}, ValueError, r"^pool_average: "),
        ({"pool_average": 5}, ValueError, r"^pool_average: expected with kind 'pca', found 'ls'"),
        ({"masks": MASKS}, ValueError, r"^masks: expected with kind 'pspc_flex', found 'ls', which takes patch; "),
        ({"threshold": 0.05}, ValueError, r"^threshold: expected with kind 'pca', found 'ls'"),
        ({"kind": "pspc_flex", "masks": MASKS, "temperature": 1.0}, ValueError, r"^temperature: .* found 'pspc_flex'"),
        (
            {"kind": "pca", "patch": 3},
            ValueError,
            r"^patch: expected .* 'pca', which takes threshold, .*; allowed None, or ls",
        ),
        ({"data": DATA.flatten(1)}, ValueError, r"^data: expected images \[N, C, H, W\], found points of shape \[60\]"),
        ({"tol": 1.0}, ValueError, r"^tol: "),
        ({"backend": "gpu"}, ValueError, r"^backend: expected a known name"),
    ],
)
def test_bad_settings_are_refused_by_name(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LocalDenoiser(**{"data": DATA, **options})


def test_bad_queries_are_refused_by_name() -> None:
    denoiser = LocalDenoiser(DATA, patch=lambda sigma: 4)
    with pytest.raises(ValueError, match=r"^patch: expected an odd"):
        denoiser(X, 0.5)
    denoiser = LocalDenoiser(DATA)
    with pytest.raises(ValueError, match=r"^x: expected finite"):
        denoiser(X * torch.nan, 0.5)
    with pytest.raises(TypeError, match=r"^x: expected a supported dtype, found int64"):
        denoiser.score(X.long(), 0.5)
    with pytest.raises(TypeError, match=r"^log_prob: expected a denoiser whose field is a gradient, found kind 'ls'"):
        denoiser.log_prob(X, 0.5)
    with pytest.raises(TypeError, match=r"^x: expected tensors outside of torch.func"):
        torch.func.vjp(lambda x: denoiser(x, 0.5), X)


def test_masks_by_level() -> None:
    heatmaps = torch.rand(2, 6, 5, 6, 5, generator=torch.Generator().manual_seed(1))
    masks = geodiff.local.flex_masks(heatmaps, [0.1, 10.0], [0.4, 1.0])
    assert masks(6.0).shape == (1, 6, 5)
    assert bool(masks(6.0).all())
    kept = masks(5.0)
    held = (heatmaps[0].flatten(0, 1) * kept).sum((1, 2)) / heatmaps[0].flatten(0, 1).sum((1, 2))
    assert float(held.min()) >= 0.4
    torch.testing.assert_close(
        LocalDenoiser(DATA, kind="pspc_flex", masks=masks)(X, 8.0), OptimalDenoiser(DATA)(X, 8.0), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"^heatmaps: expected \[L, H, W, H, W\]"):
        geodiff.local.flex_masks(heatmaps, [0.1], [0.4])
    with pytest.raises(ValueError, match=r"^shares: "):
        geodiff.local.flex_masks(heatmaps, [0.1, 1.0], [0.4, 1.5])


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        (0.3, [0.2185295433, -0.6378753049, 0.7801268672, -5.1048000181, 20.2949601534]),
        (1.5, [0.2113698966, -0.5267841664, 0.7052778569, -5.2970737734, 17.0290626894]),
    ],
)
def test_pool_average_is_what_published_code_computes(sigma: float, expected: list[float]) -> None:
    """Batches of 3, 3 and 2 of eight images: values of that code, re-run."""
    c, u, v = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (2, 6, 6)), indexing="ij")
    i = torch.arange(8, dtype=torch.float64)[:, None, None, None]
    data = (1 + 0.9 * i + 0.5 * c + 0.31 * u * (i + 1) + 0.47 * v - 0.13 * u * v).sin()
    far = 0.8 * (2.8 + 0.5 * c + 0.93 * u + 0.47 * v - 0.13 * u * v).sin()
    x = (far + 0.4 * (0.4 * c + 1.7 * u + 2.3 * v).cos())[None]
    denoiser = LocalDenoiser(data, kind="pca", threshold=0.3, pool_average=3)
    r = denoiser(x, sigma)[0]
    found = [r[0, 0, 0], r[1, 2, 3], r[0, 5, 1], r.sum(), r.square().sum()]
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)
    stored = LocalDenoiser(data.float(), kind="pca", threshold=0.3, pool_average=3)
    torch.testing.assert_close(stored(x.float(), sigma)[0].double(), r, rtol=1e-5, atol=1e-6)


def test_pool_average_refuses_what_it_does_not_define() -> None:
    denoiser = make("pca", pool_average=5)
    whole = make("pca", pool_average=12)
    torch.testing.assert_close(whole(X, 0.7), make("pca")(X, 0.7))
    torch.testing.assert_close(whole.divergence(X, 0.7), make("pca").divergence(X, 0.7))
    with pytest.raises(ValueError, match=r"^pool_average: expected images that weigh alike"):
        denoiser(X, 0.7, exclude=torch.full((4,), 4))
    with pytest.raises(ValueError, match=r"^pool_average: expected None for posteriors, found 5"):
        denoiser.posteriors(X, 0.7)
    with pytest.raises(ValueError, match=r"^pool_average: expected None for a gradient"):
        denoiser(X.clone().requires_grad_(), 0.7)
