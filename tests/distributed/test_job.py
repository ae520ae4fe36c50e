"""Commands that torchrun has started several times: one answer, printed once; and what a rank that dies leaves."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

from geodiff.distributed.job import MEETING, _meet, cores_of
from tests.cli.endings import contents
from tests.processes import Running, run, started

#: What torchrun sets, and then the command; the store lives elsewhere, as torchrun's does.
CODE = """
import os, runpy, sys
rank, size, port, every, meeting, *arguments = sys.argv[1:]
os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=size, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
os.environ.update(TORCHELASTIC_USE_AGENT_STORE="True")
from geodiff.distributed import job
from geodiff.solvers import latest_levels
latest_levels.EVERY, job.MEETING = float(every), float(meeting)
sys.argv = ["geodiff", *arguments]
try:
    runpy.run_module("geodiff", run_name="__main__", alter_sys=True)
finally:
    print("cores", *sorted(os.sched_getaffinity(0)), file=sys.stderr)
"""
SAMPLE = ["sample", "--data", "digits", "--num", 12, "--shard", 4, "--steps", 60, "--threads", 1, "--out"]


@contextmanager
def job(
    size: int,
    *arguments: object,
    folder: Path | None = None,
    every: float = 10.0,
    begun: int | None = None,
    meeting: float = MEETING,
) -> Iterator[list[Running]]:
    """The command on `size` ranks, of which the first `begun` begin.

    They keep the latest levels of samples every so many seconds, and wait for so many at most until all have met.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with ExitStack() as stack:
        yield [
            stack.enter_context(started(rank, size, store.port, every, meeting, *arguments, code=CODE, folder=folder))
            for rank in range(size if begun is None else begun)
        ]


def ended(size: int, *arguments: object, folder: Path | None = None) -> list[tuple[int | None, str, str]]:
    """Exit code, output and errors of each rank."""
    with job(size, *arguments, folder=folder) as ranks:
        said = [rank.communicate(300) for rank in ranks]
    return [(rank.process.exitcode, *both) for rank, both in zip(ranks, said, strict=True)]


def test_samples_of_two_ranks_are_those_of_one(tmp_path: Path) -> None:
    assert run(*SAMPLE, tmp_path / "one").returncode == 0
    first, second = ended(2, *SAMPLE, tmp_path / "two", "--json")
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert json.loads(first[1])["made"] == 3
    assert second[1] == ""
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        if name.endswith(".npy"):
            a, b = (np.load(tmp_path / folder / name) for folder in ("one", "two"))
            assert np.abs(a - b).max() < 1e-3, name
    again = ended(2, *SAMPLE, tmp_path / "two", "--json")
    assert json.loads(again[0][1])["made"] == 0
    refused = run(*SAMPLE, tmp_path / "two")
    assert refused.returncode == 2
    assert "begun with ranks = 2, found 1" in refused.stderr


def test_a_trajectory_is_written_by_the_first_rank(tmp_path: Path) -> None:
    arguments = ["sample", "--data", "digits", "--num", 2, "--steps", 5, "--threads", 1, "--out", "walk.safetensors"]
    (code, said, errors), other = ended(2, *arguments, folder=tmp_path)
    assert (code, other[0]) == (0, 0), errors + other[2]
    assert "2 samples of digits" in said
    assert other[1] == ""
    assert [path.name for path in tmp_path.iterdir()] == ["walk.safetensors"]
    cores = sorted(os.sched_getaffinity(0))
    for rank, text in enumerate((errors, other[2])):
        assert f"cores {' '.join(map(str, cores_of(rank, [('here', cores)] * 2)))}\n" in text


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([("a", [0, 1])] * 2, [[0], [1]]),
        ([("a", [0, 1, 2, 3, 6])] * 2, [[0, 1], [2, 3, 6]]),
        ([("a", [0, 1]), ("b", [0, 1]), ("a", [0, 1])], [[0], [0, 1], [1]]),
        ([("a", [0]), ("a", [1])], [[0], [1]]),  # bound before
        ([("a", [0, 1])] * 3, [[0, 1]] * 3),  # more ranks than cores
    ],
)
def test_ranks_of_a_machine_share_its_cores(told: list[tuple[str, list[int]]], expected: list[list[int]]) -> None:
    assert [list(cores_of(rank, told)) for rank in range(len(told))] == expected


def test_check_holds_the_merged_answers_to_the_contract() -> None:
    arguments = ["check", "--limit", 120, "--backend", "cpu", "--sigma", 0.5, "--sigma", 40, "--threads", 1, "--json"]
    first, second = ended(2, *arguments)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    found = json.loads(first[1])
    assert found["ok"]
    assert {row["N"] for row in found["rows"]} >= {128, 9}
    assert second[1] == ""


def test_bench_times_what_all_ranks_take(tmp_path: Path) -> None:
    arguments = ["bench", "--data", "digits", "--rounds", 2, "--batch", 2, "--sigma", 5, "--peer", "naive"]
    first, second = ended(2, *arguments, "--threads", 1, "--out", "bench.json", "--json", folder=tmp_path)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["ranks"] == 2
    assert found["cells"][0]["ours"][0]["median_ms"] > 0
    assert json.loads(first[1]) == found
    assert second[1] == ""


def test_bad_input_ends_all_ranks(tmp_path: Path) -> None:
    for code, _, errors in ended(2, "sample", "--data", "nothing.npy", "--out", tmp_path / "out"):
        assert code == 2
        assert "error: --data: no such file" in errors


