"""The layers before a model's hidden linear layer, trained as the encoder of public images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.attacks.active.passage import check_reads_examples
from invertigo.domains import Images
from invertigo.federation.functional import simulating
from invertigo.models.building import Shape, weights_drawn_by
from invertigo.models.descent import shuffled
from invertigo.types import RequirementError, Task, duplicate

LEARNING_RATE = 5e-3


@dataclass(frozen=True)
class Middle:
    """Where the model's code stands: the input of its first hidden linear layer, which another one reads."""

    layer: str
    weight: str
    bias: str
    consumer: str
    before: tuple[str, ...]
    """Parameters and buffers of the modules that run before the layer."""


class Decoder(nn.Module):
    """Codes to pixels, not clamped: a linear map, and what a network of one hidden layer adds to it.

    In a few hundred steps it draws what convolutions behind an upsampling take thousands for.
    """

    def __init__(self, shape: Shape, code: int, width: int) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(code, prod(shape))
        self.hidden = nn.Linear(code, width)
        self.last = nn.Linear(width, prod(shape))

    def forward(self, codes: Tensor) -> Tensor:
        """(image, channel, height, width) of codes (image, feature)."""
        return (self.linear(codes) + self.last(F.silu(self.hidden(codes)))).unflatten(1, self.shape)


def find_middle(task: Task, mode: str) -> Middle:
    """The first hidden linear layer of a model that has others before it.

    Raises: RequirementError when there is none, it reads tokens one by one, or nothing before it could encode.
    """
    order: list[tuple[str, nn.Module, Tensor]] = []
    handles = [
        m.register_forward_hook(lambda m, inputs, _o, n=n: order.append((n, m, inputs[0])))
        for n, m in task.model.named_modules()
        if any(True for _ in m.parameters(recurse=False))
    ]
    try:
        with simulating(task.model, mode), torch.no_grad():
            task.model(torch.zeros(2, *task.domain.example_shapes()[task.domain.inputs]).to(_like(task.model)))
    finally:
        for handle in handles:
            handle.remove()
    linear = [(n, m, read) for n, m, read in order if isinstance(m, nn.Linear)]
    if len(linear) < 2 or linear[0][1].bias is None:
        raise RequirementError(
            "This model has no hidden linear layer with a bias that another linear layer reads, so codes cannot be "
            "sorted into bins."
        )
    name = linear[0][0]
    earlier = [n for n, _, _ in order[: [n for n, _, _ in order].index(name)]]
    if not earlier:
        raise RequirementError(f"Nothing stands before '{name}' that could encode images; `imprint` reads its pixels.")
    check_reads_examples(name, linear[0][2])
    own = [*dict(task.model.named_parameters()), *dict(task.model.named_buffers())]
    before = tuple(n for n in own if n.rpartition(".")[0] in earlier)
    return Middle(name, f"{name}.weight", f"{name}.bias", f"{linear[1][0]}.weight", before)


def codes(model: nn.Module, middle: Middle, images: Tensor) -> Tensor:
    """(image, feature) what the hidden layer reads."""
    with _reading(model, middle.layer) as seen:
        model(images)
    return seen[0].flatten(1)


@contextmanager
def _reading(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def fit_encoder(
    task: Task,
    middle: Middle,
    images: Tensor,
    mode: str,
    *,
    width: int,
    steps: int,
    batch_size: int,
    generator: torch.Generator,
) -> tuple[nn.Module, Decoder]:
    r"""A copy of the model whose code $E(x)$ lets a decoder draw $D(E(x)) \approx x$, and that decoder.

    $\min \lVert D(E(x)) - x \rVert^2$ by Adam over `steps` batches, annealed to zero; pixels in [0, 1]. Batches of the
    client's size matter where BatchNorm normalises by them.
    """
    domain = task.domain
    if not isinstance(domain, Images):
        raise RequirementError(f"Pixels are drawn for images, not for {domain.name}.")
    wanted, model = domain.to_unit(images), duplicate(task.model)
    parameters = {n: p.requires_grad_(n in middle.before) for n, p in model.named_parameters()}
    with simulating(model, mode):
        with torch.no_grad():
            features = codes(model, middle, images[:2]).shape[1]
        with weights_drawn_by(generator):
            decoder = Decoder(domain.shape, features, width).to(images)
        learned = [*(parameters[n] for n in middle.before if n in parameters), *decoder.parameters()]
        optimiser = torch.optim.Adam(learned, LEARNING_RATE)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        with torch.enable_grad():
            for part in _batches(len(images), steps, batch_size, generator):
                loss = F.mse_loss(decoder(codes(model, middle, images[part])), wanted[part])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                decay.step()
    return model.requires_grad_(False), decoder.requires_grad_(False)


def rebuilt_decoder(shape: tuple[int, int, int], tensors: Mapping[str, Tensor]) -> Decoder:
    """The decoder with these tensors; its sizes are theirs."""
    with weights_drawn_by(torch.Generator().manual_seed(0)):
        decoder = Decoder(shape, tensors["linear.weight"].shape[1], len(tensors["hidden.bias"]))
    decoder = decoder.to(tensors["linear.weight"])
    decoder.load_state_dict(dict(tensors))
    return decoder.requires_grad_(False)


def _batches(count: int, steps: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    done = 0
    while done < steps:
        for part in shuffled(count, batch_size, generator)[: steps - done]:
            yield part
            done += 1


def _like(model: nn.Module) -> Tensor:
    return next(model.parameters())
