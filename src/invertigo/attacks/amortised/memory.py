"""Networks that this process trained lately, so that attacking one model many times trains one network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

CAPACITY = 4
"""A few megabytes each."""
_kept: dict[str, Any] = {}


def key(settings: str, evidence: Iterable[Tensor], public: Mapping[str, Tensor]) -> str:
    """A fingerprint of all that decides the training.

    `evidence` holds what the first simulated clients sent and the state of the generator after them: model, recipe,
    defense and adversary cannot differ without changing it, closures that cannot be compared included.
    """
    digest = hashlib.sha256(settings.encode())
    for tensor in [*evidence, *(public[name] for name in sorted(public))]:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def recall(fingerprint: str) -> Any | None:
    """What was kept under it; None when nothing was, or no longer."""
    return _kept.get(fingerprint)


def keep(fingerprint: str, trained: Any) -> None:
    """Remember it, and forget the oldest beyond `CAPACITY`."""
    _kept[fingerprint] = trained
    for oldest in list(_kept)[:-CAPACITY]:
        _kept.pop(oldest)


def forget() -> None:
    """Forget everything."""
    _kept.clear()
