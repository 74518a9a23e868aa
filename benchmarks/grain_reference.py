"""`grain` beside the code its authors released, on the same gradients of the same molecules, in one run.

    git clone https://github.com/insait-institute/GRAIN grain-checkout      (Apache-2.0; measured at commit cf0efc2)
    python benchmarks/grain_reference.py --reference grain-checkout [--graphs 30] [--seconds 100] [--seed 101]

Random Tox21 molecules, or bundled drugs where the set is not found (`INVERTIGO_DATA`); GCN of two layers of width 300
with the released code's initial weights, features standardised by its constants, label unknown to both. Both sides are
given the same float32 gradient. One thread, CPU seconds, each side stopped after `--seconds`; neither has to read
the data, build the model or score the answer within its time. A row's answer is `exact` when the first graph returned
is the true one, `wrong` when another one is returned, `none` when nothing is, `stopped` at the limit.

The released code asks for a GPU and for libraries that it needs for logging only; here it runs on the processor, and
they are replaced by stand-ins that do nothing. Its clock is set to CPU time, so that its own limits are not spent by
other processes. Two slips, without which it fails on every molecule that is one building block, are mended: the result
is bound to the name that is read afterwards, and the centre is joined to its own neighbours only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import signal
import statistics
import sys
import time
import types
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from grain import MOLECULES, described, drawn, verdict

import invertigo
from invertigo import models
from invertigo.domains import Graphs
from invertigo.domains.sameness import same_graph
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, Observation, ThreatLevel

STAND_INS = ("neptune", "neptune.types", "pandas", "matplotlib", "matplotlib.pyplot", "datasets", "tabulate")
SLIPS = (
    (r"\bpred_A(?= = \()", "pred"),  # the result gets the name that is read afterwards
    (r"(?<=\bA\[0,):(?=\] = 1)", ":max_degree+1"),  # the centre's edges end at its own neighbours, in the row
    (r"(?<=\bA\[):(?=,0\] = 1)", ":max_degree+1"),  # and in the column
)
WIDTH, CLASSES = 300, 2
MODEL = {
    "model": "gcn", "hidden_size": WIDTH, "node_embedding_dim": WIDTH, "graph_embedding_dim": 64,
    "readout_hidden_dim": WIDTH, "dropout": 0.0, "n_layers_backbone": 2, "n_layers_readout": 2,
    "graph_classification": True, "act": "relu",
}  # fmt: skip
ARGUMENTS = SimpleNamespace(
    dataset="zpn/tox21_srp53", directed=None, max_degree=6, use_degree=True, num_extra_features=0, max_extra_value=3000,
    debug=False, naive_build=False, do_ohe=True, federated_optimizer="FedSGD", epochs=1, lr=1, device="cpu",
)  # fmt: skip
TOLERANCES = (1e-7, 1e-7, 1e-8)
"""Of the ranks, as in the released `config.yaml`."""


class Stopped(BaseException):
    """The CPU seconds of one side are spent."""


@dataclass(frozen=True)
class Row:
    """How both sides fared on one molecule."""

    nodes: int
    ours: str
    our_seconds: float
    theirs: str
    their_seconds: float

    @property
    def ratio(self) -> float:
        """How many times longer the released code took."""
        return self.their_seconds / self.our_seconds


@contextlib.contextmanager
def on_the_processor() -> Iterator[None]:
    """Calls that move tensors to a GPU do nothing, and the released code believes that there is one."""

    def stays(self: Any, *_: Any, **__: Any) -> Any:
        return self

    made = {name: getattr(torch, name) for name in ("eye", "zeros", "ones", "full", "arange", "tensor")}

    def placed(name: str) -> Any:
        return lambda *args, **kwargs: made[name](*args, **{k: v for k, v in kwargs.items() if k != "device"})

    with contextlib.ExitStack() as stack:
        for target in (torch.Tensor, torch.nn.Module):
            stack.enter_context(mock.patch.object(target, "cuda", stays))
        stack.enter_context(mock.patch("torch.cuda.is_available", return_value=True))
        stack.enter_context(mock.patch("torch.cuda.empty_cache", return_value=None))
        for name in made:
            stack.enter_context(mock.patch.object(torch, name, placed(name)))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        yield


def released(checkout: Path) -> types.ModuleType:
    """The released attack, imported from a checkout, with its slips mended and its clock set to CPU time."""
    source = checkout / "src" / "attack.py"
    text = source.read_text()
    for slip, mended in SLIPS:
        text, count = re.subn(slip, mended, text)
        if count != 1:
            raise SystemExit(f"{source} is not of the commit named above: {slip} is in it {count} times, not once.")
    sys.path.insert(0, str(source.parent))
    for name in STAND_INS:
        sys.modules.setdefault(name, mock.MagicMock(name=name))
    attack = types.ModuleType("attack")
    exec(compile(text, str(source), "exec"), attack.__dict__)
    for name in ("bb_filtering", "bb_joining", "build_molecule"):
        vars(sys.modules[f"graph_reconstruction.{name}"])["time"] = SimpleNamespace(time=time.process_time)
    return attack


@contextlib.contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Raises `Stopped` in the block after so many CPU seconds of this process."""

    def stop(*_: Any) -> None:
        raise Stopped

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)  # again and again: the released code catches everything
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def observed(network: torch.nn.Module, domain: Graphs, batch: Batch) -> Observation:
    """Our view of one molecule's gradient, through our GCN with the released network's weights."""
    model = models.build("gcn", input_shape=(domain.nodes, domain.width), num_classes=CLASSES, hidden=WIDTH)
    with torch.no_grad():
        for own, other in zip(model.parameters(), turned(network, network.parameters()), strict=True):
            own.copy_(other)
    task = models.graph_task(model, domain, CLASSES, loss="bce")
    found = observe(task, batch, LocalTraining(mode="eval"), level=ThreatLevel.INFERENCE_MODE)
    return replace(found, knowledge=replace(found.knowledge, labels=None))


