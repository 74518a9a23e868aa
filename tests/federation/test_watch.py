"""`watch` sees an unmodified training step and changes nothing about it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invertigo.domains import Images
from invertigo.federation import observe, train_locally, watch
from invertigo.types import InvalidValueError, LocalTraining, RequirementError

SHAPE = (3, 8, 8)


def network(dropout=0.0, seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(144, 5)
    )


def data(n=6, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, *SHAPE, generator=g), torch.randint(0, 5, (n,), generator=g)


def step(model, optimizer, loss_fn, x, y):
    optimizer.zero_grad()
    loss_fn(model(x), y).backward()
    optimizer.step()


def watched_steps(model, optimizer, count):
    with watch(model, optimizer, F.cross_entropy) as tape:
        for _ in range(count):
            step(model, optimizer, F.cross_entropy, *data())
    return tape


def watch_call(model, optimizer, call, loss=F.cross_entropy):
    with watch(model, optimizer, loss):
        call()


def smoothed(output, target):
    return F.cross_entropy(output, target) * 1.0


LOSSES = {
    "function": F.cross_entropy,
    "module": nn.CrossEntropyLoss(),
    "lambda": lambda output, target: F.cross_entropy(output, target=target),
    "named wrapper": smoothed,
    "log-softmax": lambda output, target: F.nll_loss(output.log_softmax(-1), target),
}


@pytest.mark.parametrize("name", LOSSES)
def test_step_is_captured_whatever_form_the_loss_has(name):
    model, (x, y) = network(), data()
    optimizer = torch.optim.Adam(model.parameters())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with watch(model, optimizer, LOSSES[name]) as tape:
        step(model, optimizer, LOSSES[name], x, y)
    assert torch.equal(tape.batch["images"], x)
    assert torch.equal(tape.batch["labels"], y)
    assert tape.task.num_classes == 5
    assert tape.local == LocalTraining(learning_rate=0.001)
    assert all(torch.equal(v, before[k]) for k, v in {**tape.parameters, **tape.buffers}.items())
    assert all(torch.equal(v, before[k]) for k, v in tape.task.model.state_dict().items())
    again = train_locally(tape.task, tape.batch, tape.local)
    for key, tensor in again.tensors.items():
        torch.testing.assert_close(tape.update.tensors[key], tensor)


def test_another_instance_of_the_loss_is_seen_too():
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, nn.CrossEntropyLoss()) as tape:
        step(model, optimizer, nn.CrossEntropyLoss(), x, y)
    assert torch.equal(tape.batch["labels"], y)


def own_loss(output, target):
    return -output.log_softmax(-1)[torch.arange(len(target)), target].mean()


@pytest.mark.parametrize("kind", ["function", "module"])
def test_labels_of_a_loss_without_pytorchs_functions_are_found(kind):
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    own = own_loss if kind == "function" else type("Own", (nn.Module,), {"forward": lambda _, o, t: own_loss(o, t)})()
    with watch(model, optimizer, own) as tape:
        step(model, optimizer, own, x, y)
    assert torch.equal(tape.batch["labels"], y)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_training_is_bit_identical_with_and_without(make):
    def train(watched):
        model = network(dropout=0.5)
        optimizer = make(model.parameters(), lr=0.05)
        torch.manual_seed(7)
        for seed in range(3):
            x, y = data(seed=seed)
            if watched:
                with watch(model, optimizer, F.cross_entropy):
                    step(model, optimizer, F.cross_entropy, x, y)
            else:
                step(model, optimizer, F.cross_entropy, x, y)
        return model.state_dict()

    plain, watched = train(False), train(True)
    assert all(torch.equal(plain[k], watched[k]) for k in plain)


def test_hooks_are_removed_even_after_an_error():
    model = network()
    optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    with pytest.raises(ZeroDivisionError):
        watch_call(model, optimizer, lambda: 1 / len(model(data()[0])[:0]), loss)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in [*model.modules(), loss])
    assert not optimizer._optimizer_step_pre_hooks


def test_clipped_gradient_is_what_the_optimizer_saw():
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
    assert tape.update.norm == pytest.approx(0.01, rel=1e-3)


def test_scaled_gradients_are_unscaled():
    model, (x, y) = network(), data()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=256.0)
    with watch(model, optimizer, F.cross_entropy) as tape:
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        scaler.step(optimizer)
    expected = train_locally(tape.task, tape.batch, tape.local)
    torch.testing.assert_close(tape.update.tensors["5.weight"], expected.tensors["5.weight"])


def test_accumulated_passes_are_one_batch_and_evaluation_is_ignored():
    model = network()
    model[1] = nn.Identity()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (x, y), (xx, yy) = data(3, seed=1), data(3, seed=2)
    with watch(model, optimizer, F.cross_entropy) as tape:
        with torch.no_grad():
            model(data(4, seed=3)[0])
        for a, b in ((x, y), (xx, yy)):
            (F.cross_entropy(model(a), b) / 2).backward()
        optimizer.step()
    assert torch.equal(tape.batch["images"], torch.cat([x, xx]))
    expected = train_locally(tape.task, tape.batch, tape.local)
    torch.testing.assert_close(tape.update.tensors["5.weight"], expected.tensors["5.weight"])


def test_several_sgd_steps_become_a_difference():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = [data(4, seed=1), data(2, seed=2)]
    with watch(model, optimizer, F.cross_entropy) as tape:
        for _ in range(2):
            for x, y in batches:
                step(model, optimizer, F.cross_entropy, x, y)
    assert tape.local == LocalTraining(sends="difference", learning_rate=0.05, momentum=0.9, epochs=2, batch_size=4)
    assert len(tape.batch) == 6
    again = train_locally(tape.task, tape.batch, tape.local)
    for name, tensor in again.tensors.items():
        torch.testing.assert_close(tape.update.tensors[name], tensor)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (torch.optim.RMSprop, "optimizer is RMSprop"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "amsgrad"),
    ],
)
def test_several_steps_of_other_optimizers_are_explained(make, match):
    model = network()
    optimizer = make(model.parameters())
    with pytest.raises(RequirementError, match=match):
        watched_steps(model, optimizer, 2)
    assert watched_steps(model, optimizer, 1).update.kind == "gradient"


def test_old_momentum_cannot_be_read_over_several_steps():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer, F.cross_entropy, *data())
    with pytest.raises(RequirementError, match="earlier steps"):
        watched_steps(model, optimizer, 2)


def test_parameters_that_the_optimizer_does_not_train_are_not_sent():
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model[5].parameters(), lr=0.1)
    with watch(model, optimizer, F.cross_entropy) as tape:
        step(model, optimizer, F.cross_entropy, x, y)
    assert set(tape.update.tensors) == {"5.weight", "5.bias"}
    assert set(train_locally(tape.task, tape.batch, tape.local).tensors) == {"5.weight", "5.bias"}


def test_blocks_without_a_training_step_are_explained():
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InvalidValueError, match="No forward pass"):
        watched_steps(model, optimizer, 0)
    with pytest.raises(InvalidValueError, match="No optimizer step"):
        watch_call(model, optimizer, lambda: F.cross_entropy(model(x), y).backward())
    optimizer.zero_grad()
    with pytest.raises(InvalidValueError, match="without any gradient"):
        watch_call(model, optimizer, lambda: (model(x), optimizer.step()))
    with pytest.raises(InvalidValueError, match="empty"), watch(model, optimizer, F.cross_entropy) as tape:
        _ = tape.update


def test_observation_of_exactly_this_step():
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, F.cross_entropy) as tape:
        step(model, optimizer, F.cross_entropy, x, y)
    seen = tape.observation()
    assert int(seen.knowledge.level) == 1
    assert seen.knowledge.labels is None
    informed, again = tape.observation(level=2), observe(tape.task, tape.batch, tape.local, level=2)
    assert torch.equal(informed.knowledge.labels, y)
    for a, b in zip(informed.knowledge.batch_statistics["1"], again.knowledge.batch_statistics["1"]):
        torch.testing.assert_close(a, b)
    shared = tape.observation(shares_buffers=True)
    assert int(shared.knowledge.level) == 3
    assert torch.equal(shared.update.buffers["1.running_mean"], model[1].running_mean)
    with pytest.raises(InvalidValueError, match="training mode"):
        tape.observation(level=3)


def test_later_training_leaves_the_tape_alone():
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, F.cross_entropy, domain=Images(SHAPE)) as tape:
        step(model, optimizer, F.cross_entropy, x, y)
    x_before = tape.batch["images"].clone()
    x.zero_()
    step(model, optimizer, F.cross_entropy, *data(seed=9))
    assert torch.equal(tape.batch["images"], x_before)
    torch.testing.assert_close(
        train_locally(tape.task, tape.batch, tape.local).tensors["5.bias"], tape.update.tensors["5.bias"]
    )


class Tempered(nn.Module):
    """Reads a temperature beside the images, which is no row of any example."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, images, temperature):
        return self.body(images) / temperature


def test_what_else_a_model_reads_need_not_be_a_row_an_example():
    model, (x, y) = Tempered(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(temperature=torch.tensor(2.0), images=x), y).backward()
        optimizer.step()
    assert torch.equal(tape.batch["images"], x)
    assert torch.equal(tape.batch["labels"], y)
