"""The send gate counts what an attacker reads, in whatever layer, and takes it out of the update."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear

from invertigo.domains import Images
from invertigo.federation import train_locally
from invertigo.guards import Inspector, Isolation, Unlooked
from invertigo.guards.combinations import alone, alone_in_pairs, peeled
from invertigo.guards.groups import alone_in_groups
from invertigo.guards.signals import signals_of
from invertigo.types import Batch, History, Local, LocalTraining, Received, Task

GRADIENT = LocalTraining()
ROWS, PIXELS, EXAMPLES = 96, 36, 24


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(count: int = EXAMPLES) -> Batch:
    images = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(7))
    return Batch({"images": images, "labels": torch.arange(count) % 5})


class Product(torch.autograd.Function):
    """A product that nobody else has heard of."""

    @staticmethod
    def forward(ctx, inputs, weight):
        ctx.save_for_backward(inputs, weight)
        return inputs @ weight.T

    @staticmethod
    def backward(ctx, slopes):
        inputs, weight = ctx.saved_tensors
        return slopes @ weight, slopes.T @ inputs


def split(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Attention-like: a packed parameter is cut before it is used."""
    first, second = weight.chunk(2)
    return torch.cat([linear(x, first), linear(x, second)], 1) + bias


FORMS = {
    "linear": lambda x, w, b: linear(x, w, b),
    "matmul": lambda x, w, b: x @ w.t() + b,
    "scaled": lambda x, w, b: linear(x, w * 0.5) * 2 + b,
    "einsum": lambda x, w, b: torch.einsum("bi,oi->bo", x, w) + b,
    "addmm": lambda x, w, b: torch.addmm(b, x, w.T),
    "left": lambda x, w, b: (w @ x.T).T + b,
    "convolution": lambda x, w, b: conv2d(x.reshape(-1, 1, 6, 6), w.reshape(-1, 1, 6, 6), b).flatten(1),
    "chunks": split,
    "unknown": lambda x, w, b: Product.apply(x, w) + b,
}


