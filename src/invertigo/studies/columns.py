"""Names of columns: usable in SQL and pandas as they are, without quotes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from invertigo.types.errors import ConfigurationError

_KEYWORDS = """
and all any array as asc between by case cast check column constraint create cross current_date default desc distinct
do else end except exists false fetch for foreign from full grant group having in inner intersect into is join leading
left like limit natural not null offset on only or order outer primary references returning right row rows select set
some table then to true union unique user using values when where window with
"""
KEYWORDS = frozenset(_KEYWORDS.split())
"""Words that SQL takes for itself, in DuckDB, SQLite or PostgreSQL."""
_RESERVED = """
seed block cell status verdict examples example strongest outcome rank line_up rests_on adversary tuned reason created
cell_seconds attack_name attack_level attack_status attack_exact attack_informed attack_labels attack_reason
attack_seconds attack_stopped guess_name
"""
RESERVED = frozenset(_RESERVED.split())
"""Columns that every study has, which none of its axes may be called."""


def column_of(name: str) -> str:
    """`psnr.mean` as `psnr_mean`, `data.count` as `data_count`: small letters, digits and underscores."""
    plain = re.sub(r"[^0-9a-z_]", "_", name.lower()) or "_"
    plain = f"_{plain}" if plain[0].isdigit() else plain
    return f"{plain}_" if plain in KEYWORDS else plain


def check_columns(axes: Iterable[str]) -> None:
    """Refuse axes whose columns could not be told apart in the results. Raises: ConfigurationError."""
    seen: dict[str, str] = {}
    for axis in axes:
        column = column_of(axis)
        if column in RESERVED:
            raise ConfigurationError(
                f"An axis is called '{axis}', as a column of the results is; give it another name."
            )
        if column in seen:
            raise ConfigurationError(
                f"The axes '{seen[column]}' and '{axis}' would both be the column '{column}' of the results; "
                "give one another name: {label: ..., set: {...}}."
            )
        seen[column] = axis
