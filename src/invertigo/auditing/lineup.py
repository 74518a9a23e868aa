"""Examples that stand beside the private ones: what is public of their kind, or what stands in for it."""

from __future__ import annotations

from invertigo import data
from invertigo.data import GraphSet, ImageSet
from invertigo.domains import Graphs, Images
from invertigo.domains.molecules import BLOCKS
from invertigo.types import Batch, ConfigurationError, Domain, InvertigoError

STAND_INS = {1: "faces", 3: "photos"}
"""Bundled pictures that serve as decoys when the user gives none, by number of channels."""


def as_batch(public: Batch | ImageSet | GraphSet, domain: Domain) -> Batch:
    """Examples as the model reads them; an `ImageSet` holds pixels and is normalised here."""
    if isinstance(public, Batch):
        return public
    if isinstance(public, GraphSet):
        if not isinstance(domain, Graphs) or domain.blocks != public.blocks:
            raise ConfigurationError(
                f"The graphs of '{public.name}' have other features than the private {domain.name}; "
                "pass public= of the same kind."
            )
        return public.batch(domain=domain)
    if not isinstance(domain, Images):
        raise ConfigurationError(f"An image set cannot stand beside private {domain.name}; pass public=Batch(...).")
    pixels = public.images * (domain.high - domain.low) + domain.low
    return Batch({"images": domain.from_pixels(pixels), "labels": public.labels})


def stand_in(domain: Domain, wanted: int) -> tuple[Batch | None, str]:
    """Bundled examples of the same shape as a line-up, with their name; (None, "") when there are none."""
    if isinstance(domain, Graphs) and domain.blocks == BLOCKS:
        return as_batch(data.load("drugs"), domain), "drugs"
    if not isinstance(domain, Images) or domain.shape[1] != domain.shape[2] or domain.shape[0] not in STAND_INS:
        return None, ""
    name = STAND_INS[domain.shape[0]]
    try:
        found = data.load(name, size=domain.shape[1], limit=max(wanted, 1))
    except InvertigoError:
        return None, ""  # a flag tells that there were no decoys
    return as_batch(found, domain), name