class Own(nn.Module):
    """A first layer of no known class, a hidden layer, and a head of another class, so that none is taken for it."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.w = nn.Parameter(drawn(ROWS, PIXELS) * 0.2)
        self.b = nn.Parameter(torch.zeros(ROWS))
        self.out = nn.Parameter(drawn(ROWS, 5, seed=1) * 0.2)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(FORMS[self.form](images.flatten(1), self.w, self.b)) @ self.out


def imprinted(model: Own, scale: float) -> Own:
    """Rows that measure one number of each image, in bins, of a size that no relative cut-off would look at."""
    with torch.no_grad():
        direction = drawn(PIXELS, seed=3)
        measured = batch()["images"].flatten(1) @ direction
        edges = torch.linspace(float(measured.min()) - 0.01, float(measured.max()), ROWS // 2 + 1)[:-1]
        model.w[: ROWS // 2] = scale * direction
        model.b[: ROWS // 2] = -scale * edges
        model.out[: ROWS // 2] = scale * drawn(1, 5, seed=4)
    return model


def readable_by_differences(model: Own, update: dict[str, Tensor]) -> set[int]:
    """A naive reader of bins: ratios of differences of neighbouring planted rows, to four digits."""
    weight, bias = update["w"].double()[: ROWS // 2], update["b"].double()[: ROWS // 2]
    weight = torch.cat([weight[:-1] - weight[1:], weight[-1:]])
    bias = torch.cat([bias[:-1] - bias[1:], bias[-1:]])
    ratio = weight / bias[:, None]
    images = batch()["images"].flatten(1).double()
    return {i for i in range(EXAMPLES) if bool(((ratio - images[i]).abs().amax(1) < 1e-4).any())}


def client(model: nn.Module, training: LocalTraining = GRADIENT, count: int = EXAMPLES) -> tuple[Received, Local]:
    task = Task(model, cross_entropy, Images(shape=(1, 6, 6)), 5)
    update = train_locally(task, batch(count), training)
    return Received(model.state_dict()), Local(task=task, batch=batch(count), training=training, update=update)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1.0, 1e-7])
def test_an_imprint_is_seen_in_any_layer_at_any_scale_and_taken_out(form, scale):
    received, local = client(imprinted(Own(form), scale))
    assert local.update is not None
    read = readable_by_differences(local.task.model, dict(local.update.tensors))
    assert len(read) > 8
    verdict = Inspector(guards=(Isolation(), Unlooked())).inspect(received, History(), local, ("send",))
    assert read <= set(verdict.recoverable)
    assert verdict.drop
    left = readable_by_differences(local.task.model, dict(verdict.repaired(local.update).tensors))
    assert len(left) <= 1
    assert not any(f.rule == "unlooked" for f in verdict.findings)


def test_slopes_and_inputs_add_up_to_the_gradient_in_every_form():
    for form in FORMS:
        model = Own(form)
        received, local = client(model)
        assert local.update is not None
        uses = [u for u in signals_of(received, local).uses if u.parameter == "w" and u.inputs is not None]
        whole = torch.zeros(ROWS * PIXELS)
        for use in uses:
            rows = use.slopes.T @ use.inputs.reshape(len(use.slopes), -1)
            entries = torch.arange(rows.numel()).reshape(rows.shape) if use.entries is None else use.entries
            whole[entries.flatten()] += rows.flatten() * (0.5 if form == "scaled" else 1.0)
        if form not in ("unknown", "convolution"):
            truth = local.update.tensors["w"].flatten() * EXAMPLES
            assert torch.allclose(whole, truth, atol=1e-5), form


def test_nothing_is_taken_out_of_what_honest_models_leak_alike():
    received, local = client(Own("linear"))
    verdict = Inspector(guards=(Isolation(),)).inspect(received, History(), local, ("send",))
    assert verdict.decision == "pass"


def test_attention_embeddings_and_recurrent_layers_are_looked_at():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(9, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.cell = nn.GRU(8, 8, batch_first=True)
            self.head = nn.Linear(8, 5)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.words((images.flatten(1) * 8).long())
            tokens = self.attention(tokens, tokens, tokens)[0]
            return self.head(self.cell(tokens)[0].mean(1))

    received, local = client(Words())
    signals = signals_of(received, local)
    assert {u.parameter for u in signals.uses} | {"attention.in_proj_bias", "attention.out_proj.bias", "head.bias"} == {
        name for name, _ in local.task.model.named_parameters()
    }
    assert not signals.unseen


def test_what_cannot_be_looked_at_is_listed_and_is_no_pass():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(drawn(8, PIXELS))
            self.norm = nn.BatchNorm1d(8)
            self.head = nn.Linear(8, 5)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.norm(Product.apply(images.flatten(1), self.w)))

    received, local = client(Mixed())
    verdict = Inspector().inspect(received, History(), local, ("send",))
    assert verdict.decision == "warn"
    (found,) = [f for f in verdict.findings if f.rule == "unlooked"]
    assert "'w'" in found.message
    assert "BatchNorm" in found.message


def test_pairs_are_found_whatever_the_rows_are_scaled_by():
    generator = torch.Generator().manual_seed(0)
    measured = torch.randn(40, generator=generator, dtype=torch.float64)
    edges = torch.randn(64, generator=generator, dtype=torch.float64)
    own = 1 + torch.rand(40, 1, generator=generator, dtype=torch.float64)
    sizes = 10 ** (24 * torch.rand(64, generator=generator, dtype=torch.float64) - 20)
    slopes = ((measured[:, None] > edges) * own * sizes).float()
    slopes = torch.cat([slopes, torch.randn(40, 200, generator=generator)], 1)
    pairs, _ = alone_in_pairs(slopes, 6e-8)
    bins = torch.bucketize(measured, edges.sort().values)
    alone_in_bin = {i for i in range(40) if bins[i] > 0 and int((bins == bins[i]).sum()) == 1}
    found = set(pairs[:, 0].tolist()) | set(alone(slopes).any(1).nonzero()[:, 0].tolist())
    assert found == alone_in_bin
    assert int(pairs[:, 1:].max()) < 64


def test_peeling_reads_what_is_left_when_others_are_taken_off():
    chain = torch.eye(6) + torch.diag(torch.ones(5), 1)  # row 0 shows one example, row k two
    assert peeled(chain, 1e-7).all()
    assert not peeled(torch.ones(6, 6), 1e-7).any()


def test_the_update_after_local_steps_is_read_as_it_is():
    training = LocalTraining(sends="difference", learning_rate=0.01, epochs=2, batch_size=8)
    received, local = client(imprinted(Own("linear"), 1.0), training)
    found = Isolation().inspect(received, History(), local)
    read = next(f for f in found if f.figure == "update:w")
    assert len(read.examples) >= 3
    noisy = Isolation().inspect(received, History(), replace(local, update=hidden(local)))
    assert not next(f for f in noisy if f.figure == "update:w").examples


def hidden(local: Local):
    """The same update behind noise of its own size."""
    assert local.update is not None
    noisy = {n: t + t.std() * drawn(*t.shape, seed=9) for n, t in local.update.tensors.items()}
    return replace(local.update, tensors=noisy)


def test_rows_whose_columns_are_not_parallel_are_combined():
    """Bins of two rows with columns of their own in two dimensions: a reader takes four rows at a time."""
    generator = torch.Generator().manual_seed(0)
    measured, edges = torch.randn(40, generator=generator), torch.randn(30, generator=generator)
    own, columns = torch.randn(40, 2, generator=generator), torch.randn(2, 60, generator=generator)
    slopes = (measured[:, None] > edges.repeat_interleave(2)) * (own @ columns)
    bins = torch.bucketize(measured, edges.sort().values)
    alone_in_bin = {i for i in range(40) if bins[i] > 0 and int((bins == bins[i]).sum()) == 1}
    few = {i for i in alone_in_bin if int((measured > measured[i]).sum()) < 8}  # too few units to tell
    units, rows = alone_in_groups(slopes)
    assert len(alone_in_bin - few) > 3
    assert alone_in_bin - few <= set(units.nonzero()[:, 0].tolist()) <= alone_in_bin
    assert bool(rows.any())
    honest = torch.randn(40, 64, generator=generator).relu()
    assert not alone_in_groups(honest)[0].any()
    assert not alone_in_groups(torch.randn(40, 8, generator=generator))[0].any()
