"""Which entry of the client's model an array is: by its name, by an adapter's short name, or by its place in a list."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from invertigo.types import MismatchError

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before each name."""
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def names_of(arrived: Mapping[str, Tensor], model: nn.Module, order: Sequence[str] | None = None) -> dict[str, str]:
    """The model's name of each array that arrived.

    Flower's older clients send a list without names. It is taken to be the whole state dict, the parameters, the
    trainable ones, or the state dict without its norm layers: whichever has as many arrays of these shapes.

    Args:
        order: the names of such a list, where several readings are possible.

    Raises: MismatchError for a list that fits no reading, or several.
    """
    if not _numbered(arrived):
        return {name: _own_name(name, model) for name in arrived}
    readings = [tuple(order)] if order is not None else _readings(model)
    own = model.state_dict()
    shapes = [tuple(tensor.shape) for tensor in arrived.values()]
    fitting = {r for r in readings if [tuple(own[n].shape) if n in own else None for n in r] == shapes}
    if len(fitting) != 1:
        counts = sorted({len(reading) for reading in readings})
        problem = "several readings fit it" if fitting else f"no reading of {counts} arrays fits these shapes"
        raise MismatchError(
            f"A list of {len(shapes)} arrays without names was received, but {problem} ({shapes[:4]} ...). Say which "
            "entries of the model they are, in order: order=[...] names them."
        )
    return dict(zip(arrived, fitting.pop()))


def parts_left_out(sent: Collection[str], model: nn.Module) -> tuple[str, ...]:
    """Entries that were not sent as parts of a model are: whole modules, buffers, and what is frozen.

    A trainable parameter whose module was sent without it is missing, and not listed.
    """
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    modules = {_module(name) for name in sent}
    own = model.state_dict()
    return tuple(n for n in own if n not in sent and not (n in trainable and _module(n) in modules))


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _numbered(arrived: Mapping[str, Tensor]) -> bool:
    return bool(arrived) and list(arrived) == [str(number) for number in range(len(arrived))]


def _readings(model: nn.Module) -> list[tuple[str, ...]]:
    state = tuple(model.state_dict())
    norms = {f"{name}." for name, module in model.named_modules() if isinstance(module, NORMS)}
    plain = [name for name in state if not any(name.startswith(norm) for norm in norms)]
    spelled = [name for name in state if "bn" not in name]  # how FedBN's own code tells them
    parameters = [name for name, _ in model.named_parameters()]
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [state, tuple(plain), tuple(spelled), tuple(parameters), tuple(trainable)]


def _own_name(name: str, model: nn.Module) -> str:
    """The name itself, or the one entry that it is short for; an unknown name stays as it is."""
    own = model.state_dict()
    if name in own:
        return name
    for prefix in WRAPPERS:
        for candidate in (name.removeprefix(prefix), prefix + name):
            if candidate in own:
                return candidate
    short = [full for full in own if full.replace(".default.", ".") == name]  # as peft saves an adapter
    return short[0] if len(short) == 1 else name
