"""Named sets of graphs, filed beside the sets of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from invertigo.data.graph_set import GraphSet
from invertigo.data.source import Request, registry
from invertigo.types import InvalidValueError, Paper, UnknownNameError, did_you_mean


@dataclass(frozen=True)
class GraphSource:
    """A set of graphs that can be loaded by name. `read` returns it; `bundled` sets need no files of their own."""

    name: str
    summary: str
    splits: tuple[str, ...]
    licence: str
    read: Callable[[Request], GraphSet]
    bundled: bool = False
    paper: Paper | None = None

    def load(self, request: Request) -> GraphSet:
        """Read what is asked for. Raises: UnknownNameError for a split that the set does not have."""
        if request.split not in self.splits:
            raise UnknownNameError(
                f"'{self.name}' has no split '{request.split}'.{did_you_mean(request.split, self.splits)}"
                f" Known: {', '.join(self.splits)}."
            )
        if request.size is not None:
            raise InvalidValueError(
                f"size={request.size} is a side in pixels, and '{self.name}' holds graphs; to choose graphs by their "
                "number of nodes use GraphSet.sized(least, most), in a scenario data.nodes: [least, most]."
            )
        found = self.read(request)
        return found if request.limit is None else found.part(range(min(request.limit, len(found))))


def register(source: GraphSource) -> GraphSource:
    """File a source under its own name."""
    return registry.register(source.name)(source)  # type: ignore[arg-type, return-value]
