"""Runs breaching's `invertinggradients` for `inverting_gradients.py`, under an interpreter that has breaching.

One JSON request per line comes in on standard input, one JSON answer per line goes out on standard output; tensors
travel as safetensors files. The process stays alive between requests, so that both sides can take turns within one
run without paying for imports. Request fields:

    case         safetensors file: `weight.<n>` (state dict in order), `images` (batch, 3, height, width) in model
                 space, `labels` (batch,), `mean` and `std` (3,), `outputs` of our model for `images`
    model        a model name of breaching: lenet_zhu, convnet, resnet18
    iterations   of the attack; every other option stays at breaching's default
    trials       restarts, one after the other as breaching runs them
    seed         of the first candidates, which breaching draws from the global generator
    result       safetensors file to write `images` (batch, 3, height, width) to, in model space

The answer holds `cpu_seconds` of the whole `reconstruct` call, `first` and `last` objective, and `disagreement`: the
largest difference between breaching's outputs and ours, relative to the largest output.
"""

from __future__ import annotations

import json
import sys
import time
import types
from contextlib import redirect_stdout
from functools import cache

import torch
from safetensors.torch import load_file, save_file

# torchvision's operators may be missing over a CPU build of torch, and breaching imports torchvision without calling
# them: their schemas are enough, and they must exist before the import.
_schemas = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _schemas.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import breaching  # noqa: E402
from breaching.cases.models.model_preparation import _construct_vision_model  # noqa: E402


def metadata(case: dict[str, torch.Tensor]) -> types.SimpleNamespace:
    """What breaching wants to know about the data."""
    shape, classes = tuple(case["images"].shape[1:]), case["outputs"].shape[1]
    return types.SimpleNamespace(
        name="CIFAR10", shape=shape, classes=classes, modality="vision",
        mean=case["mean"].tolist(), std=case["std"].tolist(),
    )  # fmt: skip


def load_model(name: str, case: dict[str, torch.Tensor]) -> torch.nn.Module:
    """breaching's model in inference mode, with our weights put in by order; every shape must agree."""
    model = _construct_vision_model(name, metadata(case), pretrained=False).eval()
    own = model.state_dict()
    ours = [case[f"weight.{n}"] for n in range(sum(key.startswith("weight.") for key in case))]
    assert [t.shape for t in ours] == [t.shape for t in own.values()], f"our {name} is not built as breaching's"
    model.load_state_dict(dict(zip(own, ours)))
    return model


@cache
def attack_configuration():
    """breaching's defaults. Cached, because hydra may be initialised once only."""
    return breaching.get_attack_config("invertinggradients")


def answer(request: dict) -> dict:
    """Attack one case."""
    case = load_file(request["case"])
    images, labels = case["images"], case["labels"]
    model = load_model(request["model"], case)
    loss = torch.nn.CrossEntropyLoss()
    outputs = model(images)
    gradients = torch.autograd.grad(loss(outputs, labels), list(model.parameters()))

    configuration = attack_configuration().copy()
    configuration.optim.max_iterations = request["iterations"]
    configuration.restarts.num_trials = request["trials"]
    attacker = breaching.attacks.prepare_attack(model, loss, configuration)
    known = {"num_data_points": len(images), "labels": labels, "local_hyperparams": None, "data_key": "inputs"}
    shared = [{"gradients": list(gradients), "buffers": None, "metadata": known}]
    server = [
        {
            "parameters": [p.detach() for p in model.parameters()],
            "buffers": list(model.buffers()),
            "metadata": metadata(case),
        }
    ]
    torch.manual_seed(request["seed"])
    started = time.process_time()
    rebuilt, statistics = attacker.reconstruct(server, shared, {})
    spent = time.process_time() - started
    save_file({"images": rebuilt["data"].contiguous()}, request["result"])
    values = statistics["Trial_0_Val"]
    return {
        "cpu_seconds": spent,
        "first": values[0],
        "last": values[-1],
        "disagreement": ((outputs - case["outputs"]).abs().max() / case["outputs"].abs().max()).item(),
    }


def main() -> None:
    """Answer requests until standard input ends; breaching's own chatter goes to standard error."""
    torch.set_num_threads(1)
    channel = sys.stdout
    for line in sys.stdin:
        with redirect_stdout(sys.stderr):
            reply = answer(json.loads(line))
        print(json.dumps(reply), file=channel, flush=True)


if __name__ == "__main__":
    main()
