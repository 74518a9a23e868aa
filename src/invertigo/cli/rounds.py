"""`invertigo audit FOLDER`: rounds that a Flower server recorded, audited offline."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invertigo.auditing import Audit


def audit_rounds(
    folder: Path,
    *,
    round: int | None,
    node: int | None,
    task: str | None,
    overrides: Sequence[str],
    truth: Path | None,
    said: Sequence[str],
    budget: str | None,
    seed: int | None,
    out: Path,
    silent: bool,
) -> list[Audit]:
    """One audit for each recorded update. `task` is a scenario, which says what the clients train.

    How they train is what was recorded, else the scenario's `local` where it has one.

    Raises: ConfigurationError without a task; InvalidValueError when nothing there can be audited.
    """
    from invertigo import report
    from invertigo.auditing.scenario import load_scenario
    from invertigo.auditing.staging import stage
    from invertigo.cli.progress import watching
    from invertigo.flower.exchange import read_tensors
    from invertigo.flower.offline import audit_exchanges, exchanges
    from invertigo.types import Batch, ConfigurationError

    found = exchanges(folder, round=round, node=node)
    if task is None:
        raise ConfigurationError(
            f"{folder} holds tensors of {len(found)} updates, but not what they are the parameters of. Name a scenario "
            "with the clients' model and kind of data: --task app.yaml."
        )
    if truth is not None and len(found) != 1:
        raise ConfigurationError(
            f"--truth holds the private batch of one client in one round, but {len(found)} updates are meant. Name "
            "one with --round and --node."
        )
    known = None if truth is None else Batch(read_tensors(truth)[0])
    scenario = load_scenario(task, overrides)
    case = stage(scenario)
    recorded = all(one.recipe for one in found)
    local = case.local if not recorded and "local" in scenario.model_fields_set else None
    report.begin(out)
    with watching(quiet=silent) as progress:
        audits = audit_exchanges(
            folder, case.task, local, round=round, node=node, truth=None if known is None else lambda *_: known,
            said=said, budget=budget or scenario.budget, seed=scenario.seed if seed is None else seed,
            public=case.public, decoys=scenario.decoys, progress=progress,
            command=_command(folder, round, node, task, overrides, truth, said, budget, seed),
        )  # fmt: skip
    return list(audits.values())


def _command(
    folder: Path,
    round: int | None,
    node: int | None,
    task: str,
    overrides: Sequence[str],
    truth: Path | None,
    said: Sequence[str],
    budget: str | None,
    seed: int | None,
) -> str:
    """What repeats this audit, ready to paste into a shell."""
    given = {"--round": round, "--node": node, "--task": task, "--truth": truth, "--budget": budget, "--seed": seed}
    words = ["invertigo", "audit", str(folder)]
    words += [word for key, value in given.items() if value is not None for word in (key, str(value))]
    words += [word for one in overrides for word in ("--set", one)] + [word for one in said for word in ("--said", one)]
    return shlex.join(words)
