"""Pictures guessed without reading the update: what a score must beat before it means anything."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.domains.matching import squared_distances

BASELINES: Mapping[str, str] = {
    "mid_grey": "mid-grey",
    "own_mean_colour": "its own mean colour (oracle)",
    "public_mean": "mean public image",
    "public_random": "random public images",
    "public_nearest": "nearest public image (oracle)",
}
"""Name and label of each baseline. An oracle looks at the truth: no attack without information does as well."""

SAME_PICTURE = 1e-4
"""Mean squared error (40 dB) below which two pictures count as one."""

Pixels = Float[Tensor, "batch channel height width"]
Public = Float[Tensor, "public channel height width"]


def guesses(truth: Pixels, public: Public | None, generator: torch.Generator) -> dict[str, Pixels]:
    """One guess per true image and baseline; pixels in [0, 1].

    Without public data, or when all of it is in the truth, the baselines that need it are left out: the private mean
    never stands in for them.
    """
    found = {
        "mid_grey": torch.full_like(truth, 0.5),
        "own_mean_colour": truth.mean((-2, -1), keepdim=True).expand_as(truth),
    }
    public = None if public is None else without(public, truth)
    if public is None or not len(public):
        return found
    chosen = torch.randint(len(public), (len(truth),), generator=generator)
    nearest = squared_distances(truth.flatten(1), public.flatten(1)).argmin(1)
    return found | {
        "public_mean": public.mean(0, keepdim=True).expand_as(truth),
        "public_random": public[chosen],
        "public_nearest": public[nearest],
    }


def without(images: Public, truth: Pixels) -> Float[Tensor, "kept channel height width"]:
    """`images` less those that show the same picture as a true one: a copy of the truth tells nothing as a decoy."""
    distances = squared_distances(images.flatten(1), truth.flatten(1))
    return images[(distances > SAME_PICTURE).all(1)]
