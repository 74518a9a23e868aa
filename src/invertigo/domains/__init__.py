"""Kinds of private data: their fields and ranges, how two batches compare, how one is drawn."""

from invertigo.domains.graphs import Graphs
from invertigo.domains.images import Images
from invertigo.types import Domain, Registry

registry: Registry[type[Domain]] = Registry("domains", "domain")
registry.register("images")(Images)
registry.register("graphs")(Graphs)

__all__ = ["Graphs", "Images", "registry"]
