"""Weights of a learned denoiser as a safetensors file that says how to build the network around them."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from geodiff.base.errors import DataError
from geodiff.base.files import atomic_path
from geodiff.learned.consistency import ConsistencyModel
from geodiff.learned.denoiser import LearnedDenoiser
from geodiff.learned.flow import LearnedFlow
from geodiff.learned.network import UNetConfig
from geodiff.learned.trajectory_operator import TrajectoryOperator

_KEY = "geodiff.learned"
_VERSION = 1
#: Their name in the folder that training writes to.
FILE_NAME = "weights.safetensors"
#: Every network that a file can hold.
Network = LearnedDenoiser | LearnedFlow | ConsistencyModel | TrajectoryOperator
_KINDS: dict[str, type[LearnedDenoiser] | type[LearnedFlow] | type[ConsistencyModel] | type[TrajectoryOperator]] = {
    "denoiser": LearnedDenoiser,
    "flow": LearnedFlow,
    "consistency": ConsistencyModel,
    "trajectory": TrajectoryOperator,
}
_SHIPPED = Path(__file__).parent / "weights"


def shipped() -> list[str]:
    """The data sets that weights come with the package for."""
    return sorted(path.stem for path in _SHIPPED.glob("*.safetensors"))


def save(denoiser: Network, path: str | os.PathLike[str], training: dict[str, object] | None = None) -> None:
    """Write the weights in float16, with shape, size and what `training` says of their origin (anything JSON holds).

    An old file stays until the new one is whole. Raises FileNotFoundError where the folder does not exist.
    """
    header = {
        "version": _VERSION,
        "kind": next(name for name, kind in _KINDS.items() if type(denoiser) is kind),
        "shape": denoiser.shape,
        "network": asdict(denoiser.network.config),
        "training": training or {},
    }
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in denoiser.network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {_KEY: json.dumps(header)})


def load(source: str | os.PathLike[str], device: torch.device | str = "cpu") -> LearnedDenoiser | LearnedFlow:
    """The denoiser or flow that `save` wrote, as `load_network` reads it; ValueError for weights of another kind."""
    found = load_network(source, device)
    # A consistency function has a denoiser's form, but answers the end of a trajectory and no mean.
    if isinstance(found, ConsistencyModel) or not isinstance(found, LearnedDenoiser | LearnedFlow):
        raise ValueError(
            f"{source}: expected weights of a denoiser or flow, found a {type(found).__name__}; "
            f"allowed geodiff.learned.load_network for others"
        )
    return found


def load_network(source: str | os.PathLike[str], device: torch.device | str = "cpu") -> Network:
    """The network that `save` wrote, in float32 and eval mode: from a file, or by the name of shipped weights.

    A folder stands for the weights that training left in it.
    Raises FileNotFoundError, or DataError for a damaged or other file.
    """
    path = Path(source)
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        names = shipped()
        if os.fspath(source) not in names:
            raise FileNotFoundError(
                f"{path}: expected weights that `geodiff train` wrote, found no such file; "
                f"allowed a .safetensors file, or shipped weights: {', '.join(names) or 'none'}"
            )
        path = _SHIPPED / f"{source}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError) as error:
        raise DataError(path, f"damaged or truncated weights ({error})") from error
    if text is None:
        raise DataError(path, "a safetensors file, but not weights of a geodiff learned denoiser")
    try:
        header = json.loads(text)
        if header["version"] != _VERSION:
            raise DataError(path, f"weights of version {header['version']}; this geodiff reads version {_VERSION}")
        kind = _KINDS[header.get("kind", "denoiser")]  # the first files did not say
        denoiser = kind(tuple(header["shape"]), UNetConfig(**header["network"]))
        denoiser.network.load_state_dict(tensors)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(path, f"weights that do not fit their own description ({error})") from error
    denoiser.training_metadata = header["training"]
    return denoiser.to(device).eval().requires_grad_(False)
