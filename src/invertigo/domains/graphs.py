"""Private graphs: molecules, citations, social circles. How they are encoded, compared, recognised and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from invertigo.types import InvalidValueError


@dataclass(frozen=True)
class Graphs:
    """Undirected graphs whose nodes carry one-hot groups, which the model reads as `(one_hot - mean) / std`.

    A batch has the fields `features` (graph, node, column), `adjacency` (graph, node, node; 0 or 1, symmetric, no
    self-loops), `present` (graph, node; False for padding, whose rows are 0) and `labels` (graph,).

    Args:
        blocks: widths of the one-hot groups, in the order of the columns. A group of width 1 is a yes or no (0 or 1).
        nodes: places for nodes in one example, padding included.
        vocabulary: (type, column) zeros and ones, the kinds of nodes that occur in public data; None: all there are.
        degree_block: the position in `blocks` of the group that tells a node's degree, if there is one.
        mean, std: one number a column, in the unit of the zeros and ones. A std of 0 (a column that is constant in
            public data) is read as 1, so that a value nobody has seen before stays visible.
    """

    blocks: tuple[int, ...]
    nodes: int = 64
    vocabulary: Tensor | None = field(default=None, compare=False, repr=False)
    degree_block: int | None = None
    mean: tuple[float, ...] | None = field(default=None, repr=False)
    std: tuple[float, ...] | None = field(default=None, repr=False)

    name: ClassVar[str] = "graphs"
    inputs: ClassVar[str] = "features"
    target: ClassVar[str] = "labels"
    reads: ClassVar[tuple[str, ...]] = ("features", "adjacency", "present")

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(int(width) for width in self.blocks))
        if not self.blocks or min(self.blocks) < 1:
            raise InvalidValueError(f"Graphs.blocks is {self.blocks}; it must list the widths of the one-hot groups.")
        if self.nodes < 1:
            raise InvalidValueError(f"Graphs.nodes is {self.nodes}; a graph has at least one node.")
        if self.degree_block is not None and not 0 <= self.degree_block < len(self.blocks):
            raise InvalidValueError(
                f"Graphs.degree_block is {self.degree_block}, but there are {len(self.blocks)} blocks, counted from 0."
            )
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._per_column(name))
        if self.std is not None:
            object.__setattr__(self, "std", tuple(s if s > 0 else 1.0 for s in self.std))

    @property
    def width(self) -> int:
        """Number of feature columns."""
        return sum(self.blocks)

    @cached_property
    def columns(self) -> tuple[slice, ...]:
        """The columns of each one-hot group."""
        ends = torch.tensor(self.blocks).cumsum(0).tolist()
        return tuple(slice(end - width, end) for width, end in zip(self.blocks, ends))

    def to_model(self, one_hot: Float[Tensor, "*batch column"]) -> Float[Tensor, "*batch column"]:
        """From zeros and ones to what the model reads. Padding is the caller's to zero."""
        mean, std = self._standard(one_hot)
        return (one_hot - mean) / std

    def from_model(self, features: Float[Tensor, "*batch column"]) -> Float[Tensor, "*batch column"]:
        """From what the model reads to zeros and ones (not rounded): `x * std + mean`."""
        mean, std = self._standard(features)
        return features * std + mean

    def choices(self, features: Float[Tensor, "*batch column"]) -> Int[Tensor, "*batch block"]:
        """The member of each one-hot group that a row in model space is nearest to."""
        values = self.from_model(features)
        picked = [
            (values[..., part.start] > 0.5).long() if width == 1 else values[..., part].argmax(-1)
            for part, width in zip(self.columns, self.blocks)
        ]
        return torch.stack(picked, dim=-1)

    def one_hot(self, choices: Int[Tensor, "*batch block"]) -> Float[Tensor, "*batch column"]:
        """Zeros and ones (float32) of the chosen member of each group."""
        made = torch.zeros(*choices.shape[:-1], self.width, device=choices.device)
        for block, (part, width) in enumerate(zip(self.columns, self.blocks)):
            if width == 1:
                made[..., part.start] = choices[..., block].to(made)
            else:
                made[..., part].scatter_(-1, choices[..., block, None], 1.0)
        return made

    def _standard(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.mean or (0.0,) * self.width, self.std or (1.0,) * self.width
        return like.new_tensor(mean), like.new_tensor(std)

    def _per_column(self, name: str) -> tuple[float, ...] | None:
        values: Sequence[float] | None = getattr(self, name)
        if values is None:
            return None
        listed = tuple(float(v) for v in values)
        if len(listed) != sum(self.blocks):
            raise InvalidValueError(
                f"Graphs.{name} has {len(listed)} values for {sum(self.blocks)} columns; give one a column."
            )
        return listed

    def config(self) -> dict[str, Any]:
        """Name and arguments, ready for JSON; `from_config` reads it back."""
        kept = {key: list(v) if isinstance(v := getattr(self, key), tuple) else v for key in _PLAIN}
        known = None if self.vocabulary is None else self.choices(self.to_model(self.vocabulary.float())).tolist()
        return {"name": self.name, **kept, "vocabulary": known}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Graphs:
        """The domain that wrote `config`."""
        plain = cls(**{key: config.get(key) for key in _PLAIN if config.get(key) is not None})
        known = config.get("vocabulary")
        if known is None:
            return plain
        rows = plain.one_hot(torch.tensor(known))
        return cls(**{key: getattr(plain, key) for key in _PLAIN}, vocabulary=rows)


_PLAIN = ("blocks", "nodes", "degree_block", "mean", "std")
