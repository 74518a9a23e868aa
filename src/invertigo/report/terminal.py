"""The result in a terminal: a full table, or twelve lines of plain text."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from invertigo.auditing.record import AttackRecord, AuditRecord
from invertigo.report.answer import Answer, answer
from invertigo.report.defense import defense_panel
from invertigo.report.numbers import duration, number, signed
from invertigo.report.tables import Row, attack_rows, baseline_rows, gain

_COLOURS = {"leaks": "red", "resists": "cyan", "inconclusive": "yellow"}
_SEVERITIES = {"fatal": ("fatal", "bold red"), "warning": ("caution", "yellow"), "info": ("note", "dim")}
_MARKS = {"good": "✓", "bad": "✗", "open": "?", "none": "–"}
_MOST_ROWS = 2


def render(record: AuditRecord, console: Console) -> None:
    """Print the answer, then threat ladder, attacks beside baselines, and flags."""
    colour = _COLOURS[record.verdict.status]
    title = Text(f" {record.verdict.status.upper()} · {record.title} ", style=f"bold {colour}")
    panel = Panel(_first_screen(record, colour), title=title, title_align="left", border_style=colour, padding=(0, 1))
    console.print(panel)
    console.print(_ladder(record))
    console.print(_attacks(record))
    for line in _defense(record):
        console.print(Padding(line, (0, 1)))
    for (attack, status, reason), rungs in _not_run(record).items():
        where = f"rung{'s' if len(rungs) > 1 else ''} {', '.join(map(str, rungs))}"
        console.print(Padding(Text(f"{attack} ({where}) {status}: {reason}", style="dim"), (0, 1)))
    for flag in record.flags:
        label, style = _SEVERITIES[flag.severity]
        console.print(Padding(Text.assemble((f"{label}  ", style), flag.message, " ", flag.remedy), (0, 1)))
    console.print(Padding(Text(f"seed {record.seed} · {duration(record.seconds)}", style="dim"), (0, 1)))


def _first_screen(record: AuditRecord, colour: str) -> Group:
    """What the page opens with: the verdict in words, and four short lists under it."""
    found, table = answer(record), Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=f"bold {colour}", no_wrap=True)
    table.add_column()
    for name, entries in _blocks(found):
        for position, entry in enumerate(entries):
            table.add_row("" if position else name, Text(entry))
    return Group(Text(found.headline, style="bold"), Text(found.subject, style="dim"), Text(), table)


def _blocks(found: Answer) -> Iterator[tuple[str, list[str]]]:
    yield (
        "who",
        [f"{_upper(one.who)}: {one.what}{f' ({one.condition})' * bool(one.condition)}" for one in found.findings],
    )
    yield "how sure", [f"{_MARKS[one.state]} {one.name}: {one.text}" for one in found.sure]
    yield "not examined", [_upper("; ".join(who for who, _ in found.unexamined))] if found.unexamined else []
    yield "what to do", list(found.todo)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _not_run(record: AuditRecord) -> dict[tuple[str, str, str], list[int]]:
    """Attacks without a result, with the rungs on which they have none for the same reason."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for attack in record.attacks:
        rungs = found.setdefault((attack.attack, attack.status, attack.reason), []) if attack.status != "ran" else []
        if attack.level not in rungs:
            rungs.append(attack.level)
    return found


def _defense(record: AuditRecord) -> Iterator[Text]:
    """The defense in three lines: both adversaries, what it did, what it cost."""
    panel = defense_panel(record)
    if panel is None:
        return
    yield Text.assemble(("Defense  ", "bold"), panel.name, (f" ({panel.settings})" if panel.settings else "", "dim"))
    for duel in panel.duels:
        who = f"{duel.naive} naive" + ("" if duel.informed == "–" else f", {duel.informed} informed")
        yield Text(f"  {duel.attack}, rung {duel.level}: {who} ({panel.score})")
    for name, facts in (("did", panel.did), ("cost", panel.cost)):
        if facts:
            yield Text(f"  {name}: " + " · ".join(f"{what} {value}" for what, value in facts), style="dim")


def to_text(record: AuditRecord) -> str:
    """The result in at most twelve lines, without colours."""
    return "\n".join(_lines(record))


