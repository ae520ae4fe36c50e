"""Trajectories of a teacher from known noises, in files that a run which was killed goes on from."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from geodiff.base.arguments import check_integer
from geodiff.base.denoiser_type import Denoiser
from geodiff.base.errors import DataError
from geodiff.base.files import atomic_path
from geodiff.learned.trajectory_operator import LEVELS
from geodiff.schedules import karras
from geodiff.solvers import sample

#: Trajectories in a file: what is lost at most when a process is killed.
SHARD = 256


class PairStore:
    """Noises x_T = 80 z and where Heun's method takes them on EDM's 18 levels: the states at `LEVELS`, the last x_0.

    folder   of the shards, made if need be; shard k holds trajectories k SHARD .. and is whole or not there
    teacher  r(x, sigma) [B, *shape]
    shape    of a point
    origin   what the teacher is, as JSON holds it: a store belongs to one teacher, shape and seed
    seed     z of shard k comes from (seed, k) alone, so any run makes the same store

    Raises ValueError for a folder of another store, DataError for a damaged shard.
    """

    def __init__(
        self,
        folder: Path,
        teacher: Denoiser,
        shape: tuple[int, ...],
        *,
        origin: dict[str, object],
        seed: int = 0,
    ) -> None:
        self.folder, self.teacher, self.shape, self.seed = folder, teacher, tuple(shape), seed
        self.description = {"origin": origin, "shape": list(self.shape), "seed": seed, "levels": list(LEVELS)}
        folder.mkdir(parents=True, exist_ok=True)
        described = folder / "store.json"
        if described.is_file():
            found = json.loads(described.read_text(encoding="utf-8"))
            if found != json.loads(json.dumps(self.description)):
                raise ValueError(
                    f"teacher: expected that of the store {folder}, {found}, found {self.description}; "
                    f"allowed the same one to go on, or another folder"
                )
        else:
            with atomic_path(described) as temporary:
                temporary.write_text(json.dumps(self.description) + "\n", encoding="utf-8")

    def noise(self, shard: int) -> Tensor:
        """x_T of a shard, [SHARD, *shape] float32 at sigma = 80."""
        # Far from the small seeds that people judge a student with: it would be asked what it has learned by heart.
        generator = torch.Generator().manual_seed(2**40 + self.seed * 1_000_003 + shard)
        return 80.0 * torch.randn(SHARD, *self.shape, generator=generator)

    def collect(self, count: int, progress: Callable[[int], object] = lambda done: None) -> None:
        """Make what is missing of the first `count` trajectories, whole shards of them; progress(trajectories done)."""
        for shard in range(-(-check_integer(count, "pairs", 1) // SHARD)):
            path = self._path(shard)
            if not path.is_file():
                states = sample(self.teacher, self.noise(shard), karras(18), "heun").states
                kept = states[3::3].half()  # pictures of 8 bits lose nothing in it
                with atomic_path(path) as temporary:
                    save_file({"states": kept.contiguous().cpu()}, temporary)
            progress((shard + 1) * SHARD)

    def read(self, count: int) -> tuple[Tensor, Tensor]:
        """Noises [count, *shape] float32 and states [M, count, *shape] float16 of the first `count`."""
        shards = range(-(-count // SHARD))
        noise = torch.cat([self.noise(shard) for shard in shards])[:count]
        return noise, torch.cat([self._states(shard) for shard in shards], 1)[:, :count]

    def _states(self, shard: int) -> Tensor:
        path = self._path(shard)
        try:
            states = load_file(path)["states"]
        except (SafetensorError, KeyError) as error:
            raise DataError(path, f"a damaged or other shard of trajectories ({error})") from error
        if states.shape != (len(LEVELS), SHARD, *self.shape):
            raise DataError(path, f"a shard of shape {list(states.shape)}")
        return states

    def _path(self, shard: int) -> Path:
        return self.folder / f"trajectories-{shard:05d}.safetensors"
