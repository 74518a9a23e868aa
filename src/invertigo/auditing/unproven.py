"""What keeps the absence of more from being believed, read off a written result."""

from __future__ import annotations

from invertigo.auditing.gaps import gaps, stuck
from invertigo.auditing.record import AuditRecord


def unproven(record: AuditRecord, level: int | None = None, *, require_controls: bool = True) -> list[str]:
    """Why it cannot be believed that no more can be rebuilt, up to rung `level`, than was; empty when it can.

    Where something was rebuilt, the fit may be missing: it was not asked when a candidate explains the update.
    """
    told = _uncontrolled(record, level) if require_controls else []
    return told + gaps(record.levels, record.attacks, record.flags, level)


def _uncontrolled(record: AuditRecord, level: int | None) -> list[str]:
    leaked = record.verdict.level is not None and (level is None or record.verdict.level <= level)
    near = [attack for attack in record.ran if level is None or attack.level <= level]
    unasked = {"fit"} if leaked and not stuck(near) else set()
    lacking = [name for name in record.uncontrolled if name not in unasked]
    told = [f"the controls that must stand behind it ({', '.join(lacking)}) did not pass or are not on record"]
    told = told if lacking else []
    if record.portfolio == "chosen":
        told.append("attacks or rungs were chosen by hand, and are fewer than an audit would try by itself")
    return told
