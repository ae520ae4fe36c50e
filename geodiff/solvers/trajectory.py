"""A solved ODE: the states at every noise level, and what the denoiser answered there."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geodiff.backends.cost import Cost
from geodiff.base.dataclass_repr import by_shape
from geodiff.base.errors import DataError
from geodiff.base.files import atomic_path

# Under a name that no caller gives to metadata of its own.
_VERSION_KEY = "geodiff.trajectory.version"
_VERSION = "1"
_TENSORS = ("sigmas", "states", "denoised")


@dataclass(eq=False)
class Trajectory:
    """The sampling trajectory x_s at sigma_s, and the denoising trajectory r_s = r(x_s; sigma_s).

    sigmas   [S + 1]             float64, falling, the last may be 0; along a path of flow matching its times
    states   [S + 1, B, *shape]  x_s; states[0] is the noise that was started from, states[-1] the samples
    denoised [S, B, *shape]      r_s, for every level but the last, which no step starts from
    metadata names and values, all text, saved with the tensors; `sample` notes solver and number of evaluations
    cost     what each evaluation took, in their order; not saved, and empty where a recorded CUDA graph ran
    Of `sample(..., keep="end")` there is the end alone: states [1, B, *shape], and denoised is None.

    Raises ValueError where the shapes do not fit each other.
    """

    sigmas: Tensor
    states: Tensor
    denoised: Tensor  # or None: typed as nearly all have it, who asks for the end alone knows
    metadata: dict[str, str] = field(default_factory=dict)
    cost: list[Cost] = field(default_factory=list, repr=False)

    __repr__ = by_shape

    def __post_init__(self) -> None:
        steps = len(self.sigmas) - 1 if self.sigmas.ndim == 1 else 0
        if steps < 1:
            raise ValueError(f"sigmas: expected shape [S + 1], found {list(self.sigmas.shape)}; allowed S >= 1 steps")
        end_alone = getattr(self, "denoised", None) is None
        kept = 1 if end_alone else steps + 1
        if self.states.ndim < 2 or len(self.states) != kept:
            raise ValueError(
                f"states: expected shape [S + 1, B, *shape] with S = {steps} steps, found {list(self.states.shape)}; "
                f"allowed one state per level in sigmas, or the end alone [1, B, *shape] where denoised is None"
            )
        if not end_alone and self.denoised.shape != (steps, *self.states.shape[1:]):
            raise ValueError(
                f"denoised: expected shape {[steps, *self.states.shape[1:]]}, found {list(self.denoised.shape)}; "
                f"allowed one output per step, of the shape of the state"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file of the tensors and the metadata; an old file stays until it is whole.

        Raises TypeError for metadata that is not text, FileNotFoundError where the folder does not exist.
        """
        for key, value in self.metadata.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError(f"metadata: expected text, found {key!r:.60}: {value!r:.60}; allowed str to str")
        kept = {name: getattr(self, name) for name in _TENSORS if getattr(self, name) is not None}
        tensors = {name: values.detach().cpu().contiguous() for name, values in kept.items()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {**self.metadata, _VERSION_KEY: _VERSION})

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> "Trajectory":
        """Read what `save` wrote. Raises FileNotFoundError, or DataError for a damaged or other file."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected a trajectory saved by geodiff, found no such file")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                version = metadata.pop(_VERSION_KEY, None)
                if version is None:
                    raise DataError(path, "a safetensors file, but not a trajectory saved by geodiff")
                if version != _VERSION:
                    raise DataError(path, f"a trajectory of version {version}; this geodiff reads version {_VERSION}")
                there = set(file.keys())
                sigmas, states, denoised = (
                    None if name == "denoised" and name not in there else file.get_tensor(name).to(device)
                    for name in _TENSORS
                )
            return cls(sigmas, states, denoised, metadata)  # type: ignore[arg-type]  # None: see the field
        except DataError:
            raise
        except (SafetensorError, OSError, ValueError) as error:
            raise DataError(path, f"a damaged or truncated trajectory ({error})") from error
