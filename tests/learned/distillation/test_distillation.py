"""Distillation: targets against the solver's steps, stores and runs that were stopped, and what each student is."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import learned
from geodiff.base.errors import DataError
from geodiff.data import load
from geodiff.learned import ConsistencyModel, TrajectoryOperator, UNetConfig, load_network
from geodiff.learned.distillation import METHODS, Distillation, PairStore, distill, generate, pair_store
from geodiff.learned.distillation import run as loop
from geodiff.learned.distillation.cd import CD
from geodiff.learned.distillation.method import Material
from geodiff.learned.distillation.pd import target
from geodiff.learned.trajectory_operator import LEVELS
from geodiff.schedules import karras

DIGITS = load("digits").data
TEACHER = geodiff.OptimalDenoiser(DIGITS)
QUICK = {"steps": 6, "batch": 8, "width": 8, "patch": 2, "pairs": 20}


class Stop(Exception):
    """What interrupts a run here."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_store, "SHARD", 8)


def run(method: str, out: Path, **others: object) -> object:
    return distill(TEACHER, DIGITS, out, Distillation(method, **{**QUICK, **others}))  # type: ignore[arg-type]


# ---- what PD and CD aim at ----


def test_the_target_of_pd_is_the_answer_that_steps_as_two_steps_of_the_teacher_do() -> None:
    """r = (sigma x'' - sigma'' x) / (sigma - sigma''): an Euler step with it ends where two steps end, to 1e-6."""
    sigmas = torch.tensor([8.0, 3.0, 1.0], dtype=torch.float64)
    x = 8 * torch.randn(5, 1, 8, 8, dtype=torch.float64)
    end = geodiff.sample(TEACHER, x, sigmas, "euler").states[-1]
    r = target(x, end, sigmas[0], sigmas[2])
    step = (sigmas[2] / sigmas[0]) * x + (1 - sigmas[2] / sigmas[0]) * r
    assert (step - end).abs().max() <= 1e-6
    assert (target(x, r, sigmas[0], torch.tensor(0.0)) - r).abs().max() <= 1e-12


