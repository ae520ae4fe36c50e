"""Queries that take a given one of the paths of an evaluation, from screening to float64 throughout."""

import pytest

from geodiff.kernels import decide, evaluate


def send_to(path: str, monkeypatch: pytest.MonkeyPatch) -> float:
    """As if queries at the level returned were of the kind that takes this path."""
    if path != "screened":
        monkeypatch.setattr(evaluate, "most_candidates", lambda n: 0)
    if path == "exact":
        monkeypatch.setattr(decide, "LOG_SHARE", -1.0)
    return {"screened": 0.05, "dense": 50.0, "dense_fine": 0.7, "exact": 1.0}[path]
