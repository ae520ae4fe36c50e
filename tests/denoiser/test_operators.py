"""The torch operators: opcheck, torch.compile, and a denoiser that is moved, copied and thrown away."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch import Tensor

import geodiff
from geodiff.denoiser import content, derivatives
from geodiff.denoiser.conditioning import Batch
from geodiff.denoiser.operators import Question
from geodiff.denoiser.point_set import PointSet

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
]


@pytest.fixture(params=["reference", "cpu"])
def denoiser(request: pytest.FixtureRequest) -> geodiff.OptimalDenoiser:
    if not geodiff.backends.is_available(request.param):
        pytest.skip(geodiff.backends.available()[request.param])
    data = torch.randint(0, 256, (60, 3, 4, 5), dtype=torch.uint8)
    return geodiff.OptimalDenoiser(data, labels=torch.arange(60) % 3, backend=request.param)


def test_opcheck(denoiser: geodiff.OptimalDenoiser) -> None:
    x = torch.randn(3, 60, requires_grad=True)
    sigma = torch.full((3,), 0.7, dtype=torch.float64, requires_grad=True)
    query = Question.of(
        Batch(x, sigma, torch.tensor([0, 2, 1]), None, torch.tensor([3, -1, 4]), 1e-5), denoiser._points
    )
    mean, log_prob, _, _, trace, _, _ = derivatives.posterior(denoiser._points, *query, 2, True)
    ops = torch.ops.geodiff
    torch.library.opcheck(ops.posterior, (*query, 3, True))
    # A trace that was not asked for is NaN, which the comparisons with AOT autograd do not take for equal.
    torch.library.opcheck(ops.posterior, (*query, 3, False), test_utils=("test_schema", "test_faketensor"))
    # Without requires_grad: second derivatives are not for compilation.
    fixed = (*query._replace(x=x.detach(), sigma=sigma.detach()), mean.detach(), trace.detach())
    torch.library.opcheck(ops.posterior_vjp, (*fixed, torch.randn_like(mean), torch.randn_like(log_prob)))
    torch.library.opcheck(ops.posterior_jvp, (*fixed, torch.randn(3, 60), None))


@pytest.mark.parametrize("topk", [0, 3])
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_outputs_share_no_memory(denoiser: geodiff.OptimalDenoiser, batch: int, topk: int) -> None:
    x, sigma = torch.randn(batch, 60), torch.full((batch,), 0.7, dtype=torch.float64)
    query = Question.of(Batch(x, sigma, None, None, torch.arange(batch), 1e-5), denoiser._points)
    ops = torch.ops.geodiff
    answer = ops.posterior(*query, topk, True)
    change = (*query, answer[0], answer[4], torch.randn_like(answer[0]), torch.randn(batch, dtype=torch.float64))
    for out in (answer, ops.posterior(*query, topk, False), ops.posterior_vjp(*change), ops.posterior_jvp(*change)):
        tensors = [value for value in (*query, *out) if isinstance(value, Tensor) and value.numel()]
        held = [value.untyped_storage().data_ptr() for value in tensors]
        assert len(set(held)) == len(held)


def _step(denoiser: geodiff.OptimalDenoiser) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def step(x: Tensor, sigma: Tensor, classes: Tensor) -> Tensor:
        denoised = denoiser(x, sigma, classes)
        return x + (0.5 * sigma - sigma) * (x - denoised) / sigma

    return step


@pytest.fixture
def quick_compiler() -> Iterator[None]:
    """Inductor believes the compiler: it would try each instruction set first, and precompile headers for one use."""
    config = torch._inductor.config
    settings: dict[str, Any] = {"cpp.vec_isa_ok": True, "cpp_cache_precompile_headers": False}
    with config.patch({name: value for name, value in settings.items() if name in config.get_config_copy()}):
        yield


@pytest.mark.usefixtures("quick_compiler")
def test_compiled_step_gives_the_same_numbers_and_gradients() -> None:
    data = torch.randint(0, 256, (60, 3, 4, 5), dtype=torch.uint8)
    denoiser = geodiff.OptimalDenoiser(data, labels=torch.arange(60) % 3)
    step = _step(denoiser)
    compiled = torch.compile(step, fullgraph=True)
    x = torch.randn(4, 3, 4, 5, requires_grad=True)
    sigma, classes = torch.tensor(1.5), torch.tensor([0, 1, 2, 0])
    found, expected = compiled(x, sigma, classes), step(x, sigma, classes)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    v = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, x, v)[0], torch.autograd.grad(expected, x, v)[0], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="x: expected finite"):
        compiled(torch.full_like(x, torch.nan, requires_grad=True), sigma, classes)


def test_copies_answer_alike_and_a_shallow_one_shares_what_it_copies(denoiser: geodiff.OptimalDenoiser) -> None:
    x = torch.randn(2, 3, 4, 5)
    expected = denoiser(x, 1.0)
    keys = {denoiser._points.content.key}
    for twin in (copy.deepcopy(denoiser), copy.copy(denoiser), pickle.loads(pickle.dumps(denoiser))):
        assert torch.equal(twin(x, 1.0), expected)
        keys.add(twin._points.content.key)
    assert len(keys) == 3


def test_state_dict_holds_a_digest_and_loads_where_it_belongs(denoiser: geodiff.OptimalDenoiser) -> None:
    kept = denoiser.state_dict()
    assert sum(value.numel() for value in kept.values()) == 32
    denoiser.load_state_dict(kept)
    copy.deepcopy(denoiser).load_state_dict(kept)
    other = geodiff.OptimalDenoiser(denoiser.data ^ 1, labels=torch.arange(len(denoiser.data)) % 3)
    with pytest.raises(ValueError, match=r"^state_dict: expected that of a denoiser over the same data"):
        other.load_state_dict(kept)
    with pytest.raises(RuntimeError, match="_extra_state"):
        other.load_state_dict({})
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    network.denoiser = denoiser
    network.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(network.to("cpu").double().denoiser(x, 1.0), denoiser(x, 1.0))


@pytest.mark.parametrize("change", ["labels", "log_weights", "augment", "dtype"])
def test_the_digest_is_of_all_that_an_answer_depends_on(change: str, tmp_path: Path) -> None:
    data = torch.randn(12, 1, 2, 2)
    options = {"labels": torch.arange(12) % 2, "log_weights": torch.randn(12), "augment": "hflip"}
    one = geodiff.OptimalDenoiser(data)
    if change == "dtype":
        other = geodiff.OptimalDenoiser(data.half())
    else:
        other = geodiff.OptimalDenoiser(data, **{change: options[change]})
    torch.save(one.state_dict(), tmp_path / "state.pt")
    kept = torch.load(tmp_path / "state.pt", weights_only=True)
    geodiff.OptimalDenoiser(data.clone()).load_state_dict(kept)
    with pytest.raises(ValueError, match=r"^state_dict"):
        other.load_state_dict(kept)


def test_a_pickle_of_another_format_is_refused(denoiser: geodiff.OptimalDenoiser) -> None:
    state = denoiser._points.__getstate__()
    for changed in ({**state, "format": 1}, {name: value for name, value in state.items() if name != "format"}):
        with pytest.raises(ValueError, match=r"^state: expected a denoiser pickled in format"):
            object.__new__(PointSet).__setstate__(changed)


def test_labels_may_be_ids() -> None:
    data, labels = torch.randn(100, 8), torch.arange(100) % 4 * 10**9
    denoiser = geodiff.OptimalDenoiser(data, labels=labels)
    assert denoiser.label_dim == 3 * 10**9 + 1
    x = torch.randn(2, 8)
    alone = geodiff.OptimalDenoiser(data[2::4])(x, 0.7)
    assert torch.allclose(denoiser(x, 0.7, torch.tensor([2 * 10**9] * 2)), alone, atol=1e-5)
    with pytest.raises(ValueError, match="class_labels: expected a class with data, found 5"):
        denoiser(x, 0.7, torch.tensor([5, 5]))


def test_float64_input_is_answered_in_float64(denoiser: geodiff.OptimalDenoiser) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert denoiser(x, torch.tensor(0.5, dtype=torch.float64)).dtype == torch.float64
    exact = geodiff.reference.posterior(x, denoiser.data, 0.5).mean
    found = denoiser(x.requires_grad_(), 0.5).detach()
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-14)


def test_a_graph_outlives_its_denoiser_and_nothing_else_does() -> None:
    data = torch.randint(0, 256, (30, 8), dtype=torch.uint8)
    denoiser = geodiff.OptimalDenoiser(data)
    points = weakref.ref(denoiser._points)
    x = torch.randn(2, 8, requires_grad=True)
    y = denoiser(x, 1.0).sum()
    del denoiser
    gc.collect()
    assert points() is not None
    y.backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    del y
    gc.collect()
    assert points() is None


def test_the_points_of_a_graph_are_those_of_the_denoiser_while_it_lives() -> None:
    denoiser = geodiff.OptimalDenoiser(torch.randint(0, 256, (30, 8), dtype=torch.uint8))
    asked = denoiser._points.content

    def never(_: content.Content) -> PointSet:
        raise AssertionError("made anew")

    assert content.find(asked, never) is denoiser._points
    alone = asked._replace(rows=asked.rows.clone())
    made = content.find(alone, PointSet.of)
    assert made is not denoiser._points
    assert content.find(alone, never) is made