def test_a_student_of_pd_that_knows_the_target_has_no_loss(tmp_path: Path) -> None:
    from geodiff.learned.distillation.pd import PD

    method = PD(Material(TEACHER, DIGITS, tmp_path, Distillation("pd", batch=16, start=8, end=4), {}))
    nodes = method.grid

    class Knows(torch.nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            answers = []
            for point, level in zip(x, sigma, strict=True):
                at = int((nodes - level).abs().argmin())
                end = geodiff.sample(TEACHER, point[None], nodes[at : at + 3], "euler").states[-1]
                answers.append(target(point[None], end, nodes[at].float(), nodes[at + 2].float()))
            return torch.cat(answers)

    generator = torch.Generator().manual_seed(0)
    assert float(method.loss(Knows(), None, 0, generator)) < 1e-6
    blind = method.loss(lambda x, sigma: 0 * x, None, 0, generator)  # type: ignore[arg-type]
    assert float(blind) > 0.1


def test_the_neighbour_of_cd_is_a_heun_step_of_the_teacher(tmp_path: Path) -> None:
    method = CD(Material(TEACHER, DIGITS, tmp_path, Distillation("cd"), {}))
    x = 5 * torch.randn(4, 1, 8, 8)
    levels = torch.full((4, 1, 1, 1), 5.0), torch.full((4, 1, 1, 1), 3.0)
    found = method.neighbour(x, x, x, levels)
    expected = geodiff.sample(TEACHER, x, [5.0, 3.0], "heun").states[-1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_end_of_the_optimal_trajectory_is_consistent_along_it() -> None:
    """What CD with the exact teacher is drawn to, f(x_s, sigma_s) = x_0, is the same from every state of one."""
    sigmas = karras(40)
    whole = geodiff.sample(TEACHER, 80 * torch.randn(16, 1, 8, 8, dtype=torch.float64), sigmas, "heun")
    for begin in (10, 20, 30):
        again = geodiff.sample(TEACHER, whole.states[begin], sigmas[begin:], "heun").states[-1]
        assert (again - whole.states[-1]).abs().max() < 1e-9


def test_a_consistency_model_leaves_its_lowest_level_as_it_is() -> None:
    model = ConsistencyModel((1, 8, 8), UNetConfig(1, width=8))
    for parameter in model.network.head.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(model(x, 0.002), x)
    sigma = torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64)
    raw = (learned.LearnedDenoiser.forward(model, x, sigma) - _skip(sigma) * x) / _out(sigma)
    shape = (-1, 1, 1, 1)
    skip = (0.25 / ((sigma - 0.002) ** 2 + 0.25)).reshape(shape)
    out = ((sigma - 0.002) * 0.5 / (sigma**2 + 0.25).sqrt()).reshape(shape)
    torch.testing.assert_close(model(x, sigma), (skip * x + out * raw).float(), rtol=1e-4, atol=1e-4)


def _skip(sigma: Tensor) -> Tensor:
    return (0.25 / (sigma**2 + 0.25)).reshape(-1, 1, 1, 1)


def _out(sigma: Tensor) -> Tensor:
    return (sigma * 0.5 / (sigma**2 + 0.25).sqrt()).reshape(-1, 1, 1, 1)


def test_a_trajectory_operator_answers_all_levels_and_lets_them_see_each_other() -> None:
    torch.manual_seed(0)
    model = TrajectoryOperator((1, 8, 8), UNetConfig(1, width=8))
    torch.nn.init.normal_(model.network.time, std=0.1)  # type: ignore[arg-type]
    torch.nn.init.normal_(model.network.head.weight)
    noise = 80 * torch.randn(3, 1, 8, 8)
    states = model(noise)
    assert states.shape == (len(LEVELS), 3, 1, 8, 8)
    torch.testing.assert_close(model(noise[1:2])[:, 0], states[:, 1], rtol=1e-3, atol=1e-3)
    states[-1].sum().backward()
    assert model.network.time.grad is not None
    assert float(model.network.time.grad.abs().max()) > 0


# ---- the store of trajectories ----


def store(folder: Path, seed: int = 0, teacher: object = TEACHER) -> PairStore:
    return PairStore(folder, teacher, (1, 8, 8), origin={"teacher": "optimal"}, seed=seed)  # type: ignore[arg-type]


def test_the_store_holds_the_trajectories_of_sample(tmp_path: Path) -> None:
    pairs = store(tmp_path)
    pairs.collect(12)
    noise, states = pairs.read(12)
    whole = geodiff.sample(TEACHER, noise, karras(18), "heun")
    torch.testing.assert_close(states.float(), whole.states[3::3], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(whole.sigmas[3::3], torch.tensor(LEVELS, dtype=torch.float64))


def test_a_store_goes_on_after_it_was_killed_and_is_the_same(tmp_path: Path) -> None:
    calls = []

    def dies(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 50:  # in the second shard
            raise Stop
        return TEACHER(x, sigma)

    with pytest.raises(Stop):
        store(tmp_path / "a", teacher=dies).collect(24)
    assert len(list((tmp_path / "a").glob("trajectories-*"))) == 1
    before = (tmp_path / "a" / "trajectories-00000.safetensors").stat().st_mtime_ns
    for name in "ab":
        store(tmp_path / name, teacher=lambda x, sigma: TEACHER(x, sigma)).collect(24)
    assert (tmp_path / "a" / "trajectories-00000.safetensors").stat().st_mtime_ns == before
    assert all(
        torch.equal(a, b) for a, b in zip(store(tmp_path / "a").read(24), store(tmp_path / "b").read(24), strict=True)
    )


def test_another_store_and_damage_are_refused(tmp_path: Path) -> None:
    store(tmp_path).collect(8)
    with pytest.raises(ValueError, match="expected that of the store"):
        store(tmp_path, seed=1)
    shard = tmp_path / "trajectories-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(DataError, match="damaged"):
        store(tmp_path).read(8)


# ---- runs ----


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_ends_as_one_that_was_not(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 4)
    settings = {**QUICK, "steps": 12, "batch": 2, "pairs": 8, "start": 8, "end": 2}

    def progress(what: str, done: int, total: int) -> None:
        if what == "training" and done == 9:  # after the checkpoint at 8, in PD's second stage
            raise Stop

    def go(out: Path, stop: bool = False) -> None:
        told = progress if stop else (lambda what, done, total: None)
        distill(TEACHER, DIGITS, out, Distillation(method, **settings), progress=told)  # type: ignore[arg-type]

    with pytest.raises(Stop):
        go(tmp_path / "a", stop=True)
    go(tmp_path / "a")
    go(tmp_path / "b")
    a, b = ((tmp_path / name / "weights.safetensors").read_bytes() for name in "ab")
    assert a == b
    steps = [json.loads(line)["step"] for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12]


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_read_again_and_give_samples(method: str, tmp_path: Path) -> None:
    made = run(method, tmp_path)
    student = load_network(tmp_path / "weights.safetensors")
    assert type(student) is type(made)
    assert student.training_metadata["distill"] == method
    samples = generate(student, 80 * torch.randn(3, 1, 8, 8))
    assert samples.shape == (3, 1, 8, 8)
    assert samples.isfinite().all()
    if isinstance(student, TrajectoryOperator | ConsistencyModel):
        with pytest.raises(ValueError, match="load_network"):
            learned.load(tmp_path / "weights.safetensors")


def test_kd_learns_the_ends(tmp_path: Path) -> None:
    settings = Distillation("kd", steps=150, batch=32, width=16, patch=2, pairs=64, ema=0.9)
    student = distill(TEACHER, DIGITS, tmp_path, settings)
    noise, states = PairStore(
        tmp_path / "pairs", TEACHER, (1, 8, 8), origin=json.loads((tmp_path / "pairs/store.json").read_text())["origin"]
    ).read(64)
    ends = states[-1].float()
    assert (generate(student, noise) - ends).square().mean() < 0.7 * (ends - ends.mean(0)).square().mean()


def test_other_settings_and_bad_ones_are_named(tmp_path: Path) -> None:
    run("ct", tmp_path)
    with pytest.raises(ValueError, match=r"^seed: expected 0"):
        run("ct", tmp_path, seed=1)
    with pytest.raises(ValueError, match="teacher or data: expected"):
        distill(TEACHER, DIGITS[:100], tmp_path, Distillation("ct", **QUICK))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^teacher: expected a denoiser"):
        distill(None, DIGITS, tmp_path / "b", Distillation("kd"))
    with pytest.raises(ValueError, match=r"^ema: expected a number in range, found -0.1; allowed 0 <= ema <= 1$"):
        Distillation(ema=-0.1)
    assert Distillation(ema=0.0).ema == 0
    with pytest.raises(ValueError, match=r"^distill: found 'best'"):
        Distillation("best")
    with pytest.raises(ValueError, match=r"^start: expected end = 4 times"):
        Distillation("pd", start=12)
