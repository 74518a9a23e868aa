"""Interrupted training goes on where it stood: modules, optimisers and the generator in one safetensors file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from invertigo.types import CorruptFileError
from invertigo.types.observation import read_tensors

_EPOCHS, _GENERATOR = "epochs", "generator"


def saved(
    path: Path,
    parts: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    generator: torch.Generator,
    epochs: int,
) -> None:
    """Write where training stands after `epochs`; a crash while writing leaves the earlier file."""
    tensors = {f"{name}/{key}": t for name, part in parts.items() for key, t in part.state_dict().items()}
    for name, optimiser in optimisers.items():
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{name}/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors |= {_EPOCHS: torch.tensor(epochs), _GENERATOR: generator.get_state()}
    draft = path.with_name(path.name + ".part")
    save_file({key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}, str(draft))
    os.replace(draft, path)


def restored(
    path: Path,
    parts: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    generator: torch.Generator,
) -> int:
    """Put everything back as `saved` wrote it; the number of epochs that were done, 0 without a file.

    Raises: CorruptFileError when the file belongs to another training.
    """
    if not path.exists():
        return 0
    tensors = read_tensors(path)
    try:
        for name, part in parts.items():
            part.load_state_dict({key: tensors[f"{name}/{key}"] for key in part.state_dict()})
        for name, optimiser in optimisers.items():
            optimiser.load_state_dict({**optimiser.state_dict(), "state": _states(tensors, name)})
        generator.set_state(tensors[_GENERATOR])
        return int(tensors[_EPOCHS])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CorruptFileError(
            f"{path} is a checkpoint of another training ({str(error).splitlines()[0]}); "
            "remove it, or name another file."
        ) from error


def _states(tensors: Mapping[str, Tensor], name: str) -> dict[int, dict[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        owner, _, rest = key.partition("/")
        index, _, entry = rest.partition("/")
        if owner == name and entry:
            found.setdefault(int(index), {})[entry] = tensor
    return found
