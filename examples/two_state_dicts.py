"""Audit someone's federated run from two files: the model that was sent to a client and the one that came back.

    python examples/two_state_dicts.py

What must be known beside the files is how the client trained: its learning rate, how many local steps it took, and
on how many examples. Files are safetensors, because unpickling a stranger's checkpoint runs the stranger's code.
"""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from stock_training import build_model
from torch.nn.functional import cross_entropy

import invertigo
from invertigo import data

LEARNING_RATE, STEPS = 0.1, 2


def someone_elses_run(folder: Path, private: invertigo.Batch) -> None:
    """A client of a federation: plain PyTorch, two local steps of one example each."""
    torch.manual_seed(0)
    model = build_model()
    save_file(model.state_dict(), folder / "sent.safetensors")
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for i in range(STEPS):
        optimizer.zero_grad()
        cross_entropy(model(private["images"][i : i + 1]), private["labels"][i : i + 1]).backward()
        optimizer.step()
    save_file(model.state_dict(), folder / "returned.safetensors")


def main(budget: str = "60s") -> None:
    digits = data.load("digits")
    private = digits.batch([3, 8])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        someone_elses_run(folder, private)

        observation = invertigo.Observation.from_parameters(
            build_model(),
            cross_entropy,
            before=load_file(folder / "sent.safetensors"),
            after=load_file(folder / "returned.safetensors"),
            domain=invertigo.Images(shape=(1, 8, 8)),
            learning_rate=LEARNING_RATE,
            steps=STEPS,
            num_examples=len(private),
            num_classes=10,
        )

    # Without `truth` the attacks run all the same; with it their results are scored.
    audit = invertigo.audit(observation, truth=private, public=digits.others([3, 8]), budget=budget)
    print(audit)


if __name__ == "__main__":
    main()