def test_a_rank_that_is_killed_ends_the_command(tmp_path: Path) -> None:
    slow = [*SAMPLE[:-3], "--steps", 100_000, "--threads", 1, "--out", tmp_path / "out"]
    with job(3, *slow) as ranks:
        until = time.monotonic() + 60
        while not (tmp_path / "out" / "sampling.json").exists():
            assert time.monotonic() < until, "the ranks did not begin"
            time.sleep(0.02)
        time.sleep(0.3)
        ranks[1].send_signal(signal.SIGKILL)
        said = [rank.communicate(60)[1] for rank in ranks]
    for rank in (0, 2):
        assert ranks[rank].process.exitcode == 3, said[rank]
        assert "error: process_group: expected all 3 ranks to answer, found one gone" in said[rank]
        assert "Traceback" not in said[rank]


def test_what_gloo_prints_is_not_the_answer(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """As of PyTorch 2.8."""
    monkeypatch.setattr(dist, "init_process_group", lambda backend: os.write(1, f"[{backend}] connected\n".encode()))
    print("before", flush=True)
    _meet()
    print("after", flush=True)
    assert capfd.readouterr() == ("before\nafter\n", "[gloo] connected\n")


def test_a_rank_that_never_came_ends_the_command(tmp_path: Path) -> None:
    assert MEETING < 60
    with job(3, *SAMPLE, tmp_path / "out", begun=2, meeting=3) as ranks:
        said = [rank.communicate(30)[1] for rank in ranks]
    for rank, text in zip(ranks, said, strict=True):
        assert rank.process.exitcode == 3, text
        assert "error: process_group: expected 3 ranks to meet, found some missing" in text
        assert "Traceback" not in text
    assert contents(tmp_path / "out") == {}


def test_a_rank_that_waits_for_others_can_be_ended(tmp_path: Path) -> None:
    with job(2, *SAMPLE, tmp_path / "out", begun=1) as (rank,):
        time.sleep(3)  # until it waits; before, it would end as well
        rank.send_signal(signal.SIGTERM)
        said = rank.communicate(10)[1]
    assert rank.process.exitcode == 128 + signal.SIGTERM, said
    assert said == "terminated\n"


def killed(size: int, times: int, folder: Path, steps: int) -> None:
    """Ranks of a sample killed at random moments; what the last run leaves is what an undisturbed one does."""
    long = [*SAMPLE[:-3], "--steps", steps, "--threads", 1, "--out"]
    whole = ended(size, *long, folder / "whole", "--json")
    assert whole[0][0] == 0, whole[0][2]
    seconds = json.loads(whole[0][1])["seconds"]
    chance, stopped = random.Random(0), 0
    for trial in range(4 * times):
        if stopped == times:
            break
        with job(size, *long, folder / "cut", every=0.05) as ranks:
            until = time.monotonic() + 120
            while not (folder / "cut" / "sampling.json").exists():
                assert time.monotonic() < until, "the ranks did not begin"
                time.sleep(0.01)
            time.sleep(chance.uniform(0, seconds))
            for rank in chance.sample(ranks, chance.randint(1, size)):  # some or all
                rank.send_signal(signal.SIGKILL)
            for rank in ranks:
                rank.communicate(60)
        if any(rank.process.exitcode == -signal.SIGKILL for rank in ranks):
            stopped += 1
        else:  # done before: the machine is faster now than in the first run
            seconds /= 2
        found = contents(folder / "cut")
        named = [name for name in found if not name.startswith(".")]
        for name in named:
            assert found[name] == (folder / "whole" / name).read_bytes(), (trial, name)
        if len(named) == 4:  # all is there: begin anew, so that each kill finds work
            for name in found:
                (folder / "cut" / name).unlink()
    final = ended(size, *long, folder / "cut")
    assert all(code == 0 for code, _, _ in final), final
    assert contents(folder / "cut") == contents(folder / "whole")
    assert stopped == times, f"only {stopped} runs were still going when they were killed"


def test_a_sharded_sample_that_was_killed_goes_on(tmp_path: Path) -> None:
    killed(2, 2, tmp_path, 150)


@pytest.mark.heavy
def test_20_sharded_samples_that_were_killed_go_on(tmp_path: Path) -> None:
    killed(2, 20, tmp_path, 400)


@pytest.mark.heavy
@pytest.mark.parametrize("size", [4, 8])
def test_more_ranks_sample_and_check(size: int, tmp_path: Path) -> None:
    check = ["check", "--limit", 120, "--backend", "cpu", "--sigma", 0.5, "--threads", 1]
    for arguments in ([*SAMPLE, tmp_path / "out"], check):
        for code, _, errors in ended(size, *arguments):
            assert code == 0, errors


@pytest.mark.heavy
def test_report_finds_what_it_finds_on_one_rank(tmp_path: Path) -> None:
    arguments = ["report", "--data", "digits", "--num", 16, "--threads", 1, "--json", "--out"]
    one = run(*arguments, tmp_path / "one", timeout=600)
    assert one.returncode == 0, one.stderr
    first, second = ended(2, *arguments, tmp_path / "two")
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    held = [[(f["title"], f["held"]) for f in json.loads(said)["findings"]] for said in (one.stdout, first[1])]
    assert held[0] == held[1]
    assert second[1] == ""


@pytest.mark.heavy
def test_torchrun_itself(tmp_path: Path) -> None:
    # After "--", or torchrun takes --num for an option of its own.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    done = subprocess.run(
        [*command, "geodiff", *map(str, SAMPLE), tmp_path / "out", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == 3
