from __future__ import annotations

import io

from rich.console import Console

from invertigo.auditing import Audit
from invertigo.report import render, to_text


def test_twelve_lines_say_it_all(leaking: Audit) -> None:
    many = leaking.record.model_copy(update={"attacks": [a for a in leaking.record.attacks for _ in range(5)]})
    for record in (leaking.record, many):
        text = to_text(record)
        assert len(text.splitlines()) <= 12
        for part in (record.verdict.headline, record.verdict.remedy, "gauss_newton", "LEAKS", "few_examples"):
            assert part in text


def test_the_strongest_attack_comes_first(leaking: Audit) -> None:
    text = to_text(leaking.record)
    rows = text[text.index("  attack") :]
    assert rows.index("gauss_newton") < rows.index("dlg") < rows.index("1 more")


def test_the_text_opens_with_the_answer(leaking: Audit) -> None:
    lines = to_text(leaking.record).splitlines()
    assert lines[0] == f"LEAKS  {leaking.record.verdict.headline}"
    assert [line.split("  ")[1] for line in lines[1:6]] == ["audited", "who", "how sure", "not examined", "what to do"]
    assert leaking.record.title in lines[1]


def test_the_tables_name_attacks_guesses_and_flags(leaking: Audit) -> None:
    stream = io.StringIO()
    render(leaking.record, Console(file=stream, width=200))
    text = stream.getvalue()
    for part in ("gauss_newton", "mid-grey", "refused: The first layer", "not examined", "caution", "6 of 8"):
        assert part in text


def test_markup_in_a_name_is_only_text(leaking: Audit) -> None:
    record = leaking.record.model_copy(update={"title": "[red]model[/nothing]"})
    attacks = [a.model_copy(update={"attack": "[bold]x[/nope]"}) for a in record.attacks]
    stream = io.StringIO()
    render(record.model_copy(update={"attacks": attacks}), Console(file=stream, width=160))
    assert "[red]model[/nothing]" in stream.getvalue()
    assert "[bold]x[/nope]" in stream.getvalue()


def test_one_reason_is_given_once(leaking: Audit) -> None:
    refused = next(a for a in leaking.record.attacks if a.status == "refused")
    again = [refused.model_copy(update={"level": level, "informed": i}) for level in (2, 3) for i in (False, True)]
    stream = io.StringIO()
    render(
        leaking.record.model_copy(update={"attacks": [*leaking.record.attacks, *again]}),
        Console(file=stream, width=300),
    )
    assert stream.getvalue().count(f"{refused.attack} (rung") == 1
    assert f"{refused.attack} (rungs {refused.level}, 2, 3) refused" in stream.getvalue()
