"""What a function does with a parameter: rows that are multiplied with inputs, or entries that scale or shift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Known = Callable[[Any], bool]
How = Literal["rows", "kernels", "entries", "lookup"]


@dataclass(frozen=True, eq=False)
class Meeting:
    """A parameter `weight` (or a view of one) that meets `inputs`.

    `rows`: each output is a row of `weight` (row, feature) times an input (..., feature); `kernels`: the same with
    patches of the input; `entries`: each entry of the parameter scales or shifts; `lookup`: rows chosen by number.
    `arrange` brings the derivative by the output into (..., row), `entries` into (row, feature) for rows.
    """

    how: How
    weight: Tensor
    inputs: Tensor
    arrange: Callable[[Tensor], Tensor]
    turned: Callable[[Tensor], Tensor]
    natural: bool = False
    """Rows are those of the weight's first axis."""


@dataclass(frozen=True, eq=False)
class Met:
    """All parameters that one call uses; `biases` are added to the output of the first."""

    met: tuple[Meeting, ...]
    biases: tuple[Tensor, ...] = ()


def meetings(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], known: Known) -> Met | None:
    """How `func` uses the parameters among its arguments; None where that is not understood."""
    name = getattr(func, "__name__", "")
    reader = READERS.get(name)
    try:
        return None if reader is None else reader(list(args), dict(kwargs), known)
    except (IndexError, KeyError, ValueError):
        return None


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _swap(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2)


def _argument(args: list, kwargs: dict, place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)


def _linear(args: list, kwargs: dict, known: Known) -> Met | None:
    inputs, weight, bias = (_argument(args, kwargs, i, n) for i, n in enumerate(("input", "weight", "bias")))
    return _product(inputs, weight, bias, known, _same, _same, _same)


def _product(
    inputs: Any, weight: Any, bias: Any, known: Known, shape: Callable, turned: Callable, arrange: Callable
) -> Met | None:
    """`weight`, once `turned`, is (row, feature). A parameter that only is the bias shifts entries."""
    if known(inputs) or not isinstance(inputs, Tensor):
        return None
    biases = (bias,) if known(bias) else ()
    if not known(weight):
        return Met((Meeting("entries", bias, inputs, _same, _same),)) if biases else None
    if weight.ndim != 2:
        return None
    natural = turned is _same
    return Met((Meeting("rows", weight, shape(inputs), arrange, turned, natural),), biases)


def _matmul(args: list, kwargs: dict, known: Known) -> Met | None:
    left, right = args[0], _argument(args, kwargs, 1, "other")
    right = kwargs.get("mat2") if right is None else right
    return _either(left, right, None, known)


def _reflected(args: list, kwargs: dict, known: Known) -> Met | None:
    return _either(args[1], args[0], None, known)


def _addmm(args: list, kwargs: dict, known: Known) -> Met | None:
    if kwargs:
        return None
    return _either(args[1], args[2], args[0], known)


def _either(left: Any, right: Any, bias: Any, known: Known) -> Met | None:
    if known(right):
        return _product(left, right, bias, known, _same, _swap, _same)
    if left.ndim == 2 and right.ndim >= 2 and not known(bias):
        return _product(right, left, None, known, _swap, _same, _swap)
    return None


def _einsum(args: list, kwargs: dict, known: Known) -> Met | None:
    """One operand is a parameter; each of its letters is summed over or stands in the output, and not both sides'."""
    equation, operands = args[0], args[1:]
    operands = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    if not isinstance(equation, str) or "->" not in equation or "." in equation or len(operands) != 2:
        return None
    left, out = equation.replace(" ", "").split("->")
    letters = left.split(",")
    at = next(i for i, operand in enumerate(operands) if known(operand))
    mine, theirs, inputs = letters[at], letters[1 - at], operands[1 - at]
    summed = [c for c in mine if c in theirs and c not in out]
    rows = [c for c in mine if c in out and c not in theirs]
    units = [c for c in theirs if c in out and c not in mine]
    plain = all(len(set(word)) == len(word) for word in (mine, theirs, out))
    if not plain or known(inputs) or {*summed, *rows} != set(mine) or {*summed, *units} != set(theirs):
        return None

    def arranged(word: str, first: list[str], second: list[str]) -> Callable[[Tensor], Tensor]:
        def move(tensor: Tensor) -> Tensor:
            moved = tensor.permute([word.index(c) for c in (*first, *second)])
            return moved.flatten(len(first)) if second else moved[..., None]

        return move

    def turned(entries: Tensor) -> Tensor:
        moved = arranged(mine, rows, summed)(entries)
        return moved.reshape(-1, moved.shape[-1])

    shape = arranged(theirs, units, summed)
    return Met((Meeting("rows", operands[at], shape(inputs), arranged(out, units, rows), turned),))


def _convolution(args: list, kwargs: dict, known: Known) -> Met | None:
    given = {n: _argument(args, kwargs, i, n) for i, n in enumerate(("input", "weight", "bias"))}
    if not known(given["weight"]) or known(given["input"]):
        return None

    def arrange(slopes: Tensor) -> Tensor:  # (example, row, *place) -> (example, place, row)
        return slopes.flatten(2).mT

    biases = (given["bias"],) if known(given["bias"]) else ()
    met = Meeting("kernels", given["weight"], given["input"], arrange, lambda e: e.flatten(1), True)
    return Met((met,), biases)


def _embedding(args: list, kwargs: dict, known: Known) -> Met | None:
    weight, numbers = _argument(args, kwargs, 0, "weight"), _argument(args, kwargs, 1, "indices")
    return Met((Meeting("lookup", weight, numbers, _same, _same),)) if known(weight) else None


def _entrywise(args: list, kwargs: dict, known: Known) -> Met | None:
    """A sum or product with one parameter."""
    tensors = [a for a in args[:2] if isinstance(a, Tensor)]
    weights, others = [t for t in tensors if known(t)], [t for t in tensors if not known(t)]
    if len(weights) != 1 or len(others) != 1 or kwargs:
        return None
    return Met((Meeting("entries", weights[0], others[0], _same, _same),))


def _norm(places: tuple[int, int]) -> Callable[[list, dict, Known], Met | None]:
    def read(args: list, kwargs: dict, known: Known) -> Met | None:
        tensors = [_argument(args, kwargs, place, name) for place, name in zip(places, ("weight", "bias"))]
        met = tuple(Meeting("entries", t, args[0], _same, _same) for t in tensors if known(t))
        return Met(met) if met and not known(args[0]) else None

    return read


READERS: dict[str, Callable[[list, dict, Known], Met | None]] = {
    "linear": _linear,
    "addmm": _addmm,
    **dict.fromkeys(("matmul", "mm", "__matmul__"), _matmul),
    "__rmatmul__": _reflected,
    "einsum": _einsum,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    "embedding": _embedding,
    **dict.fromkeys(("add", "__add__", "__radd__", "sub", "__sub__", "mul", "__mul__", "__rmul__"), _entrywise),
    "layer_norm": _norm((2, 3)),
    "rms_norm": _norm((2, 9)),
    "batch_norm": _norm((1, 2)),
    "group_norm": _norm((2, 3)),
    "instance_norm": _norm((1, 2)),
}
"""By the name of the function; in-place forms and everything else are left to autograd, example by example."""
