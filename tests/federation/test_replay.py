"""The truth, put through the simulated step, is compared with what was received; every update here is autograd's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invertigo.domains import Images
from invertigo.federation import RandomState, replay
from invertigo.types import Batch, LocalTraining, Observation, Task, Update, buffers_of, trainable

SHAPE = (1, 8, 8)


def network(*layers, seed=0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *layers, nn.Sigmoid(), nn.Flatten(), nn.Linear(512, 4))


def data(n=4):
    g = torch.Generator().manual_seed(1)
    return torch.rand(n, *SHAPE, generator=g), torch.arange(n) % 4


def gradient(model, loss, x, y):
    return dict(zip(trainable(model), torch.autograd.grad(loss(model(x), y), list(model.parameters()))))


def observed(model, update, loss=F.cross_entropy, **local) -> Observation:
    task = Task(model, loss, Images(SHAPE), 4)
    return Observation(task, trainable(model), buffers_of(model), Update(update, "gradient"), LocalTraining(**local))


def replayed(model, update, n=4, **local):
    x, y = data(n)
    return replay(observed(model, update, **local), Batch({"images": x, "labels": y}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", [False, True])
def test_plain_gradient_is_exact_at_the_rounding_it_was_sent_with(dtype, norm):
    model = network(*([nn.BatchNorm2d(8)] if norm else []))
    computed = model.double() if dtype is torch.float64 else model
    x, y = data()
    sent = gradient(computed, F.cross_entropy, x.to(next(computed.parameters())), y)
    found = replayed(computed, {k: g.to(dtype).to(next(computed.parameters())) for k, g in sent.items()})
    assert found.status == "exact", found
    assert found.relative_gap <= 2 * torch.finfo(dtype).eps + 1e-5
    assert found.scale == pytest.approx(1, abs=1e-2)
    assert [layer.name for layer in found.layers] == list(sent)


def test_an_error_far_above_rounding_is_not_taken_for_it():
    model, (x, y) = network(), data()
    sent = gradient(model, F.cross_entropy, x, y)
    sent["0.bias"] = sent["0.bias"] * 1.001
    assert replayed(model, sent).status == "differs"
    assert [layer.name for layer in replayed(model, sent).layers if layer.unexplained] == ["0.bias"]


@pytest.mark.parametrize("factor", [2.0, 0.03, 32.0])
def test_a_positive_factor_is_found(factor):
    model, (x, y) = network(), data()
    sent = {k: factor * g for k, g in gradient(model, F.cross_entropy, x, y).items()}
    found = replayed(model, sent)
    assert found.status == "scaled"
    assert found.scale == pytest.approx(factor, rel=1e-5)


def test_clipping_by_norm_is_a_factor():
    model, (x, y) = network(), data()
    F.cross_entropy(model(x), y).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1).item()
    found = replayed(model, {k: p.grad for k, p in model.named_parameters()})
    assert found.status == "scaled"
    assert found.scale == pytest.approx(0.1 / norm, rel=1e-4)


def _clipped_by_value(model, x, y):
    F.cross_entropy(model(x), y).backward()
    nn.utils.clip_grad_value_(model.parameters(), 0.003)
    return {k: p.grad for k, p in model.named_parameters()}


def _clipped_by_layer(model, x, y):
    return {k: g * 0.01 / g.norm() for k, g in gradient(model, F.cross_entropy, x, y).items()}


def _decayed(model, x, y):
    def loss(o, y):
        return F.cross_entropy(o, y) + 0.05 * sum(p.square().sum() for p in model.parameters())

    return gradient(model, loss, x, y)


def _uneven(model, x, y):
    loss = lambda o, y: (F.cross_entropy(o[:3], y[:3]) + F.cross_entropy(o[3:], y[3:])) / 2  # noqa: E731
    return gradient(model, loss, x, y)


def _difference(model, x, y):
    return {k: -0.1 * g for k, g in gradient(model, F.cross_entropy, x, y).items()}


def _adam(model, x, y):
    before = trainable(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    return {k: (before[k] - p.detach()) / 0.01 for k, p in model.named_parameters()}


CAUSES = {
    "clipped by value at 0.003": _clipped_by_value,
    "each layer was scaled on its own": _clipped_by_layer,
    "0.1 times the parameters": _decayed,
    "count unequally in the loss": _uneven,
    "wrong sign": _difference,
    "Adam": _adam,
}


@pytest.mark.parametrize("words", CAUSES)
def test_the_likely_cause_is_named(words):
    model, (x, y) = network(), data()
    found = replayed(model, CAUSES[words](model, x, y) if words != "Adam" else _adam(network(), x, y))
    assert found.status == "differs"
    assert words in found.cause
    assert found.seconds < 3


def test_parts_that_went_through_batchnorm_on_their_own():
    model, (x, y) = network(nn.BatchNorm2d(8)).train(), data()
    for part in (slice(0, 2), slice(2, 4)):
        (F.cross_entropy(model(x[part]), y[part]) / 2).backward()
    found = replayed(model, {k: p.grad for k, p in model.named_parameters()})
    assert found.status == "differs"
    assert "2 parts of 2 examples" in found.cause


def test_the_other_mode():
    model, (x, y) = network(nn.BatchNorm2d(8)).eval(), data()
    found = replayed(model, gradient(model, F.cross_entropy, x, y), mode="train")
    assert "inference mode" in found.cause


def test_one_column_of_outputs_against_a_row_of_targets_broadcasts():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    x, y = data()[0], torch.tensor([0.1, 0.4, 0.2, 0.9])
    with pytest.warns(UserWarning, match="target size"):
        sent = gradient(model, F.mse_loss, x, y)
    found = replay(observed(model, sent, F.mse_loss), Batch({"images": x, "labels": y[:, None]}))
    assert found.status == "differs"
    assert "broadcasts" in found.cause


class Functional(nn.Module):
    """Dropout by function, and noise: no module shows either."""

    def __init__(self, draw):
        super().__init__()
        self.draw, self.body = draw, network()

    def forward(self, x):
        return self.body(self.draw(x))


DRAWS = {
    "dropout": lambda x: F.dropout(x, 0.5, training=True),
    "noise": lambda x: x + 0.3 * torch.randn_like(x),
    "stochastic depth": lambda x: x + x * torch.bernoulli(torch.full((len(x), 1, 1, 1), 0.5)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_randomness_is_noticed_and_replayed_from_the_recorded_state(name):
    model, (x, y) = Functional(DRAWS[name]), data()
    before, state = torch.get_rng_state(), RandomState.now(model.parameters())
    sent = gradient(model, F.cross_entropy, x, y)
    after = torch.get_rng_state()
    seen, truth = observed(model, sent), Batch({"images": x, "labels": y})
    assert replay(seen, truth).status == "random"
    assert replay(seen, truth) != replay(seen, truth, randomness=[state])
    assert replay(seen, truth, randomness=[state]).status == "exact"
    assert torch.equal(after, torch.get_rng_state())
    assert not torch.equal(before, after)
    one, other = replay(seen, truth), replay(seen, truth)
    assert one.relative_gap == other.relative_gap


def test_a_step_that_makes_nothing_finite_of_the_truth_is_not_the_clients():
    model, (x, y) = network(), data()
    seen = observed(model, gradient(model, F.cross_entropy, x, y), lambda o, t: F.cross_entropy(o, t) / (0 * o.sum()))
    found = replay(seen, Batch({"images": x, "labels": y}))
    assert found.status == "impossible"
    assert "NaN" in found.cause


def test_a_truth_that_the_step_cannot_read():
    model, (x, y) = network(), data()
    sent = gradient(model, F.cross_entropy, x, y)
    found = replay(observed(model, sent), Batch({"images": x}))
    assert found.status == "impossible"
    assert "'labels'" in found.cause


def test_a_difference_that_kept_too_few_digits_is_not_called_exact():
    model, (x, y) = network(), data()
    before = {k: 100 + v for k, v in model.state_dict().items()}
    model.load_state_dict(before)
    slopes = gradient(model, F.cross_entropy, x, y)
    truth = Batch({"images": x, "labels": y})

    def judged(rate, change):
        after = {k: v - rate * change(slopes[k]) for k, v in before.items()}
        seen = Observation.from_parameters(
            model, F.cross_entropy, before, after, domain=Images(SHAPE), learning_rate=rate, num_examples=4
        )
        return replay(seen, truth)

    assert judged(1.0, lambda g: g).status == "exact"
    assert judged(1.0, lambda g: g + 0.1 * g.abs().mean()).status == "differs"
    coarse = judged(1e-4, lambda g: g)
    assert coarse.status == "differs"
    assert "rounding may be" in coarse.cause
