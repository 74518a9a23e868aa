"""The panel on a client's defense: both adversaries side by side, what it did and what it cost."""

from rich.console import Console
from specimens import specimen

from invertigo.auditing.record import DefenseRecord, UtilityRecord
from invertigo.report.defense import defense_panel
from invertigo.report.html import render_html
from invertigo.report.terminal import render

DEFENSE = DefenseRecord(
    name="top_k", paper="p", settings={"k": 0.1}, releases=4, undefended=1, cosine=0.94, changed=0.9, visible=0.1,
    norm_ratio=0.9, bytes=2260.0, raw_bytes=32100.0, facts={"epsilon": 3.5}, knows="Which entries were removed.",
)  # fmt: skip
UTILITY = UtilityRecord(
    rounds=10, clients=4, dirichlet=0.3, batch_size=8, learning_rate=0.1, examples=100, test=50, accuracy=0.75,
    curve=[(10, 0.75)], undefended_accuracy=0.9, seconds=2.0, undefended_seconds=1.0, bytes=2260.0, raw_bytes=32100.0,
)  # fmt: skip


def defended():
    made = specimen()
    attacks = list(made.record.attacks)
    ran = next(a for a in attacks if a.status == "ran" and a.scores)
    better = {name: [2 * s for s in values] for name, values in ran.scores.items()}
    informed = ran.model_copy(update={"informed": True, "scores": better})
    record = made.record.model_copy(update={"attacks": [*attacks, informed], "defense": DEFENSE, "utility": UTILITY})
    return made.__class__(record, made.reconstructions, made.originals, made.domain), ran, informed


def test_both_adversaries_stand_side_by_side():
    made, ran, _ = defended()
    panel = defense_panel(made.record)
    duel = next(d for d in panel.duels if (d.attack, d.level) == (ran.attack, ran.level))
    assert float(duel.informed.replace("−", "-")) > float(duel.naive.replace("−", "-"))
    assert dict(panel.did)["releases that are the raw update"] == "1 of 4"
    assert dict(panel.did)["privacy loss ε"] == "3.5"
    assert dict(panel.did)["bytes sent"] == "2.26 kB instead of 32.1 kB"
    assert dict(panel.cost)["accuracy"] == "75.0%, 90.0% without the defense"
    assert "skewed, Dirichlet 0.3" in dict(panel.cost)["trained"]


def test_the_page_and_the_terminal_show_it():
    made, _, informed = defended()
    page = render_html(made)
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    render(made.record, console)
    for text in (page, console.export_text()):
        assert "top_k" in text
        assert f"{informed.attack}, informed" in text
        assert "75.0%" in text
    assert "Which entries were removed." in page


def test_a_client_without_a_defense_has_no_panel():
    assert defense_panel(specimen().record) is None