def turned(network: torch.nn.Module, tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors in the order of the released network's parameters; its convolutions keep (in, out), ours (out, in)."""
    names = [name for name, _ in network.named_parameters()]
    return [t.detach().T if "W_list" in name else t.detach() for name, t in zip(names, tensors, strict=True)]


def ours(observation: Observation, domain: Graphs, batch: Batch, seconds: float) -> tuple[str, float]:
    """What our attack answers and its CPU seconds."""
    started = time.process_time()
    found = invertigo.reconstruct(observation, "grain", seconds=seconds)
    spent = time.process_time() - started
    told = verdict(domain, batch, found.certificate)
    return {"partial": "none", "in class": "wrong", "other": "wrong"}.get(told, told), spent


def theirs(
    attack: types.ModuleType,
    network: torch.nn.Module,
    domain: Graphs,
    batch: Batch,
    gradients: list[torch.Tensor],
    seconds: float,
) -> tuple[str, float]:
    """What the released attack answers and its CPU seconds."""
    criterion = torch.nn.BCEWithLogitsLoss(reduction="none")
    scorer = attack.SimilarityScorer(ARGUMENTS, MODEL, network, network, criterion, None, None, None, gradients)
    vars(attack).update(
        max_degree=6, feat_dim=domain.width, is_chemical=True, gradients=gradients, model=network, criterion=criterion,
        gt_ams=None, gt_fms=None, gt_ls=None,
    )  # fmt: skip
    started = time.process_time()
    try:
        with stopped_after(seconds), on_the_processor():
            adjacency, features = attack.run_attack(
                ARGUMENTS, MODEL, None, network, scorer, gradients, criterion, *TOLERANCES
            )
    except Stopped:
        return "stopped", time.process_time() - started
    except Exception as error:
        return f"none ({type(error).__name__})", time.process_time() - started
    spent = time.process_time() - started
    if features is None:
        return "none", spent
    linked = adjacency.detach().float().clone().fill_diagonal_(0)
    here = batch["present"][0]
    true = described(domain, batch["features"][0][here], batch["adjacency"][0][here][:, here])
    return "exact" if same_graph(*described(domain, features.detach().float(), linked), *true) else "wrong", spent


def table(rows: list[Row]) -> Iterator[str]:
    """Exact rates, medians and ratios by size."""
    yield "| atoms | molecules | exact, ours | released | both | median s, ours | released | ratio where it ends |"
    yield "|---|---|---|---|---|---|---|---|"
    for low, high in MOLECULES:
        some = [row for row in rows if low <= row.nodes <= high]
        if not some:
            continue
        own, other = (sum(getattr(row, side) == "exact" for row in some) for side in ("ours", "theirs"))
        both = sum(row.ours == row.theirs == "exact" for row in some)
        ended = sorted(row.ratio for row in some if row.theirs != "stopped")
        ratio = f"{statistics.median(ended):.0f} ({ended[0]:.0f} to {ended[-1]:.0f}) of {len(ended)}" if ended else "-"
        mine = f"{statistics.median(row.our_seconds for row in some):.2f}"
        theirs = f"{statistics.median(row.their_seconds for row in some):.1f}"
        cells = [f"{low}-{max(r.nodes for r in some)}", len(some), own, other, both, mine, theirs, ratio]
        yield f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Run both sides on every molecule and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--graphs", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=101)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with on_the_processor():
        attack = released(chosen.reference)
        torch.random.default_generator.manual_seed(42)
        network = attack.get_model(MODEL, feat_dim=140, num_cats=CLASSES)
        means, stds = attack.normalize_features.__globals__["get_normalization_factors"](ARGUMENTS)
    graphs, domain = drawn("tox21", chosen.graphs, chosen.seed, 0)
    domain = replace(domain, mean=tuple(means.tolist()), std=tuple(stds.tolist()))
    rows = []
    print("| atoms | ours | CPU s | released | CPU s | ratio |\n|---|---|---|---|---|---|")
    for number in range(len(graphs)):
        batch = graphs.batch([number], domain)
        observation = observed(network, domain, batch)
        gradients = turned(network, observation.update.tensors.values())
        ours(observation, domain, batch, chosen.seconds)  # a first call loads what later calls find loaded
        mine = ours(observation, domain, batch, chosen.seconds)
        row = Row(len(graphs.graphs[number]), *mine, *theirs(attack, network, domain, batch, gradients, chosen.seconds))
        rows.append(row)
        cells = (row.nodes, row.ours, f"{row.our_seconds:.3f}", row.theirs, f"{row.their_seconds:.1f}")
        print(f"| {' | '.join(map(str, cells))} | {row.ratio:.0f} |", flush=True)
    print(f"\n{Counter(row.ours for row in rows)} ours, {Counter(row.theirs for row in rows)} released\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
