"""Networks that the red team crafts: a first layer in many forms, and what its rows read."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear

PIXELS, CLASSES = 64, 10


class Product(torch.autograd.Function):
    """A product that no library knows."""

    @staticmethod
    def forward(ctx, inputs, weight):
        """See `torch.autograd.Function`."""
        ctx.save_for_backward(inputs, weight)
        return inputs @ weight.T

    @staticmethod
    def backward(ctx, slopes):
        """See `torch.autograd.Function`."""
        inputs, weight = ctx.saved_tensors
        return slopes @ weight, slopes.T @ inputs


FORMS = {
    "F.linear": linear,
    "product": lambda x, w, b: x @ w.T + b,
    "autograd.Function": lambda x, w, b: Product.apply(x, w) + b,
    "two layers": lambda x, w, b: torch.cat([linear(x, h, c) for h, c in zip(w.split(96), b.split(96))], 1),
}


class Classifier(nn.Module):
    """A head of a class of its own, so that a rule that looks for the last nn.Linear takes another layer for it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(CLASSES, features))

    def forward(self, x: Tensor) -> Tensor:
        """See `nn.Module`."""
        return linear(x, self.weight)


class Planted(nn.Module):
    """`reads` makes features of an image; rows (`w`, `b`) read them, and `head` reads the rows."""

    def __init__(self, form: str, before: nn.Module, features: int, rows: int, slope: float = 0.0) -> None:
        super().__init__()
        self.form, self.before, self.slope = form, before, slope
        self.w, self.b = nn.Parameter(torch.zeros(rows, features)), nn.Parameter(torch.zeros(rows))
        self.head = Classifier(rows)

    def features(self, images: Tensor) -> Tensor:
        """(unit, feature) what the rows read."""
        return self.before(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """See `nn.Module`."""
        return self.head(leaky_relu(FORMS[self.form](self.features(images), self.w, self.b), self.slope))


class Levels(nn.Module):
    """Grey levels as words, each with a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(17, 3)

    def forward(self, images: Tensor) -> Tensor:
        """See `nn.Module`."""
        return self.words((images.flatten(1) * 16).round().long())


class Attentive(nn.Module):
    """Sixteen tokens of four pixels; attention, then rows that read each token, as a transformer's second half does."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(16, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.w, self.b = nn.Parameter(torch.zeros(rows, 4)), nn.Parameter(torch.zeros(rows))
        self.head = Classifier(rows)

    def features(self, images: Tensor) -> Tensor:
        """(token, feature) of all tokens of all images."""
        tokens = images.unfold(2, 2, 2).unfold(3, 2, 2).reshape(len(images), 16, 4) + self.place
        return (tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]).flatten(0, 1)

    def forward(self, images: Tensor) -> Tensor:
        """See `nn.Module`."""
        rows = torch.relu(linear(self.features(images), self.w, self.b))
        return self.head(rows.reshape(len(images), 16, -1).mean(1))


def draw(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Every matrix by the usual uniform law of its fan-in, vectors at zero or, of norms, as they are."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                bound = parameter[0].numel() ** -0.5
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
    return model


def build(stage: str, rows: int, seed: int) -> nn.Module:
    """One of `STAGES`, freshly drawn."""
    return draw(STAGES[stage](rows), torch.Generator().manual_seed(seed))


STAGES = {
    **{form: (lambda rows, form=form: Planted(form, nn.Identity(), PIXELS, rows)) for form in FORMS},
    "convolution": lambda rows: Planted(
        "F.linear", nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), 96, rows
    ),
    "leaky": lambda rows: Planted("F.linear", nn.Identity(), PIXELS, rows, slope=0.01),
    "embedding": lambda rows: Planted("F.linear", Levels(), 3 * PIXELS, rows),
    "attention": Attentive,
}
