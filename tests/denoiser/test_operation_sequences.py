"""Whatever is done with a denoiser, in whatever order: its answers are those of the formula, or a refusal."""

import contextlib
import copy
import math
import os
import pickle
import random
import threading
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch import Tensor

import geodiff
from geodiff import reference

N, D = 23, 5
SIGMAS = torch.tensor([0.05, 0.7, 30.0])


class Denoising(RuleBasedStateMachine):
    """denoiser, and a copy of its data that nobody else touches; `data` is the tensor that the denoiser was given."""

    #: In which part of the sequences `torch.compile` and fork take part: each takes longer than all the others.
    compiled = forked = 1.0

    @initialize(
        seed=st.integers(0, 2**16),
        bytes_=st.booleans(),
        labelled=st.booleans(),
        weighted=st.booleans(),
    )
    def make(self, seed: int, bytes_: bool, labelled: bool, weighted: bool) -> None:
        chance = random.Random(seed)  # not drawn by Hypothesis, which is fond of some numbers
        self.compiles, self.forks = chance.random() < self.compiled, chance.random() < self.forked
        if self.compiles:
            torch._dynamo.reset()  # it gives up on a function that it has compiled for many denoisers
        self.generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(N, D, generator=self.generator)
        self.data = ((normal + 3) * 40).clamp(0, 255).to(torch.uint8) if bytes_ else normal
        self.labels = torch.arange(N) * 3 // N if labelled else None  # sorted, so that the data are not copied
        self.weights = torch.randn(N, generator=self.generator) if weighted else None
        self.denoiser = geodiff.OptimalDenoiser(self.data, labels=self.labels, log_weights=self.weights)
        self.kept = self.data.clone()
        self.linked = True  # whether the denoiser still looks at `data`
        self.litter: list[Tensor] = []

    # ---- moving ----

    @rule(how=st.sampled_from(["share data", "share module", "pickle for a process", "resize", "storage"]))
    def move(self, how: str) -> None:
        if how == "share data":
            self.data.share_memory_()
        elif how == "share module":
            self.denoiser.share_memory()
        elif how == "pickle for a process":
            ForkingPickler.dumps(self.denoiser)
        elif self.data.untyped_storage().resizable() and not self.data.is_shared():
            # Not what NumPy has seen. What was pickled for a process says that it can be resized, and PyTorch crashes.
            if how == "resize":
                self.data.resize_(N * 40, D).resize_(N, D)
            else:
                self.data.untyped_storage().resize_(self.data.untyped_storage().nbytes() * 3)
        self.litter = [torch.full((N, D), 7, dtype=self.data.dtype) for _ in range(20)]

    @rule(how=st.sampled_from(["deepcopy", "pickle", "to", "half", "state_dict"]))
    def copy(self, how: str) -> None:
        if how == "deepcopy":
            self.denoiser, self.linked = copy.deepcopy(self.denoiser), False
        elif how == "pickle":
            self.denoiser, self.linked = pickle.loads(pickle.dumps(self.denoiser)), False
        elif how == "to":
            self.denoiser.to("cpu")
        elif how == "half":
            self.denoiser.half()
        else:
            self.denoiser.load_state_dict(copy.deepcopy(self.denoiser).state_dict())

    @rule(how=st.sampled_from(["set_", "data", "swap"]))
    def let_go(self, how: str) -> None:
        """The caller's tensor turns to other memory; the denoiser's does not."""
        other = torch.zeros_like(self.data)
        if how == "set_":
            self.data.set_(other)
        elif how == "data":
            self.data.data = other
        else:
            torch.utils.swap_tensors(self.data, other)
        self.linked = False

    # ---- changing ----

    @rule(row=st.integers(0, N - 1), how=st.sampled_from(["row", "all", "view"]))
    def write(self, row: int, how: str) -> None:
        target = self.data[row] if how == "row" else self.data[row:] if how == "view" else self.data
        target.copy_(torch.zeros_like(target) if row % 2 else target.flip(-1))
        if self.linked:
            self.kept = self.data.clone()

    @rule(row=st.integers(0, N - 1))
    def write_in_secret(self, row: int) -> None:
        """What PyTorch does not see is refused, and answered from again once it is as it was."""
        if not self.linked:
            return
        before = self.data.clone()
        self.data.numpy()[row] += 1
        with pytest.raises(ValueError, match=r"^data: expected as they were"):
            self.denoiser(self.queries(2), 1.0)
        self.data.numpy()[:] = before.numpy()

    # ---- asking in odd places ----

    @rule()
    def ask_under_a_default_device(self) -> None:
        x = self.queries(2)
        with torch.device("meta"):
            found = self.denoiser(x, 0.7)
        self.compare(found, 0.7)

    @precondition(lambda self: self.compiles)
    @rule(batch=st.integers(1, 3))
    def ask_compiled(self, batch: int) -> None:
        compiled = torch.compile(self.denoiser, backend="eager", dynamic=True)
        self.compare(compiled(self.queries(batch), torch.tensor(0.7)), 0.7)

    @rule(count=st.integers(2, 4))
    def ask_from_threads(self, count: int) -> None:
        x, found = self.queries(3), [None] * count

        def ask(place: int) -> None:
            found[place] = self.denoiser(x, 0.7)

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for answer in found:
            self.compare(answer, 0.7)

    @precondition(lambda self: self.forks)
    @rule()
    def ask_in_a_fork(self) -> None:
        x = self.queries(2)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                torch.set_num_threads(1)
                self.compare(self.denoiser(x, 0.7), 0.7)
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @rule()
    def ask_with_gradients(self) -> None:
        x = self.queries(2).requires_grad_()
        self.denoiser.log_prob(x, 0.7).sum().backward()
        torch.testing.assert_close(x.grad, self.denoiser.score(x.detach(), 0.7), rtol=1e-4, atol=1e-4)

    @invariant()
    def it_answers_from_its_data(self) -> None:
        if not hasattr(self, "denoiser"):
            return
        self.compare(self.denoiser(self.queries(len(SIGMAS)), SIGMAS), SIGMAS)

    # ---- what is right ----

    def queries(self, batch: int) -> Tensor:
        self.x = torch.randn(batch, D, generator=self.generator)
        return self.x

    def compare(self, found: Tensor, sigma: float | Tensor) -> None:
        exact = reference.posterior(self.x.double(), self.kept, sigma, log_weights=self.weights).mean
        largest = reference.model_space(self.kept, torch.float64).norm(dim=1).max()
        allowed = 1.2e-5 * torch.maximum(exact.norm(dim=1), 0.01 * largest) + 1e-7  # rounded to float32, once
        assert ((found.detach().double() - exact).norm(dim=1) <= allowed).all()


class Quick(Denoising):
    compiled, forked = 0.005, 0.1


def sequences(machine: type[Denoising], examples: int, steps: int) -> None:
    torch._dynamo.reset()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize=True,
            phases=(Phase.generate,),  # a sequence that fails is short enough, and shrinking it compiles for minutes
        ),
    )


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@needs_fork
def test_some_sequences_of_operations() -> None:
    sequences(Denoising, examples=10, steps=12)


LOT = 1000  # Hypothesis keeps what it has tried, and takes longer the more that is


@needs_fork
@pytest.mark.heavy
@pytest.mark.parametrize("lot", range(math.ceil(int(os.environ.get("GEODIFF_SEQUENCES", "5000")) / LOT)))
def test_many_sequences_of_operations(lot: int) -> None:
    """10^5 operations; GEODIFF_SEQUENCES=100000: 10^5 sequences of them. GEODIFF_SEED=1, 2, ...: others."""
    first = os.environ.get("GEODIFF_SEED", "0")
    sequences(seed(f"{first}-{lot}")(type("Lot", (Quick,), {})), examples=LOT, steps=20)
