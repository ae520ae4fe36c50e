"""The torch operators: opcheck, torch.compile, and a denoiser that is moved, copied and thrown away."""

import copy
import gc
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff.denoiser import operators, registry

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
    number = denoiser._points.number
    x = torch.randn(3, 60, requires_grad=True)
    sigma = torch.full((3,), 0.7, dtype=torch.float64, requires_grad=True)
    mean, log_prob, _, _, trace, _, _ = operators.posterior(x, sigma, None, None, None, number, 1e-5, 2, True)
    query = (x, sigma, torch.tensor([0, 2, 1]), None, torch.tensor([3, -1, 4]), number, 1e-5)
    ops = torch.ops.geodiff
    torch.library.opcheck(ops.posterior, (*query, 3, True))
    # A trace that was not asked for is NaN, which the comparisons with AOT autograd do not take for equal.
    torch.library.opcheck(ops.posterior, (*query, 3, False), test_utils=("test_schema", "test_faketensor"))
    # Without requires_grad: second derivatives are not for compilation.
    fixed = (x.detach(), sigma.detach(), *query[2:], mean.detach(), trace.detach())
    torch.library.opcheck(ops.posterior_vjp, (*fixed, torch.randn_like(mean), torch.randn_like(log_prob)))
    torch.library.opcheck(ops.posterior_jvp, (*fixed, torch.randn(3, 60), None))


def _step(denoiser: geodiff.OptimalDenoiser) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def step(x: Tensor, sigma: Tensor, classes: Tensor) -> Tensor:
        denoised = denoiser(x, sigma, classes)
        return x + (0.5 * sigma - sigma) * (x - denoised) / sigma

    return step


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
    with torch.no_grad(), pytest.raises(ValueError, match="x: expected finite"):
        compiled(torch.full_like(x, torch.nan), sigma, classes)


def test_copies_answer_alike_and_have_numbers_of_their_own(denoiser: geodiff.OptimalDenoiser) -> None:
    x = torch.randn(2, 3, 4, 5)
    expected = denoiser(x, 1.0)
    numbers = {denoiser._points.number}
    for twin in (copy.deepcopy(denoiser), copy.copy(denoiser), pickle.loads(pickle.dumps(denoiser))):
        assert torch.equal(twin(x, 1.0), expected)
        numbers.add(twin._points.number)
    assert len(numbers) == 3  # a shallow copy shares what it copies


def test_state_dict_holds_no_data_and_loads(denoiser: geodiff.OptimalDenoiser) -> None:
    assert denoiser.state_dict() == {}
    denoiser.load_state_dict({})
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    network.denoiser = denoiser
    assert not [name for name in network.state_dict() if name.startswith("denoiser")]
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(network.to("cpu").double().denoiser(x, 1.0), denoiser(x, 1.0))


def test_float64_input_is_answered_in_float64(denoiser: geodiff.OptimalDenoiser) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert denoiser(x, torch.tensor(0.5, dtype=torch.float64)).dtype == torch.float64
    exact = geodiff.reference.posterior(x, denoiser.data, 0.5).mean
    found = denoiser(x.requires_grad_(), 0.5).detach()
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-14)


def test_a_graph_outlives_its_denoiser_and_nothing_else_does() -> None:
    data = torch.randint(0, 256, (30, 8), dtype=torch.uint8)
    denoiser = geodiff.OptimalDenoiser(data)
    number = denoiser._points.number
    x = torch.randn(2, 8, requires_grad=True)
    y = denoiser(x, 1.0).sum()
    del denoiser
    gc.collect()
    y.backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    del y
    gc.collect()
    with pytest.raises(ReferenceError, match=f"found number {number}"):
        registry.find(number)
