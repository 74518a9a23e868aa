"""Pictures inside the page, as data URIs."""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from invertigo.auditing.record import AttackRecord

if TYPE_CHECKING:
    from torch import Tensor

    from invertigo.auditing import Audit

SMALL = 64
"""Pictures up to this many pixels a side are shown pixel by pixel; larger ones as JPEG of at most LARGE a side."""
LARGE = 160
LIGHT = 40_000
"""Bytes up to which a picture of twice LARGE a side goes in as it is: drawings, whose lines JPEG would blur."""


@dataclass(frozen=True)
class Picture:
    """A picture in a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int

    @property
    def pixelated(self) -> bool:
        """Small enough that single pixels are meant to be seen."""
        return max(self.width, self.height) <= SMALL


@dataclass(frozen=True)
class Exposed:
    """One private example as the report shows it."""

    truth: Picture | None
    rebuilt: Picture | None
    difference: Picture | None


def exposed(audit: Audit, attack: AttackRecord, *, originals: bool, only: list[int]) -> dict[int, Exposed]:
    """Truth, reconstruction and difference of the examples in `only`; truth only where `originals` allows it.

    A reconstruction that the matching paired with no private example is not drawn.
    """
    prefix = f"{attack.tensors}/"
    fields = {name.removeprefix(prefix): t for name, t in audit.reconstructions.items() if name.startswith(prefix)}
    domain, private = audit.domain, audit.originals if originals else None
    drawn = domain.render(fields) if attack.tensors and fields else []
    truth = domain.render(private.fields) if private is not None else []
    off = _differences(audit, attack, fields) if truth and drawn else []
    return {
        i: Exposed(_draw(truth, i), _draw(drawn, attack.matching[i] if attack.matching else i), _draw(off, i))
        for i in only
    }


def strangers(audit: Audit) -> list[Picture]:
    """The public examples that the audit kept of a line-up."""
    return [_embed(png) for png in audit.domain.render(audit.strangers)] if audit.strangers else []


def _differences(audit: Audit, attack: AttackRecord, fields: dict[str, Tensor]) -> list[bytes]:
    """How far truth and reconstruction differ, for a domain that draws differences."""
    import torch

    draw = getattr(audit.domain, "difference", None)
    return draw(audit.originals, fields, torch.tensor(attack.matching)) if draw and attack.matching else []


def _draw(pngs: list[bytes], index: int) -> Picture | None:
    return _embed(pngs[index]) if 0 <= index < len(pngs) else None


def _embed(png: bytes) -> Picture:
    """Small pictures and drawings as they are; large ones at display size, since tensors are stored beside the page."""
    image = Image.open(io.BytesIO(png))
    if max(image.size) <= SMALL or (max(image.size) <= 2 * LARGE and len(png) <= LIGHT):
        return Picture(_uri("png", png), *image.size)
    image = image.convert("RGB")
    image.thumbnail((LARGE, LARGE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return Picture(_uri("jpeg", buffer.getvalue()), *image.size)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
