"""Audit a training script without touching it: what would one step of `stock_training.py` give away?

    python examples/audit_training_script.py

`watch` hangs hooks on the model and the optimizer for the length of the block; the step computes the same bits as
without it. The update need not really be sent: this is what a server would have received.
"""

import stock_training as script
import torch
from torch import nn
from torch.utils.data import DataLoader

import invertigo


def main(budget: str = "60s") -> None:
    torch.manual_seed(0)
    model = script.build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_fn = nn.CrossEntropyLoss()
    loader = DataLoader(script.build_data(), batch_size=2, shuffle=True)
    one_batch = [next(iter(loader))]

    with invertigo.watch(model, optimizer, loss_fn) as tape:
        script.train_epoch(model, one_batch, optimizer, loss_fn)

    audit = invertigo.audit(tape, budget=budget, title="One step of stock_training.py")
    print(audit)
    print(audit.save("training-step.html"))  # the digits stay out of it, unless include_originals=True


if __name__ == "__main__":
    main()
