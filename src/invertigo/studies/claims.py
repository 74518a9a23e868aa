"""What a study is said to show: a sentence, its source, and the comparison that decides it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from invertigo.studies.slices import RECORDED, check_axes, label, matches, plain
from invertigo.studies.values import parse_value
from invertigo.types.errors import ConfigurationError

Status = Literal["holds", "does not hold", "inconclusive"]
"""The interval lies on the claim's side; on the other side; or on both, or it could not be measured."""

_TEMPLATES = ("compare", "threshold", "order", "correlation")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("value", check_fields=False)
    @classmethod
    def _a_value(cls, value: str) -> str:
        return _checked(value)


class Compare(_Part):
    """Two slices, cell by cell: same coordinates and seed on both sides, but for those that `left` and `right` name.

    With one pair of cells the pairs are its private examples, when both sides hold the same ones.
    """

    value: str = Field(description="`metric.aggregate`, `recovered`, `identified`, `labels.accuracy`, `over_guess`.")
    left: dict[str, Any] = Field(description="Coordinates of one side; `attack` and `level` choose within a cell.")
    right: dict[str, Any]
    where: dict[str, Any] = Field(default_factory=dict, description="Coordinates that both sides have.")
    more_than: float | None = Field(None, description="left - right > this; the default, with 0.")
    at_least: float | None = Field(None, description="left - right >= this.")
    at_most: float | None = Field(None, description="left - right <= this.")
    ratio: float | None = Field(None, gt=0, description="mean left / mean right >= this.")
    paired_by: list[str] | None = Field(
        None, description="Axes that a pair has in common, over whose other axes each side is averaged; default: all."
    )

    @model_validator(mode="after")
    def _one_bound(self) -> Compare:
        given = [name for name in ("more_than", "at_least", "at_most", "ratio") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"a comparison has one bound, not {' and '.join(given)}")
        return self

    @property
    def bound(self) -> tuple[str, float]:
        """The comparison that must hold, and its number."""
        if self.at_most is not None:
            return "<=", self.at_most
        number = self.ratio if self.ratio is not None else self.at_least
        return (">=", number) if number is not None else (">", self.more_than or 0.0)


class Threshold(_Part):
    """The mean of a value over a slice, against a number."""

    value: str
    where: dict[str, Any] = Field(default_factory=dict)
    op: Literal[">", ">=", "<", "<="]
    number: float


class Order(_Part):
    """A value that only rises, or only falls, along an axis: every step is a paired comparison of two neighbours."""

    value: str
    axis: str
    along: list[Any] = Field(min_length=2, description="Values of the axis, in the order of the claim.")
    direction: Literal["increasing", "decreasing"]
    where: dict[str, Any] = Field(default_factory=dict)


class Correlation(_Part):
    """Spearman's rank correlation over the cells of a slice, of two values, or of an axis of numbers and a value."""

    x: str = Field(description="An axis of the study, or a value.")
    y: str
    where: dict[str, Any] = Field(default_factory=dict)
    at_least: float | None = Field(None, ge=-1, le=1)
    at_most: float | None = Field(None, ge=-1, le=1)

    @model_validator(mode="after")
    def _one_bound(self) -> Correlation:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a correlation needs either `at_least` or `at_most`")
        return self


class Claim(BaseModel):
    """A sentence about a study, and how its results decide it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$", description="Short name, e.g. untrained-leaks-more.")
    sentence: str = Field(min_length=1, description="The claim in words, as it is printed.")
    source: str = Field("", description="Where it is claimed: paper, section, table.")
    whose: Literal["paper", "ours"] = Field("ours", description="Who claims it.")
    compare: Compare | None = None
    threshold: Threshold | None = None
    order: Order | None = None
    correlation: Correlation | None = None

    @model_validator(mode="after")
    def _one_template(self) -> Claim:
        given = [name for name in _TEMPLATES if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"a claim has exactly one of {', '.join(_TEMPLATES)}, but this one has {found}")
        if self.whose == "paper" and not self.source:
            raise ValueError("a paper's claim names its `source`")
        return self

    @property
    def test(self) -> Compare | Threshold | Order | Correlation:
        """What decides the claim."""
        return next(part for name in _TEMPLATES if (part := getattr(self, name)) is not None)

    @property
    def axes(self) -> list[str]:
        """The axes that it speaks of."""
        paired = (self.test.paired_by or []) if isinstance(self.test, Compare) else []
        return list(dict.fromkeys([axis for axis, _ in _coordinates(self.test)] + paired))

    def check(self, axes: Mapping[str, Sequence[Any]]) -> None:
        """Raises: ConfigurationError for an axis, or a value of an axis, that the study does not have."""
        what = f"Claim '{self.name}'"
        check_axes(self.axes, axes, what)
        for axis, wanted in _coordinates(self.test):
            for one in wanted if isinstance(wanted, list) else [wanted]:
                if axis in axes and not any(matches(known, one) for known in axes[axis]):
                    raise ConfigurationError(
                        f"{what}: the axis '{axis}' has no value {one!r}; it has {', '.join(map(label, axes[axis]))}."
                    )
        for name in (self.test.x, self.test.y) if isinstance(self.test, Correlation) else ():
            if name not in axes:
                parse_value(name)


class ClaimRecord(BaseModel):
    """What became of a claim: an entry of `claims.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    name: str
    sentence: str
    source: str
    whose: Literal["paper", "ours"]
    status: Status
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    """What `n` counts: pairs of cells, cells, or private examples of one cell."""
    quantity: str = ""
    """What the estimate is of, in words."""
    bound: str = ""
    """The side of which number the interval must lie on, e.g. `> 0`."""
    reason: str = ""


def check_claims(claims: Iterable[Claim], axes: Mapping[str, Sequence[Any]]) -> None:
    """Hold every claim against the axes of its study, each with its labels at any preset.

    Raises: ConfigurationError.
    """
    seen: set[str] = set()
    for claim in claims:
        if claim.name in seen:
            raise ConfigurationError(f"Two claims are called '{claim.name}'; a name tells them apart in claims.json.")
        seen.add(claim.name)
        claim.check(axes)


def _coordinates(test: Compare | Threshold | Order | Correlation) -> list[tuple[str, Any]]:
    sides = [test.where, *([test.left, test.right] if isinstance(test, Compare) else [])]
    found = [(axis, wanted) for side in sides for axis, wanted in side.items()]
    return found + ([(test.axis, list(test.along))] if isinstance(test, Order) else [])


def _checked(value: str) -> str:
    try:
        parse_value(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return value


def varied(test: Compare) -> set[str]:
    """The axes in which the two sides of a comparison differ."""
    axes = {*test.left, *test.right}
    return {axis for axis in axes if plain(test.left.get(axis)) != plain(test.right.get(axis))} | (axes & set(RECORDED))
