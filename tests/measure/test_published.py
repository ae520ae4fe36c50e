"""What shortcuts compute: each is what it says, none of them r*, and the table says by how much."""

import json

import pytest
import torch
from typer.testing import CliRunner

from geodiff import reference
from geodiff.cli import app
from geodiff.data import load
from geodiff.measure import published

DIGITS = load("digits")


def setting(sigma: float) -> published.Setting:
    points = reference.model_space(DIGITS.data.flatten(1), torch.float32)
    x = points[:3] + sigma * torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    return published.Setting(x, points, sigma, torch.Generator().manual_seed(1))


def test_each_is_what_it_says() -> None:
    at = setting(2.0)
    distances = torch.cdist(at.x.double(), at.points.double()).square()
    weights = (-distances / 8).exp()
    kept = distances.argsort(1)[:, :200]
    inside = torch.zeros_like(weights).scatter(1, kept, 1.0) * weights
    by_hand = inside @ at.points.double() / inside.sum(1, keepdim=True)
    torch.testing.assert_close(published.nearest(at).double(), by_hand, rtol=1e-4, atol=1e-4)
    batches = [
        weights[:, rows] @ at.points[rows].double() / weights[:, rows].sum(1, keepdim=True)
        for rows in torch.arange(len(at.points)).split(512)
    ]
    torch.testing.assert_close(published.batch_softmax(at).double(), sum(batches) / 4, rtol=1e-4, atol=1e-4)
    exact = reference.denoise(at.x, at.points, at.sigma)
    torch.testing.assert_close(published.float32(at), exact, rtol=1e-4, atol=1e-4)
    for way in (published.bfloat16, published.bfloat16_products):
        assert 1e-4 < (way(at) - exact).norm() / exact.norm() < 1


def test_errors_are_of_the_contract_and_ours_keep_it() -> None:
    rows = published.run(DIGITS, sigmas=(0.1, 5.0), queries=5)
    found = {(row.way, row.sigma): row.error for row in rows}
    assert len(found) == 2 * (len(published.WAYS) + 1)
    assert all(found["geodiff", sigma] <= 1e-5 for sigma in (0.1, 5.0))
    assert found["top-200", 5.0] > 0.1  # nearly all points carry weight there
    assert found["top-200", 0.1] < 1e-4
    assert found["softmax per batch", 0.1] > 0.1
    assert found["random tenth", 0.1] > 0.1
    assert found["bfloat16", 5.0] > 1e-4
    assert all(row.typical <= row.error for row in rows)


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["check", "--published", "--data", "digits", "--sigma", "1"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["N"] == 1797
    assert {row["way"] for row in document["rows"]} == {*published.WAYS, "geodiff"}
    assert "top-200" in CliRunner().invoke(app, arguments).stdout
