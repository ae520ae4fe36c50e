"""Many samples as files of a folder, each whole or not there: a run that is killed goes on where it was.

    FOLDER/sampling.json               what was asked for: a run that asks for something else is refused
    FOLDER/data-00000-of-00196.npy     samples [n, *shape] float32 in model space; `geodiff.data.load(FOLDER)` reads all
    FOLDER/.level-00003.safetensors    the latest levels of the file that is being made, where that takes long

Sample i starts from noise of its own, by seed and i, so that no file depends on another. Where the data lie on several
ranks, all of them make each file together, and the first reads and writes.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodiff.base.arguments import check_integer
from geodiff.base.errors import DataError
from geodiff.base.files import atomic_path
from geodiff.base.version import VERSION
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.distributed.ranks import leading
from geodiff.solvers.latest_levels import LatestLevels
from geodiff.solvers.loop import Places, Walk
from geodiff.solvers.sampling import check_schedule, go_on, sample

#: Samples of one file, and so of one batch, unless told.
SIZE = 256
_NOTES = "sampling.json"
_ON_THE_WAY = (".sampling.", ".level-", "..level-")  # temporary files, too: `atomic_path` puts a dot before the name
_ROWS = 64  # of the data, spread over all, that the notes' digest looks at


@dataclass(frozen=True)
class Shards:
    """What is to be sampled.

    folder  is made where it is not there; the folder that it lies in must be
    num     samples in all, `size` of them a file but for the last
    sigmas  [S + 1] as `sample` takes them, and solver, afs
    seed    of the noise
    Raises TypeError or ValueError that names num or shard.
    """

    folder: Path
    num: int
    sigmas: Tensor
    solver: str = "heun"
    afs: bool = False
    seed: int = 0
    size: int = SIZE

    def __post_init__(self) -> None:
        check_integer(self.num, "num", 1)
        check_integer(self.size, "shard", 1)

    @property
    def count(self) -> int:
        """How many files."""
        return -(-self.num // self.size)

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"data-{shard:05}-of-{self.count:05}.npy"

    def run(self, denoiser: OptimalDenoiser, done: Callable[[int, int], object] = lambda made, count: None) -> int:
        """Makes the files that are not there, and returns how many it made; done(made, count) after each.

        Raises ValueError where the folder was begun with other data or settings, DataError for a file that is damaged.
        """
        ranks, asked = denoiser.ranks, self._asked(denoiser)
        with leading(ranks) as leads:
            if leads:
                self._begin(asked)
        made = 0
        for shard in range(self.count):
            with leading(ranks) as leads:
                missing = leads and self._is_missing(shard, denoiser.shape)
                if leads and not missing:
                    self._levels(shard).remove()  # a kill may have come in between
            if not ranks.first_says(missing):
                continue
            found = self._sampled(shard, denoiser)
            with leading(ranks) as leads:
                if leads:
                    with atomic_path(self.path(shard)) as path:
                        np.save(path, found.cpu().numpy())
                    self._levels(shard).remove()
            made += 1
            done(made, self.count)
        return made

    def _sampled(self, shard: int, denoiser: OptimalDenoiser) -> Tensor:
        """The samples of a file, [n, *shape], from the level that an earlier run has kept of them."""
        first = shard * self.size
        samples = range(first, min(self.num, first + self.size))
        noise = noise_of(samples, denoiser.shape, self.seed).to(denoiser.data.device) * float(self.sigmas[0])
        if noise.device.type != "cpu":  # recorded and replayed as a whole, in seconds
            return sample(denoiser, noise, self.sigmas, self.solver, keep="end", afs=self.afs).states[-1]
        ranks, kept = denoiser.ranks, self._levels(shard)
        count = len(self.sigmas) - 1
        places = Places.of(count, "end")
        states = noise.new_empty(places.states, *noise.shape)
        outputs = noise.new_empty(places.outputs, *noise.shape)
        walk = Walk(check_schedule(self.sigmas), states, outputs, self.afs)
        walk.state(0).copy_(noise)
        leads = ranks.rank == 0
        step, known = ranks.first_says(kept.read(walk) if leads else (0, None))
        if known is not None:
            kept.put(step, known, walk)

        def after(step: int) -> None:
            if leads and step < count:
                kept.write(step, walk)

        go_on(denoiser, walk, self.solver, first=step, after=after)
        return walk.state(count)

    def _levels(self, shard: int) -> LatestLevels:
        return LatestLevels(self.folder / f".level-{shard:05}.safetensors")

    def _is_missing(self, shard: int, shape: tuple[int, ...]) -> bool:
        """Whether a shard has no file. Raises DataError for a file of another shape."""
        path = self.path(shard)
        if not path.exists():
            return True
        expected = (min(self.size, self.num - shard * self.size), *shape)
        try:
            found = np.load(path, mmap_mode="r").shape
        except (ValueError, EOFError, OSError) as error:
            raise DataError(path, f"a damaged file of samples ({error}); delete it to have it made") from error
        if found != expected:
            raise DataError(path, f"samples: expected shape {list(expected)}, found {list(found)}")
        return False

    def _begin(self, wanted: dict[str, Any]) -> None:
        """The notes, before any file: what was asked for cannot change between one run and the next."""
        check_strangers(self.folder)
        self.folder.mkdir(exist_ok=True)
        notes = self.folder / _NOTES
        if not notes.exists():
            with atomic_path(notes) as path:
                path.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
            return
        try:
            found = {"ranks": 1, **json.loads(notes.read_text(encoding="utf-8"))}
        except ValueError as error:
            raise DataError(notes, f"damaged ({error}); delete the folder to start anew") from error
        for name, value in wanted.items():
            if found.get(name) != value:
                raise ValueError(
                    f"out: {self.folder} was begun with {name} = {found.get(name)!r:.80}, found {value!r:.80}; allowed "
                    f"the same settings and data, or another folder"
                )

    def _asked(self, denoiser: OptimalDenoiser) -> dict[str, Any]:
        data = denoiser.data
        looked_at = (
            data[torch.linspace(0, len(data) - 1, min(len(data), _ROWS), device="cpu").long()].cpu().contiguous()
        )
        rows = hashlib.sha256(looked_at.view(torch.uint8).numpy().tobytes())
        told = denoiser.ranks.objects((len(data), rows.hexdigest()))
        if len(told) > 1:
            rows = hashlib.sha256(" ".join(one for _, one in told).encode())
        return {
            "version": VERSION,
            "num": self.num,
            "shard": self.size,
            "sigmas": self.sigmas.tolist(),
            "solver": self.solver,
            "afs": self.afs,
            "seed": self.seed,
            "backend": denoiser.backend,
            "tol": denoiser.tol,
            "ranks": len(told),  # sums over other parts of the data round otherwise
            "data": [str(data.dtype), sum(count for count, _ in told), *data.shape[1:]],
            "rows": rows.hexdigest(),
        }


def check_strangers(folder: Path) -> None:
    """Raises ValueError that names `out` where a folder holds anything and no notes: it would be read with the samples.

    What a kill may have left from before the notes, or of a file's levels, is no stranger.
    """
    if not folder.is_dir() or (folder / _NOTES).exists():
        return
    strangers = sorted(path.name for path in folder.iterdir() if not path.name.startswith(_ON_THE_WAY))
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise ValueError(
            f"out: expected an empty folder or one with {_NOTES}, found {strangers[0]}{more} without it in {folder}; "
            f"allowed a new name"
        )


def noise_of(samples: range, shape: tuple[int, ...], seed: int) -> Tensor:
    """z_i ~ N(0, I) for each i of `samples`, [n, *shape] float32: by seed and i alone."""
    noise = torch.empty(len(samples), *shape, device="cpu")
    generator = torch.Generator()
    for row, i in zip(noise, samples, strict=True):
        generator.manual_seed(int(np.random.SeedSequence((seed, i)).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        row.normal_(generator=generator)
    return noise
