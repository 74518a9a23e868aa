"""A received model from a file, which is never unpickled."""

from __future__ import annotations

from pathlib import Path

from invertigo.types import CorruptFileError, Received, read_tensors

PICKLES = (b"\x80", b"PK\x03\x04")
"""How pickles, and the zip archives that `torch.save` writes, begin."""


def read_model(path: str | Path) -> Received:
    """The tensors of a safetensors file. Raises: CorruptFileError, also for a pickle, whatever its name."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(4)
        if head.startswith(PICKLES):
            raise CorruptFileError(
                f"{path} is a pickle (as torch.save writes), not safetensors. A pickle runs the code of whoever made "
                "it when it is opened, so a model from a server is never read from one. Ask for safetensors."
            )
    return Received(read_tensors(path, holding="model"))
