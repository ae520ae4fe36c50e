"""The memory of the data moves, changes or goes away while a denoiser holds it: the right answer, or a refusal."""

import copy
import os
import pickle
import sys
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from torch import Tensor, multiprocessing

import geodiff
from tests.processes import run

SHAPE = (300, 40)


def pixels() -> Tensor:
    return torch.randint(0, 256, SHAPE, dtype=torch.uint8)


def fill_what_is_free() -> list[Tensor]:
    return [torch.full(SHAPE, 7, dtype=torch.uint8) for _ in range(50)]


MOVES: dict[str, Callable[[geodiff.OptimalDenoiser, Tensor], object]] = {
    "share_memory_": lambda _, data: data.share_memory_(),
    "share_memory": lambda denoiser, _: denoiser.share_memory(),
    "pickle for a process": lambda denoiser, _: ForkingPickler.dumps(denoiser),
    "pickle of the data": lambda _, data: ForkingPickler.dumps(data),
    "resize_ up": lambda _, data: data.resize_(SHAPE[0] * 50, SHAPE[1]),
    "resize_ down": lambda _, data: data.resize_(1, 1),
    "storage resize_ up": lambda _, data: data.untyped_storage().resize_(data.numel() * 50),
    "set_": lambda _, data: data.set_(torch.zeros(3, dtype=torch.uint8)),
    "data =": lambda _, data: setattr(data, "data", torch.zeros(SHAPE, dtype=torch.uint8)),
    "swap_tensors": lambda _, data: torch.utils.swap_tensors(data, torch.zeros(SHAPE, dtype=torch.uint8)),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_answer_stays(move: str, backend: str) -> None:
    data, x = pixels(), torch.randn(4, SHAPE[1])
    denoiser = geodiff.OptimalDenoiser(data, backend=backend)
    expected, mean = denoiser(x, 0.5), denoiser.mean
    MOVES[move](denoiser, data)
    kept = fill_what_is_free()
    assert torch.equal(denoiser(x, 0.5), expected)
    assert torch.equal(denoiser.mean, mean)
    x.requires_grad_()
    denoiser.log_prob(x, 0.5).sum().backward()
    assert torch.allclose(x.grad, denoiser.score(x.detach(), 0.5), rtol=1e-4, atol=1e-4)
    del kept


WRITES: dict[str, Callable[[Tensor], object]] = {
    "add_": lambda data: data.add_(3),
    "index": lambda data: data.__setitem__((5, 7), data[5, 7] ^ 255),
    "out=": lambda data: torch.bitwise_not(data.clone(), out=data),
    "through a view": lambda data: data[10:20].flip(0).neg_() if False else data[10:20].zero_(),
    "copy_": lambda data: data.copy_(pixels()),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("big", [False, True])
def test_what_torch_writes_is_answered_from(write: str, big: bool) -> None:
    data = pixels().repeat(20 if big else 1, 1)
    x = torch.randn(4, SHAPE[1])
    if big and write == "copy_":
        pytest.skip("of another size")
    denoiser = geodiff.OptimalDenoiser(data)
    before = denoiser.state_dict()
    denoiser(x, 0.5)
    WRITES[write](data)
    fresh = geodiff.OptimalDenoiser(data.clone())
    assert torch.equal(denoiser(x, 0.5), fresh(x, 0.5))
    assert torch.equal(denoiser.mean, fresh.mean)
    assert torch.equal(copy.deepcopy(denoiser)(x, 0.5), fresh(x, 0.5))
    assert not torch.equal(denoiser.state_dict()["_extra_state"], before["_extra_state"])


def test_nan_that_torch_writes_is_refused() -> None:
    data, x = torch.randn(50, 4), torch.randn(2, 4)
    denoiser = geodiff.OptimalDenoiser(data)
    data[3, 2] = torch.nan
    with pytest.raises(ValueError, match=r"^data: expected finite values"):
        denoiser(x, 1.0)
    data[3, 2] = 0
    assert denoiser(x, 1.0).isfinite().all()


SECRET_WRITES: dict[str, Callable[[Tensor], object]] = {
    "numpy": lambda data: data.numpy().__setitem__(slice(None), 1),
    ".data": lambda data: data.data.zero_(),
    "detached storage": lambda data: data.untyped_storage().fill_(9),
}


@pytest.mark.parametrize("write", SECRET_WRITES)
def test_what_torch_does_not_see_is_refused(write: str) -> None:
    data, x = pixels(), torch.randn(4, SHAPE[1])
    denoiser = geodiff.OptimalDenoiser(data)
    SECRET_WRITES[write](data)
    for ask in (lambda: denoiser(x, 0.5), lambda: denoiser.posterior(x, 0.5), lambda: pickle.dumps(denoiser)):
        with pytest.raises(ValueError, match=r"^data: expected as they were .* found other values.*; allowed"):
            ask()


def test_memory_that_was_given_back_is_refused() -> None:
    data, x = pixels(), torch.randn(4, SHAPE[1])
    denoiser = geodiff.OptimalDenoiser(data)
    data.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"^data: expected as they were .* found their storage cut to 0 bytes"):
        denoiser(x, 0.5)


def test_other_data_with_labels_do_not_follow() -> None:
    """Sorted by class, they are a copy."""
    data, labels, x = pixels(), torch.arange(SHAPE[0]) % 3, torch.randn(2, SHAPE[1])
    denoiser = geodiff.OptimalDenoiser(data, labels=labels)
    expected = denoiser(x, 0.5)
    data.zero_()
    assert torch.equal(denoiser(x, 0.5), expected)


# ---- other processes ----


def _answer(denoiser: geodiff.OptimalDenoiser, x: Tensor, queue: multiprocessing.Queue) -> None:
    queue.put(denoiser(x, 0.5).tolist())


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_another_process_answers_alike(method: str) -> None:
    data, x = pixels(), torch.randn(2, SHAPE[1])
    denoiser = geodiff.OptimalDenoiser(data, labels=torch.arange(SHAPE[0]) % 2)
    expected = denoiser(x, 0.5)
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=_answer, args=(denoiser, x, queue))
    process.start()
    found = queue.get()
    process.join()
    assert torch.equal(torch.tensor(found), expected)
    assert torch.equal(denoiser(x, 0.5), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process_answers_alike(threads: int) -> None:
    done = run(
        threads,
        code="""
        import os, sys, torch, geodiff
        torch.set_num_threads(int(sys.argv[1]))
        data, x = torch.randint(0, 256, (3000, 400), dtype=torch.uint8), torch.randn(64, 400)
        denoiser = geodiff.OptimalDenoiser(data)
        expected = denoiser(x, 5.0)
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)  # as DataLoader's workers do: OpenMP's threads are not forked
            os._exit(0 if torch.allclose(denoiser(x, 5.0), expected, atol=1e-5) else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", ["with", "set_default_device"])
def test_a_default_device_is_not_for_the_data(how: str) -> None:
    done = run(
        how,
        code="""
        import contextlib, sys, torch, geodiff
        data, x = torch.randn(100, 8), torch.randn(3, 8)
        labels = torch.arange(100) % 3
        fresh = lambda: geodiff.OptimalDenoiser(data, labels=labels, log_weights=labels.double())
        denoiser = fresh()
        ask = lambda d: [d(x, 0.7), d.score(x, 0.7), d.log_prob(x, 0.7), d.mean, d.posterior(x, 0.7, topk=3).indices,
                         d(x, 0.7, torch.tensor([0, 1, 2], device="cpu")), d.posterior(x, 0.7).covariance(x)]
        expected = ask(denoiser)
        if sys.argv[1] == "with":
            place = torch.device("meta")
        else:
            torch.set_default_device("meta"); place = contextlib.nullcontext()
        with place:
            found, again = ask(denoiser), ask(fresh())
        torch.set_default_device("cpu")
        assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(expected, found, again))
        """,
    )
    assert done.returncode == 0, done.stderr


def test_a_default_device_is_not_for_what_is_made_of_x() -> None:
    """Everything that a call makes lies where x does, or on the CPU where it is a matter of numbers alone."""
    done = run(
        code="""
        import torch, geodiff
        from geodiff import analysis, analytic, interpolation, inverse, paths, symmetry
        torch.manual_seed(0)
        data, x, labels = torch.randn(60, 1, 8, 8), torch.randn(3, 1, 8, 8), torch.arange(60) % 3
        mask, levels, times = torch.rand(3, 60) < 0.5, geodiff.schedules.karras(5), paths.times(5)
        sr = inverse.SuperResolution(2, inverse.gaussian_kernel(3, 1.0), (1, 8, 8))
        seeded = lambda: torch.Generator().manual_seed(0)
        noise = 80 * x
        new = lambda **options: geodiff.OptimalDenoiser(data, **options)
        local = lambda kind: geodiff.LocalDenoiser(data, kind=kind)
        followed = lambda d: torch.autograd.grad(d(y := x.clone().requires_grad_(), 1.0).sum(), y)[0]
        asks = {
            "velocity": lambda: [new().velocity(x, 0.4, path=path()) for path in paths.PATHS.values()],
            "velocity B": lambda: new().velocity(x, 0.4, path=paths.Linear("B")),
            "levels": lambda: [path().time(path().level(0.4)) for path in paths.PATHS.values()],
            "sample": lambda: geodiff.sample(new(), noise, [80.0, 1.0, 0.0]).states,
            "sample levels": lambda: geodiff.sample(new(), noise, levels, "ipndm3").states,
            "sample path": lambda: geodiff.sample(new(), x, times, path=paths.LINEAR).states,
            "ode_jump": lambda: geodiff.solvers.ode_jump(new(), noise, levels, 1.0).states,
            "conditions": lambda: new(labels=labels)(x, 1.0, [0, 1, 2], mask=mask, exclude=[1, 2, 3]),
            "one-hot": lambda: new(labels=labels)(x, 1.0, labels[:3, None] == labels[:3]),
            "draws": lambda: new().posterior(x, 1.0).sample(5, generator=seeded()),
            "local": lambda: [local(kind)(x, 1.0) for kind in ("ls", "els_valid", "pspc_square", "pca")],
            "local velocity": lambda: local("ls").velocity(x, 0.4),
            "gradients": lambda: [followed(local("ls")), followed(new())],
            "smoothed": lambda: geodiff.SmoothedDenoiser(new(), 0.1)(x, 1.0),
            "tempered": lambda: geodiff.TemperedDenoiser(new(), 2.0).velocity(x, 0.4),
            "reference": lambda: geodiff.reference.velocity(x, data, 0.4),
            "simulated": lambda: inverse.Problem.simulated(sr, x, 0.1, generator=seeded()).y,
            "gaussian": lambda: analytic.GaussianDenoiser.fit(data).sample(4, 1.0, generator=seeded()),
            "critical": lambda: symmetry.critical_sigma(geodiff.OptimalDenoiser(torch.stack([x[0], -x[0]]))).sigma,
            "decode": lambda: interpolation.decode(new(), noise[:1], noise[1:2], levels, points=3).samples,
            "along path": lambda: analysis.flow_deviation.along_path(new().velocity, new(), x, x, [0.4]).cosine,
            "hybrid": lambda: analysis.flow_deviation.hybrid(new(), new(), x, [0.5], steps=2).samples,
            "loaded": lambda: geodiff.data.load(torch.utils.data.TensorDataset(data, labels)).labels,
        }
        expected = {name: ask() for name, ask in asks.items()}
        torch.set_default_device("meta")
        for name, ask in asks.items():
            found, wanted = ([x] if not isinstance(x, list) else x for x in (ask(), expected[name]))
            for a, b in zip(found, wanted, strict=True):
                assert a == b if isinstance(a, float) else torch.equal(a, b), name
        """,
    )
    assert done.returncode == 0, done.stderr


# ---- mapped files ----

MAPPED = """
    import os, sys, numpy as np, torch, geodiff
    path, how = sys.argv[1:]
    np.save(path, np.random.default_rng(0).integers(0, 256, (4000, 300), dtype=np.uint8))
    denoiser, x = geodiff.OptimalDenoiser(path), torch.randn(64, 300)
    expected = denoiser(x, 3.0)
    if how == "cut":
        os.truncate(path, 50_000)
    elif how == "empty":
        os.truncate(path, 0)
    elif how == "written":
        with open(path, "r+b") as file:
            file.seek(200_000); file.write(bytes(100))
        os.utime(path, ns=(1, 1))
    elif how == "replaced":
        np.save(path + ".new", np.zeros((4000, 300), np.uint8)); os.replace(path + ".new.npy", path)
    elif how == "removed":
        os.remove(path)
    try:
        answers = [denoiser(x, 3.0), denoiser.posterior(x, 3.0).mean]
        print("same" if all(torch.equal(a, expected) for a in answers) else "wrong")
    except ValueError as error:
        print("refused:", error)
    try:
        geodiff.OptimalDenoiser(denoiser.data)
        print("taken")
    except ValueError as error:
        print("refused:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells where memory comes from")
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "refused: {path}: data: expected the file as it was"),
        ("empty", "refused: {path}: data: expected the file as it was"),
        ("written", "refused: {path}: data: expected the file as it was"),
        ("replaced", "same"),
        ("removed", "same"),
    ],
)
def test_a_mapped_file_that_changes(how: str, words: str, tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "data.npy")
    done = run(path, how, code=MAPPED)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(words.format(path=path)), done.stdout
    assert second.startswith("refused" if how in ("cut", "empty") else "taken"), done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells where memory comes from")
def test_a_file_that_is_cut_during_a_call(tmp_path: os.PathLike[str]) -> None:
    done = run(
        os.path.join(tmp_path, "data.npy"),
        code="""
        import os, sys, threading, time, numpy as np, torch, geodiff
        path = sys.argv[1]
        np.save(path, np.random.default_rng(0).integers(0, 256, (20000, 1000), dtype=np.uint8))
        denoiser, x = geodiff.OptimalDenoiser(path), torch.randn(64, 1000)
        threading.Timer(0.3, lambda: os.truncate(path, 1_000_000)).start()
        began = time.monotonic()
        try:
            while time.monotonic() - began < 60:
                denoiser.posterior(x, 3.0)
        except ValueError as error:
            print(error)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert "data: expected" in done.stdout


def test_an_array_over_a_map_follows_the_same_rules(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "data.npy")
    np.save(path, pixels().numpy())
    array, x = np.load(path, mmap_mode="r+"), torch.randn(2, SHAPE[1])
    denoiser = geodiff.OptimalDenoiser(array)
    expected = denoiser(x, 0.5)
    assert torch.equal(denoiser(x, 0.5), expected)
    array[:] = 3
    with pytest.raises(ValueError, match=r"data: expected"):
        denoiser(x, 0.5)
