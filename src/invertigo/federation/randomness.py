"""Random numbers drawn inside a forward pass: switched off, seeded, recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SEED = 20_26
"""Of the one draw that stands for whatever a simulated forward draws at random."""


@dataclass(frozen=True)
class RandomState:
    """State of the global generators: the processor's, and those of the accelerators `devices` by index."""

    processor: Tensor
    devices: Mapping[int, Tensor]

    @classmethod
    def now(cls, tensors: Iterable[Tensor]) -> RandomState:
        """The present state of the generators that a forward pass over `tensors` can draw from."""
        return cls(torch.get_rng_state(), {d: torch.cuda.get_rng_state(d) for d in cuda_devices(tensors)})

    def restore(self) -> None:
        """Make this the present state; whoever calls has forked the generators."""
        torch.set_rng_state(self.processor)
        for device, state in self.devices.items():
            torch.cuda.set_rng_state(state, device)

    def __eq__(self, other: object) -> bool:
        """Bitwise."""
        if not isinstance(other, RandomState) or self.devices.keys() != other.devices.keys():
            return False
        same = (torch.equal(state, other.devices[device]) for device, state in self.devices.items())
        return torch.equal(self.processor, other.processor) and all(same)

    __hash__ = None  # type: ignore[assignment]


def cuda_devices(tensors: Iterable[Tensor]) -> list[int]:
    """Indices of the CUDA devices that hold `tensors`."""
    return sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})


@contextmanager
def seeded(tensors: Iterable[Tensor], seed: int = SEED) -> Iterator[None]:
    """Fork the global generators for the block and start them from `seed`."""
    devices = cuda_devices(tensors)
    with torch.random.fork_rng(devices):
        reseed(devices, seed)
        yield


def reseed(devices: Iterable[int], seed: int = SEED) -> None:
    """Start the global generators of the processor and of CUDA `devices` from `seed`."""
    torch.default_generator.manual_seed(seed)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(seed)


class Averaged(TorchFunctionMode):
    """Inside the block dropout is off wherever it is called from, and a Bernoulli draw is its mean.

    `nn.Dropout`, `F.dropout`, the dropout of attention and of recurrent layers, and stochastic depth are one thing to
    who simulates them: an expectation. Other draws (`torch.randn_like`) are left to the seeded generators, and draws
    from a generator of one's own to that.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace what drops values, pass everything else on."""
        calm = None if kwargs and kwargs.get("generator") is not None else _CALM.get(function)
        return function(*args, **(kwargs or {})) if calm is None else calm(function, args, dict(kwargs or {}))


def _unchanged(_function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["input"]


def _attention(function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) > 4:
        return function(*args[:4], 0.0, *args[5:], **kwargs)
    return function(*args, **{**kwargs, "dropout_p": 0.0})


def _heads(function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`F.multi_head_attention_forward`: its eleventh argument is the dropout rate."""
    if len(args) > 10:
        return function(*args[:10], 0.0, *args[11:], **kwargs)
    return function(*args, **{**kwargs, "dropout_p": 0.0})


def _recurrent(function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.lstm` and its like: the dropout rate is the third after the list of weights."""
    place = 6 if isinstance(args[3], (list, tuple)) else 5
    return function(*args[:place], 0.0, *args[place + 1 :], **kwargs)


def _mean_in_place(_function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    drawn, *rest = args
    rate = rest[0] if rest else kwargs.get("p", 0.5)
    return drawn.copy_(rate) if isinstance(rate, Tensor) else drawn.fill_(rate)


def _mean(_function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    drawn, *rest = args or (kwargs["input"],)
    rate = rest[0] if rest else kwargs.get("p")
    return drawn.clone() if rate is None else torch.full_like(drawn, rate)


_DROPS = (
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
    torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout,
    torch.dropout_, torch.alpha_dropout_, torch.feature_dropout_, torch.feature_alpha_dropout_,
)  # fmt: skip

_CALM: dict[Callable, Callable] = {
    **dict.fromkeys(_DROPS, _unchanged),
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _heads,
    **dict.fromkeys((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu), _recurrent),
    Tensor.bernoulli_: _mean_in_place,
    Tensor.bernoulli: _mean,
    torch.bernoulli: _mean,
}
