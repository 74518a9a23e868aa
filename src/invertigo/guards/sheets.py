"""Rows that read the same inputs, put side by side: an attacker may combine rows of any parameters that do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.types import UseSignals

COMBINED = 2.0
"""Examples' worth of content from which rows of a sheet are compared with each other."""
WEIGHS = 0.5
"""Examples' worth of content under which a sheet cannot matter, and its patches are not compared."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """Uses whose rows read the same `inputs`; `slopes` (unit, row) holds all their rows in order."""

    parts: tuple[UseSignals, ...]
    slopes: Tensor
    coverage: float
    owner: Tensor
    inputs: Tensor | None
    gates: Tensor | None = None

    @property
    def name(self) -> str:
        """The first parameter's, the same for every client of an architecture."""
        part = self.parts[0]
        return part.parameter + ("" if part.entries is None else " (columns)") + ("…" if len(self.parts) > 1 else "")

    @property
    def matters(self) -> bool:
        """Its rows can hold half an example's content."""
        return len(self.slopes) > 0 and self.slopes.shape[1] * self.coverage >= WEIGHS

    @property
    def plenty(self) -> bool:
        """Its rows can hold two examples' content, so that combinations of them are worth their time."""
        return self.slopes.shape[1] * self.coverage >= COMBINED

    def without(self, rows: Iterable[int]) -> Sheet:
        """The same with these rows silent."""
        slopes = self.slopes.clone()
        slopes[:, sorted(rows)] = 0.0
        return replace(self, slopes=slopes)

    def places(self, rows: Iterable[int]) -> dict[str, Tensor]:
        """Where rows stand in the flat parameters, and in the biases that go with them."""
        wanted = torch.tensor(sorted(rows), dtype=torch.long)
        found: dict[str, list[Tensor]] = {}
        start = 0
        for part in self.parts:
            width = part.slopes.shape[1]
            own = wanted[(wanted >= start) & (wanted < start + width)] - start
            start += width
            found.setdefault(part.parameter, []).append(_entries(part)[own].flatten())
            if part.bias is not None:
                found.setdefault(part.bias, []).append(own if part.bias_entries is None else part.bias_entries[own])
        return {name: torch.cat(places).unique() for name, places in found.items() if any(map(len, places))}

    def rows_of(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "row feature"] | None:
        """An update's rows as the forward pass read them; None where a parameter is not in it."""
        if any(
            part.parameter not in tensors or part.parameter_size != tensors[part.parameter].numel()
            for part in self.parts
        ):
            return None
        return torch.cat([_laid_out(part, tensors[part.parameter]) for part in self.parts])

    def shifts_of(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, " row"] | None:
        """An update of the biases that go with the rows; None where a row has none."""
        found = []
        for part in self.parts:
            if part.bias is None or part.bias not in tensors:
                return None
            flat = tensors[part.bias].detach().double().reshape(-1)
            found.append(flat if part.bias_entries is None else flat[part.bias_entries.to(flat.device)])
        return torch.cat(found)


def sheets(uses: Iterable[UseSignals]) -> list[Sheet]:
    """All rows that multiply inputs, in as few sheets as there are different inputs."""
    held: dict[object, list[UseSignals]] = {}
    for use in _whole(uses):
        key: object = id(use)
        if use.inputs is not None:
            key = (use.inputs.data_ptr(), tuple(use.inputs.shape), len(use.slopes))
        held.setdefault(key, []).append(use)
    return [_side_by_side(parts) for parts in held.values()]


def _side_by_side(parts: list[UseSignals]) -> Sheet:
    slopes = torch.cat([part.slopes for part in parts], 1)
    known = [part.gates for part in parts if part.gates is not None]
    gates = torch.cat(known, 1) if len(known) == len(parts) else None
    return Sheet(tuple(parts), slopes, parts[0].coverage, parts[0].owner, parts[0].inputs, gates)


def _whole(uses: Iterable[UseSignals]) -> list[UseSignals]:
    """One signal for each parameter and way of use, with the units of all its meetings (recurrence, tied weights)."""
    held: dict[tuple, UseSignals] = {}
    for use in uses:
        if use.slopes.ndim != 2 or use.how in ("entries", "lookup"):
            continue
        first = None if use.entries is None else (int(use.entries.flatten()[0]), tuple(use.entries.stride()))
        key = (use.parameter, use.how, use.slopes.shape[1], first)
        old = held.get(key)
        if old is None:
            held[key] = use
            continue
        slopes, owner = torch.cat([old.slopes, use.slopes]), torch.cat([old.owner, use.owner])
        both = old.inputs is not None and use.inputs is not None and old.inputs.shape[-1] == use.inputs.shape[-1]
        inputs = torch.cat([old.inputs, use.inputs]) if both else None  # type: ignore[list-item]
        coverage = old.coverage * len(old.slopes) / len(slopes)
        gates = None if old.gates is None or use.gates is None else torch.cat([old.gates, use.gates])
        held[key] = replace(old, slopes=slopes, coverage=coverage, owner=owner, inputs=inputs, gates=gates)
    return list(held.values())


def _entries(part: UseSignals) -> Tensor:
    """(row, feature) places in the flat parameter."""
    if part.entries is not None:
        return part.entries.reshape(len(part.entries), -1)
    rows = part.slopes.shape[1]
    return torch.arange(part.parameter_size).reshape(rows, -1)


def _laid_out(part: UseSignals, tensor: Tensor) -> Tensor:
    flat = tensor.detach().double().reshape(-1)
    if part.entries is None:
        return flat.reshape(part.slopes.shape[1], -1)
    return flat[_entries(part).to(flat.device)]
