"""The client: an ordinary training function behind a guard and a defense."""

import json

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from guarded.task import build, part, recipe, task
from invertigo import Batch
from invertigo.flower import DefenseMod, ServerGuard, checked_mods
from invertigo.guards import Inspector
from invertigo.types import Declared, GuardVerdict, Local


def batch_of(message: Message, context: Context) -> Batch:
    """What this client trains on in this round."""
    own = part(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    size = int(context.run_config["batch-size"])
    start = (int(message.content["config"]["server-round"]) - 1) * size
    return own.select((torch.arange(size) + start) % len(own))


def client(message: Message, context: Context) -> Local:
    """What the guard may look at: it stays on this machine."""
    training = recipe(context.run_config).training
    return Local(task=task(build()), batch=batch_of(message, context), training=training)


def write_down(verdict: GuardVerdict, context: Context) -> None:
    """Keep the verdicts in a file of this node's own."""
    if "verdicts" in context.node_config:
        with open(str(context.node_config["verdicts"]), "a", encoding="utf-8") as file:
            file.write(json.dumps(verdict.as_dict()) + "\n")


guard = ServerGuard(client, Inspector(declared=Declared(initial=build)), report=write_down)
app = ClientApp(mods=checked_mods([guard, DefenseMod(client)]))  # the outermost first: it sees the defended update


@app.train()
def train(message: Message, context: Context) -> Message:
    model, batch = build(), batch_of(message, context)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = recipe(context.run_config).optimizer(model)
    loss = torch.nn.functional.cross_entropy(model(batch["images"]), batch["labels"])
    loss.backward()
    optimizer.step()
    metrics = MetricRecord({"train_loss": loss.item(), "num-examples": len(batch)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    model, batch = build(), batch_of(message, context)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    with torch.no_grad():
        right = (model(batch["images"]).argmax(1) == batch["labels"]).float().mean().item()
    metrics = MetricRecord({"accuracy": right, "num-examples": len(batch)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
