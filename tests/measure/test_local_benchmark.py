"""The benchmark of local denoisers: peers compute what ours do, and broken pixels leave no speed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import geodiff.local.pca
from geodiff import LocalDenoiser
from geodiff.cli.commands import app
from geodiff.local.engine import LocalAnswer, LocalQuery
from geodiff.local.engines import ENGINES
from geodiff.local.plain import PlainLocalEngine
from geodiff.measure import local_benchmark
from geodiff.measure.local_baselines import DESCRIPTIONS, peers
from geodiff.measure.local_benchmark import Case, LocalBench
from geodiff.reference.formula import model_space

DATA = torch.randint(0, 256, (40, 3, 9, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("kind", "patch"), [*((kind, k) for kind in ("ls", "pspc_square") for k in (1, 3, 7)), ("pca", 0)]
)
def test_peers_compute_the_denoiser(kind: str, patch: int) -> None:
    settings: dict[str, Any] = {"threshold": 0.2} if kind == "pca" else {"patch": patch}
    denoiser = LocalDenoiser(DATA, kind=kind, **settings)
    points = model_space(DATA, torch.float32)
    x = points[:2] + 0.5 * torch.randn(2, 3, 9, 8)
    ways = peers(denoiser.form(0.5))
    assert ways
    assert ways.keys() <= DESCRIPTIONS.keys()
    for way in ways.values():
        torch.testing.assert_close(way(points, x, 0.5), denoiser(x, 0.5), rtol=1e-4, atol=1e-4)


def test_a_result_that_breaks_the_contract_at_one_pixel_has_no_times(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(PlainLocalEngine):
        def answer(self, asked: LocalQuery) -> LocalAnswer:
            answer = super().answer(asked)
            answer.mean[0, 7] += 1e-2
            return answer

    cell = LocalBench(DATA, ["reference"], rounds=2).run(Case("ls", 3, 0.5, 2))
    assert cell.ours[0].error <= 1e-6
    assert len(cell.ours[0].milliseconds) == 2
    assert cell.baseline in cell.peers
    monkeypatch.setitem(ENGINES, "reference", Broken)
    cell = LocalBench(DATA, ["reference"], rounds=2).run(Case("ls", 3, 0.5, 2))
    assert cell.ours[0].milliseconds == []
    assert cell.ours[0].note.startswith("breaks the contract: error ")
    assert cell.peers[0].milliseconds


def test_times_are_those_of_the_clock() -> None:
    seconds = iter(range(1000))
    cell = LocalBench(DATA, ["reference"], rounds=2, clock=lambda: 5.0 * next(seconds)).run(Case("ls", 3, 0.5, 2))
    assert {timing.median for timing in (*cell.ours, *cell.peers)} == {5000.0}


def test_peers_by_name() -> None:
    cell = LocalBench(DATA, ["reference"], rounds=1).only(["torch-avg-pool"]).run(Case("ls", 3, 0.5, 2))
    assert [timing.name for timing in cell.peers] == ["torch-avg-pool"]
    with pytest.raises(ValueError, match=r"^--peer: .* found 'faiss'"):
        LocalBench(DATA, ["reference"]).only(["faiss"])


def test_levels_share_what_the_data_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """PCA locality: eigenvectors are looked for once for all levels."""
    looked: list[int] = []
    found = geodiff.local.pca.spectrum

    def counted(*args: Any, **options: Any) -> Any:
        looked.append(1)
        return found(*args, **options)

    monkeypatch.setattr("geodiff.local.pca.spectrum", counted)
    bench = LocalBench(DATA, ["auto"], rounds=1)
    for sigma in (0.5, 2.0):
        bench.run(Case("pca", 3, sigma, 2))
    assert len(looked) == 1


def test_the_command(tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", DATA.numpy())
    given = ["--data", str(tmp_path / "points.npy"), "--rounds", "1", "--sigma", "0.5", "--batch", "2", "--patch", "3"]
    done = CliRunner().invoke(app, ["bench", "--local", *given, "--out", str(tmp_path / "out.json"), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "out.json").read_text())
    assert [(cell["kind"], cell["patch"]) for cell in document["cells"]] == [("ls", 3), ("pspc_square", 3)]
    for cell in document["cells"]:
        assert cell["ours"][0]["name"] == f"geodiff-{local_benchmark.our_backends()[0]}-{cell['kind']}-3"
        assert cell["ours"][0]["ratio"] > 0
        assert cell["baseline"] in {peer["name"] for peer in cell["peers"]}
