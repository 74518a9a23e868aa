"""The results as flat tables: a row for every attack on every rung of every cell, and a row for every example."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import fmean
from typing import TYPE_CHECKING, Any

from invertigo.auditing.record import AttackRecord, AuditRecord
from invertigo.studies.columns import check_columns, column_of
from invertigo.studies.guard_values import GUARD, read_guard
from invertigo.studies.prints import print_of
from invertigo.studies.slices import axes_of, plain
from invertigo.studies.values import AGGREGATES, CLIENT, COUNTS, Value, best_guess, read, read_attack, strongest
from invertigo.types.extras import require

if TYPE_CHECKING:
    from invertigo.studies.store import CellResult

Scalar = str | int | float | bool | None
FACTS = "invertigo"
"""Under which `facts` stand in the schema of a Parquet file."""
_KINDS = {bool: "bool_", int: "int64", float: "float64", str: "string"}


@dataclass(frozen=True)
class Frame:
    """Rows of scalars under one set of columns; None where a row has no value."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]

    def records(self) -> list[dict[str, Scalar]]:
        """The rows as mappings, e.g. for `pandas.DataFrame.from_records`."""
        return [dict(zip(self.columns, row)) for row in self.rows]

    def csv(self) -> bytes:
        """RFC 4180 with a header, numbers in full precision, an empty field for no value."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([text_of(value) for value in row] for row in self.rows)
        return text.getvalue().encode("utf-8")

    def parquet(self, facts: Mapping[str, Any] | None = None) -> bytes:
        """Apache Parquet, a column of one type each, with `facts` in its schema. Raises: MissingExtraError."""
        arrow, files = require("pyarrow", "study"), require("pyarrow.parquet", "study")
        columns = {name: self._typed([row[i] for row in self.rows], arrow) for i, name in enumerate(self.columns)}
        buffer = io.BytesIO()
        kept = None if facts is None else {FACTS: json.dumps(facts)}
        files.write_table(arrow.table(columns).replace_schema_metadata(kept), buffer, compression="zstd")
        return buffer.getvalue()

    def _typed(self, values: Sequence[Scalar], arrow: Any) -> Any:
        """One type for a column: a whole number beside a fraction becomes a fraction, anything mixed a text."""
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            return arrow.array([None if v is None else float(v) for v in values], arrow.float64())
        if len(kinds) > 1:
            return arrow.array([None if v is None else text_of(v) for v in values], arrow.string())
        return arrow.array(values, getattr(arrow, _KINDS[kinds.pop() if kinds else str])())


def attack_frame(results: Iterable[CellResult]) -> Frame:
    """A row for every attack on every rung; one row for a cell that failed, was not run, or tried no attack.

    The study's axes come under their own names, what the audit recorded under `attack_*`, and every value that a
    claim can name under that name, as `column_of` writes them. `strongest` marks the attack that speaks for its cell.
    """
    return _frame(_attack_rows(results))


def example_frame(results: Iterable[CellResult]) -> Frame:
    """A row for every private example under every attack that was scored."""
    return _frame(_example_rows(results))


def guard_frame(results: Iterable[CellResult]) -> Frame:
    """A row for every adversary of every guarded federation, with each value that a claim can name."""
    return _frame(_guard_rows(results))


def timing_frame(results: Iterable[CellResult]) -> Frame:
    """What varies from run to run: seconds, why an attack stopped, when. Kept out of the other frames."""
    return _frame(_timing_rows(results))


def frame_files(
    results: Sequence[CellResult], *, parquet: bool | None = None, others: Sequence[str] = ()
) -> dict[str, bytes]:
    """Contents by file name: `results`, `examples` and `timings`, as CSV and as Parquet.

    All but the timings depend on nothing but the results, byte for byte, in whatever order they come; only the facts
    in the schema of `results.parquet` list axes and attacks as they come.

    Args:
        parquet: None writes Parquet where pyarrow is installed.
        others: cells of the folder that the study does not ask for.
    """
    wanted = find_spec("pyarrow") is not None if parquet is None else parquet
    frames = {"results": attack_frame(results), "examples": example_frame(results), "timings": timing_frame(results)}
    if any(result.record and result.record.guard for result in results):
        frames["guard"] = guard_frame(results)
    files = {f"{name}.csv": frame.csv() for name, frame in frames.items()}
    if wanted:
        facts = {"results": facts_of(results, others)}
        files |= {f"{name}.parquet": frame.parquet(facts.get(name)) for name, frame in frames.items()}
    return files


def facts_of(results: Sequence[CellResult], others: Sequence[str] = ()) -> dict[str, Any]:
    """What a table needs besides the rows: the axes and attacks in the order of the study, metrics and fingerprints.

    `others` are cells of the folder that the study does not ask for.
    """
    record = next((result.record for result in results if result.record), None)
    metrics = [metric.model_dump(mode="json") for metric in record.metrics] if record else []
    contents = {rests_on(result.contents): result.contents for result in results if result.contents}
    ways = dict.fromkeys((a.attack, a.level, a.informed) for one in results if one.record for a in one.record.attacks)
    return {
        "axes": axes_of(results),
        "metrics": metrics,
        "contents": contents,
        "ways": list(ways),
        "others": list(others),
    }


def rests_on(contents: Mapping[str, str] | None) -> str:
    """A short name for what a cell rests on, the same for cells that rest on the same."""
    return "" if not contents else print_of(contents)


def _attack_rows(results: Iterable[CellResult]) -> Iterable[dict[str, Scalar]]:
    for result in results:
        record, base = result.record, _identity(result)
        if record is None:
            yield base | {"status": "failed" if result.failure else "missing"}
            continue
        base |= {
            "status": "done",
            "rests_on": rests_on(result.contents),
            "verdict": record.verdict.status,
            "examples": record.num_examples,
        }
        base |= {name: read(record, Value(name)).number for name in CLIENT} if record.defense or record.utility else {}
        speaker, guesses = strongest(record), _guesses(record)
        for attack in record.attacks:
            yield base | _attack_row(record, attack) | {"strongest": attack is speaker} | guesses
        if not record.attacks:
            yield base | guesses


def _attack_row(record: AuditRecord, attack: AttackRecord) -> dict[str, Scalar]:
    facts: dict[str, Scalar] = {
        "attack.name": attack.attack,
        "attack.level": attack.level,
        "attack.status": attack.status,
        "attack.exact": attack.exact,
        "attack.informed": attack.informed,
        "attack.labels": attack.labels,
        "attack.reason": attack.reason,
    }
    if attack.status != "ran":
        return facts
    values = [Value(name) for name in COUNTS]
    values += [Value(metric.name, how) for metric in record.metrics for how in AGGREGATES]
    scored = attack.scores.get(record.metrics[0].name)
    return facts | {str(value): read_attack(record, attack, value).number if scored else None for value in values}


def _guesses(record: AuditRecord) -> dict[str, Scalar]:
    guess = best_guess(record)
    if guess is None:
        return {}
    means = {f"guess.{m.name}.mean": fmean(guess.scores[m.name]) for m in record.metrics if guess.scores.get(m.name)}
    return {"guess.name": guess.name, **means}


def _example_rows(results: Iterable[CellResult]) -> Iterable[dict[str, Scalar]]:
    for result in results:
        for attack in result.record.ran if result.record else ():
            base = _identity(result) | {"attack.name": attack.attack, "attack.level": attack.level}
            base |= {"attack.informed": attack.informed}
            for i in range(max(map(len, attack.scores.values()), default=0)):
                row = base | {"example": i + 1}
                row |= {name: values[i] for name, values in attack.scores.items()}
                row |= {"outcome": attack.outcomes[i]} if attack.outcomes else {}
                yield row | ({"rank": attack.ranks[i], "line_up": attack.decoys} if attack.ranks else {})


def _guard_rows(results: Iterable[CellResult]) -> Iterable[dict[str, Scalar]]:
    for result in results:
        guard = result.record.guard if result.record else None
        if guard is None:
            continue
        for one in guard.adversaries:
            row = _identity(result) | {"adversary": one.name, "attack.name": one.attack, "tuned": one.tuned}
            values = {name: read_guard(guard, name, one.name) for name in GUARD}
            yield row | {n: v if isinstance(v, float) else None for n, v in values.items()} | {"reason": one.skipped}


def _timing_rows(results: Iterable[CellResult]) -> Iterable[dict[str, Scalar]]:
    for result in results:
        record = result.record
        if record is None:
            continue
        base = _identity(result) | {"created": record.created, "cell.seconds": record.seconds}
        for attack in record.attacks:
            yield base | {
                "attack.name": attack.attack,
                "attack.level": attack.level,
                "attack.informed": attack.informed,
                "attack.seconds": attack.seconds,
                "attack.stopped": attack.stopped,
            }


def _identity(result: CellResult) -> dict[str, Scalar]:
    coordinates: dict[str, Scalar] = {axis: _scalar(value) for axis, value in result.coordinates.items()}
    check_columns(coordinates)
    return coordinates | {"seed": result.seed, "block": result.block, "cell": result.key}


def _frame(rows: Iterable[Mapping[str, Scalar]]) -> Frame:
    """Columns in the order in which they first occur in the sorted rows, so that their order is settled too."""
    ordered = sorted(rows, key=_order)
    names = tuple(dict.fromkeys(name for row in ordered for name in row))
    return Frame(tuple(map(column_of, names)), tuple(tuple(row.get(name) for name in names) for row in ordered))


def _order(row: Mapping[str, Scalar]) -> tuple[tuple[int, float, str], ...]:
    """By the axes as the study names them, then by what tells apart the rows of one point."""
    names = list(row)
    axes = names[: names.index("seed")]
    return tuple(_rank(row.get(name)) for name in [*axes, *_PRECEDENCE])


_PRECEDENCE = ["seed", "block", "cell", "attack.level", "attack.name", "attack.informed", "example", "adversary"]


def _rank(value: Scalar) -> tuple[int, float, str]:
    """Numbers by size before texts by letter, so that 8 stands before 16."""
    if isinstance(value, (bool, int, float)):
        return 0, float(value), ""
    return (1, 0.0, value) if isinstance(value, str) else (2, 0.0, "")


def _scalar(value: Any) -> Scalar:
    return value if value is None or isinstance(value, (bool, int, float, str)) else plain(value)


def text_of(value: Scalar) -> str:
    """A scalar as it stands in a column of texts."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
