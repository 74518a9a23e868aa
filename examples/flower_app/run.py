"""Run the app for real: a SuperLink and two SuperNodes on 127.0.0.1, three rounds, one of them malicious.

    python examples/flower_app/run.py

Starts everything, waits for the end, stops everything, and ends with 0 when every client refused the malicious round
and no other. Logs and verdicts are kept in a temporary folder when something goes wrong.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

APP = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}


class Stack:
    """Processes that were started together and are stopped together, each with its children."""

    def __init__(self, home: Path) -> None:
        self.home, self.started = home, {}
        path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
        self.environment = os.environ | QUIET | {"FLWR_HOME": str(home), "PATH": path}
        self.environment.setdefault("OMP_NUM_THREADS", "1")

    def start(self, name: str, *command: str) -> subprocess.Popen:
        """Start a program of this environment, with a log file of its name."""
        with open(self.home / f"{name}.log", "w") as log:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]], stdout=log, stderr=subprocess.STDOUT, env=self.environment,
                start_new_session=True, cwd=self.home,
            )  # fmt: skip
        self.started[name] = process
        return process

    def listening(self, name: str, port: int, seconds: float) -> None:
        """Wait until the process takes connections."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.started[name].poll() is not None:
                raise SystemExit(f"{name} ended with {self.started[name].returncode}; see {self.home / name}.log")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.5)
        raise SystemExit(f"{name} did not take connections within {seconds:g} seconds; see {self.home / name}.log")

    def stop(self) -> None:
        """Ask every process to end, and end those that do not."""
        for signal_ in (signal.SIGTERM, signal.SIGKILL):
            for process in reversed(self.started.values()):
                try:
                    os.killpg(process.pid, signal_)  # the session's own group: its children, and nobody else's
                except ProcessLookupError:
                    continue
            end = time.monotonic() + 10
            for process in self.started.values():
                try:
                    process.wait(max(0.1, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    continue


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def federate(home: Path, nodes: int, seconds: float) -> int:
    """Run the app; what `flwr run` returned."""
    port, *node_ports = free_ports(nodes + 1)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "loop"\n\n[superlink.loop]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    stack = Stack(home)
    try:
        stack.start(
            "superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port),
            "--disable-runtime-dependency-installation",
        )  # fmt: skip
        stack.listening("superlink", port, 90)
        for number, own in enumerate(node_ports):
            config = f'partition-id={number} num-partitions={nodes} verdicts="{home / f"verdicts-{number}.jsonl"}"'
            stack.start(
                f"supernode-{number}", "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}",
                "--host", "127.0.0.1", "--port", str(own), "--node-config", config,
            )  # fmt: skip
        run = stack.start("run", "flwr", "run", str(APP), "loop", "--stream")
        try:
            return run.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"The run did not end within {seconds:g} seconds.")
            return 124
    finally:
        stack.stop()


def refused_as_it_should_be(home: Path, nodes: int) -> bool:
    """Print what each client decided, and compare it with what the server did."""
    settings = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    right = True
    for number in range(nodes):
        path = home / f"verdicts-{number}.jsonl"
        verdicts = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        decided = {v["round"]: v["decision"] for v in verdicts}
        for verdict in verdicts:
            reason = f": {verdict['findings'][0]['message']}" if verdict["findings"] else ""
            print(f"client {number}, round {verdict['round']}: {verdict['decision']}{reason}")
        expected = range(1, settings["rounds"] + 1)
        right &= set(decided) == set(expected)
        right &= all((decided.get(r) == "block") == (r == settings["malicious-round"]) for r in expected)
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=420, help="longest time for the run itself")
    given = parser.parse_args()
    if not (BIN / "flower-superlink").exists():
        raise SystemExit("Flower is not installed in this environment: pip install 'invertigo[flower,vision]'.")
    home = Path(tempfile.mkdtemp(prefix="guarded-"))
    code = federate(home, given.nodes, given.seconds)
    told = (home / "run.log").read_text() if (home / "run.log").exists() else ""
    print("\n".join(line for line in told.splitlines() if "aggregate_train" in line or "digits" in line))
    right = refused_as_it_should_be(home, given.nodes)
    if code or not right:
        print(f"Something went wrong (flwr run ended with {code}); everything is kept in {home}.")
        return 1
    shutil.rmtree(home, ignore_errors=True)
    print("Every client refused the malicious round, and no other.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