def _lines(record: AuditRecord) -> Iterator[str]:
    found, headline = answer(record), record.metrics[0]
    rows, guesses = attack_rows(record), baseline_rows(record)
    yield f"{record.verdict.status.upper()}  {found.headline}"
    yield f"  {'audited':<14}{record.title}: {found.subject} (seed {record.seed}, {duration(record.seconds)})"
    for name, entries in _blocks(found):
        if entries:
            yield f"  {name:<14}{' '.join(_ended(entry) for entry in entries)}"
    score = f"{headline.label} {headline.unit} (worst / median)".replace("  ", " ")
    yield f"  {'attack':<28}{score:<28}{'rebuilt':<10}{'over best guess'}"
    for row in rows[:_MOST_ROWS]:
        yield f"  {_name(row):<28}{_line(record, row)}"
    if len(rows) > _MOST_ROWS:
        yield f"  … and {len(rows) - _MOST_ROWS} more in .rows"
    for row in guesses[:1]:
        yield f"  {row.label[:27]:<28}{_pair(record, row):<28}reads nothing from the update"
    if record.flags:
        yield f"flags: {', '.join(dict.fromkeys(flag.code for flag in record.flags))}"


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _name(row: Row) -> str:
    return f"{row.label} (rung {row.attack.level})"[:27] if row.attack else row.label[:27]


def _line(record: AuditRecord, row: Row) -> str:
    attack = row.attack
    if attack is None or attack.status != "ran":
        return f"{attack.status}: {attack.reason}"[:80] if attack else ""
    lead = gain(record, row)
    over = "–" if lead is None else f"{signed(lead, record.metrics[0].unit)} {record.metrics[0].unit}".strip()
    return f"{_pair(record, row):<28}{f'{attack.recovered} of {record.num_examples}':<10}{over}"


def _pair(record: AuditRecord, row: Row) -> str:
    headline = record.metrics[0]
    summary = row.summaries[headline.name]
    return f"{number(summary.worst, headline.unit)} / {number(summary.median, headline.unit)}" if summary else "–"


def _ladder(record: AuditRecord) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Threat ladder", title_justify="left", title_style="bold")
    for name in ("rung", "the adversary …", "rebuilt", "identified", "strongest"):
        table.add_column(name, justify="right" if name == "rung" else "left", no_wrap=name in ("rebuilt", "identified"))
    for level in record.levels:
        who = Text(level.summary)
        if not level.examined:
            who.append(f" (not examined: {level.reason})" if level.reason else " (not examined)")
            table.add_row(f"{level.level}", who, "", "", "", style="dim")
            continue
        counts = [f"{count} of {record.num_examples}" for count in (level.recovered, level.identified)]
        style = "red" if level.recovered else "cyan"
        table.add_row(f"{level.level}", who, Text(counts[0], style=style), counts[1], Text(level.strongest or "–"))
    return table


def _attacks(record: AuditRecord) -> Table:
    """Narrow enough for 80 columns; the page has the other scores."""
    headline = record.metrics[0]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Attacks", title_justify="left", title_style="bold")
    table.add_column("attack", min_width=15)
    score = f"{headline.label} worst / median"
    for name, width in (("rung", 4), (score, 13), ("over guess", 6), ("rebuilt", 7), ("ident.", 6), ("time", 5)):
        table.add_column(name, justify="right", min_width=width)
    for row in attack_rows(record):
        if row.attack is not None and row.attack.status == "ran":
            table.add_row(*_cells(record, row, row.attack))
    table.add_section()
    for row in baseline_rows(record):
        table.add_row(Text(row.label), "", _pair(record, row), style="dim")
    return table


def _cells(record: AuditRecord, row: Row, attack: AttackRecord) -> list[str | Text]:
    lead = gain(record, row)
    return [
        Text(row.label),
        str(attack.level),
        _pair(record, row),
        "–" if lead is None else signed(lead, record.metrics[0].unit),
        f"{attack.recovered} of {record.num_examples}",
        f"{attack.identified} of {record.num_examples}" if attack.ranks else "–",
        duration(attack.seconds),
    ]
