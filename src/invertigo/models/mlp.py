"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from invertigo.models.building import Shape, registry
from invertigo.models.layers import activation as make_activation
from invertigo.models.layers import positive, probability


@registry.register("mlp")
class MLP(nn.Module):
    """Linear layers on the flattened image; the first one gives a single example away exactly.

    Args:
        hidden: Width of each hidden layer; empty for a linear classifier.
        activation: After each hidden layer.
        batch_norm: Normalise over the batch before each activation.
        dropout: Probability after each activation.
        bias: Whether the linear layers have biases.
    """

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        *,
        hidden: Sequence[int] | int = (256, 128),
        activation: str = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        hidden = (hidden,) if isinstance(hidden, int) else hidden
        positive(**{f"hidden[{i}]": width for i, width in enumerate(hidden)})
        probability(dropout=dropout)
        layers: list[nn.Module] = [nn.Flatten()]
        width = prod(input_shape)
        for wider in hidden:
            layers.append(nn.Linear(width, wider, bias=bias))
            layers += [nn.BatchNorm1d(wider)] if batch_norm else []
            layers.append(make_activation(activation))
            layers += [nn.Dropout(dropout)] if dropout else []
            width = wider
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channel, height, width)."""
        return self.head(self.body(images))
