"""A budget is kept, the time left is told, and Ctrl-C keeps what the running attack has."""

from __future__ import annotations

import _thread
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch

from invertigo import audit, data
from invertigo.attacks import registry
from invertigo.auditing.forecast import Forecast
from invertigo.auditing.interruption import Stop, stoppable
from invertigo.auditing.portfolio import Entry
from invertigo.auditing.session import Stage
from invertigo.auditing.trial import Trial
from invertigo.types import Reconstruction, Tick

PAPER = registry["dlg"].paper


@dataclass(frozen=True, kw_only=True)
class Slow:
    """Each of its iterations takes `pause` seconds; its candidate is grey, and brighter after every one."""

    pause: float = 0.05
    iterations: int = 100
    name: ClassVar[str] = "slow"
    paper: ClassVar[Paper] = PAPER
    requires: ClassVar[frozenset] = frozenset()
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    def reconstruct(self, observation: Any, *, generator: torch.Generator, progress: Any = None) -> Reconstruction:
        started, stopped = time.monotonic(), "schedule"
        for done in range(1, self.iterations + 1):
            until = time.monotonic() + self.pause
            while time.monotonic() < until:
                time.sleep(0.01)
            spent = time.monotonic() - started
            tick = Tick(done, self.iterations, 1 / done, spent, spent / done * (self.iterations - done))
            if progress is not None and progress(tick):
                stopped = "budget"
                break
        shape = (observation.num_examples or 1, *observation.task.domain.shape)
        fields = {"images": torch.full(shape, 0.4), "labels": torch.zeros(shape[0], dtype=torch.long)}
        return Reconstruction(fields, "slow", 1.0, stopped, time.monotonic() - started)


def client() -> tuple[torch.nn.Module, Any, Any]:
    digits = data.load("digits", limit=4)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    return model, torch.nn.functional.cross_entropy, (digits.images[:2], digits.labels[:2])


def watched(attacks: list[Any], budget: float, **options: Any) -> tuple[Any, list[tuple[float, Stage]]]:
    shown: list[tuple[float, Stage]] = []
    found = audit(
        *client(), attacks=attacks, budget=budget, progress=lambda s: shown.append((time.monotonic(), s)), **options
    )
    return found, shown


def test_an_attack_whose_iterations_turn_out_too_long_is_not_begun_again():
    """Three rungs and one attack of four seconds an iteration: the first run shows it, the others are skipped."""
    found, _ = watched([Slow(pause=4, iterations=50)], 12, levels=[1, 2, 3])
    assert [one.status for one in found.record.attacks].count("ran") == 1
    assert found.record.seconds < 1.1 * 12 + 2
    skipped = [one for one in found.record.attacks if one.status == "skipped"]
    assert all("no time was left in the budget" in one.reason for one in skipped)
    assert found.record.verdict.status == "inconclusive"


def test_what_was_never_run_is_expected_to_cost_what_simulating_the_step_does():
    forecast = Forecast(gradient=0.5)
    inversion = Entry(registry["see_through_gradients"](restarts=4))
    assert forecast.needed(inversion) == pytest.approx(2 * 4 * 4 * 0.5)
    assert forecast.needed(Entry(registry["linear_layer"]())) == 0
    ran = Trial(Reconstruction({}, "x", 0.0, "budget", 3.0), "ran", seconds=3.0, iterations=2)
    forecast.note(inversion, ran, given=1.0)
    assert forecast.needed(inversion) == 3.0
    assert forecast.expected(inversion, share=2.0) == 2.0
    assert forecast.rest([], 9.0) == 0.0


def test_the_time_left_is_that_of_the_whole_audit():
    """Two runs of a known length, one after the other: while the first runs, the second is still to come."""
    found, shown = watched([Slow(pause=0.05, iterations=40)], 60, levels=[1, 2])
    end = shown[0][0] + found.record.seconds
    ticks = [(at, stage) for at, stage in shown if stage.total]
    half = [(at, stage) for at, stage in ticks if at > (shown[0][0] + end) / 2 and end - at > 1]
    assert {stage.number for _, stage in ticks} == {1, 2}
    for at, stage in half:
        assert abs(stage.audit_left - (end - at)) < 0.25 * (end - at) + 1, stage


def test_every_attack_is_told_before_its_first_iteration_and_so_is_the_scoring():
    _, shown = watched([Slow(pause=0.3, iterations=2)], 20, levels=[1])
    told = [(stage.attack, stage.total) for _, stage in shown]
    assert told[0] == ("slow", 0)
    assert ("scoring slow", 0) in told
    assert max(later - before for (before, _), (later, _) in pairwise(shown)) < 1


def test_ctrl_c_keeps_and_scores_the_candidate():
    threading.Timer(1.5, _thread.interrupt_main).start()
    found, _ = watched([Slow(pause=0.05, iterations=10_000), "dlg"], 60, levels=[1])
    first, second = found.record.attacks
    assert (first.status, first.attack) == ("ran", "slow")
    assert len(first.scores["psnr"]) == 2
    assert "1-slow/images" in found.reconstructions
    assert second.status == "skipped"
    assert "interrupted" in {flag.code for flag in found.record.flags}
    assert found.record.verdict.status == "inconclusive"
    assert found.record.seconds < 20
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait():
    stop = Stop()
    with stoppable(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_command_ends_with_130_and_has_written_its_report(tmp_path):
    scenario = tmp_path / "long.yaml"
    scenario.write_text(
        "data: {name: digits, count: 1, public_count: 20}\nmodel: {name: lenet}\nadversary: {levels: [1]}\n"
        "attacks: [{name: inverting_gradients, iterations: 1000000}]\nbudget: 1h\n"
    )
    command = [sys.executable, "-c", "from invertigo.cli import main; main()", "audit", str(scenario)]
    with open(tmp_path / "said", "wb") as said, open(tmp_path / "told", "wb") as told:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path / "out")], stderr=said, stdout=told, env=environment
        )
        try:
            deadline = time.monotonic() + 180
            while b"iteration" not in (tmp_path / "said").read_bytes():
                assert process.poll() is None, (tmp_path / "said").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            assert process.wait(180) == 130, (tmp_path / "said").read_text()
        finally:
            process.kill()
    held = json.loads((tmp_path / "out" / "result.json").read_text())
    assert held["attacks"][0]["status"] == "ran"
    assert held["attacks"][0]["scores"]["psnr"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_long_schedule_of_slow_iterations_is_heard_of_all_the_time_and_kept_alike():
    """A trace has a few hundred points whatever the clock says; progress comes five times a second."""
    from invertigo.attacks.matching.pace import Pace

    heard: list[int] = []
    pace = Pace(1_000_000, lambda tick: heard.append(tick.done))
    for done in range(1, 13):
        time.sleep(0.1)
        assert not pace.asks_to_stop(done, torch.tensor([1.0]))
    assert len(heard) >= 4
    assert pace.trace == []
