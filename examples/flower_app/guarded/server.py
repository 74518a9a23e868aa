"""The server."""

import logging

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from guarded.malicious import MaliciousOnce
from guarded.task import build, public, recipe
from invertigo.flower import Audited, read_arrays, write_arrays

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    agreed = recipe(config)
    strategy = MaliciousOnce(int(config["malicious-round"]), agreed.training, int(config["batch-size"]))
    stored = Audited(strategy, str(config["store"]), recipe=agreed) if config["store"] else strategy
    result = stored.start(grid, write_arrays(build().state_dict()), num_rounds=int(config["rounds"]))
    model, digits = build(), public()
    model.load_state_dict(read_arrays(result.arrays))
    with torch.no_grad():
        right = (model(digits["images"]).argmax(1) == digits["labels"]).float().mean().item()
    logging.getLogger("flwr").info("accuracy on public digits: %.2f", right)
