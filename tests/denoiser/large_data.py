"""Bytes large enough for principal coordinates, and their formulas in float64, a part of the rows at a time."""

import numpy as np
import torch
from torch import Tensor

_PART = 1_000


def wavy(n: int, d: int, waves: int, swing: float, noise: float, seed: int) -> np.ndarray:
    """[n, d] uint8: a few smooth waves and noise, with duplicates and rows that are like no other."""
    random = np.random.default_rng(seed)
    lines = np.cumsum(random.standard_normal((waves, d)), axis=1)
    lines /= np.abs(lines).max(axis=1, keepdims=True)
    rows = random.standard_normal((n, waves)).astype(np.float32) @ (swing * lines).astype(np.float32)
    rows += noise * random.standard_normal((n, d), dtype=np.float32) + 128
    rows[100:140] = rows[100]
    rows[200:230] = random.uniform(0, 255, (30, d))
    return np.clip(rows, 0, 255).astype(np.uint8)


def squared_distances(rows: np.ndarray, x: Tensor) -> Tensor:
    """|x - x_i|^2 [B, n] in difference form; rows [n, d] as stored, x [B, d] in model space."""
    out = torch.empty(len(x), len(rows), dtype=torch.float64)
    for first in range(0, len(rows), _PART):
        points = torch.from_numpy(rows[first : first + _PART]).double() / 127.5 - 1
        for q, one in enumerate(x.double()):
            out[q, first : first + len(points)] = ((one - points) ** 2).sum(1)
    return out


def weighted_means(rows: np.ndarray, weights: Tensor) -> Tensor:
    """sum_i w_i x_i [B, d] in model space; weights [B, n]."""
    mean = torch.zeros(len(weights), rows.shape[1], dtype=torch.float64)
    for first in range(0, len(rows), _PART):
        points = torch.from_numpy(rows[first : first + _PART]).double() / 127.5 - 1
        mean += weights[:, first : first + len(points)] @ points
    return mean
