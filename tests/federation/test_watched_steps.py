"""Training steps as people write them: what `watch` reads of each must reproduce what the optimizer used."""

from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invertigo.federation import replay, train_locally, watch
from invertigo.types import InvalidValueError, LocalTraining, RequirementError

Out = namedtuple("Out", "loss logits")


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def network(*layers) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), *layers, nn.Flatten(), nn.Linear(144, 5)))


def data(n=4, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 8, 8, generator=g), torch.randint(0, 5, (n,), generator=g)


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def check(tape):
    """The client, and the attackers' simulation, repeat exactly what was recorded."""
    found = replay(tape.observation(), tape.batch, randomness=tape.randomness)
    assert found.status == "exact", found
    again = train_locally(tape.task, tape.batch, tape.local)
    if not any(isinstance(m, nn.Dropout) for m in tape.task.model.modules()):
        for name, tensor in tape.update.tensors.items():
            torch.testing.assert_close(again.tensors[name], tensor, rtol=1e-4, atol=1e-7)


def one_step(model, optimizer, x, y, **options):
    with watch(model, optimizer, **options) as tape:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return tape


class Second(nn.Module):
    """Reads more than images."""

    def __init__(self):
        super().__init__()
        self.body, self.meta = network(), nn.Linear(3, 5)

    def forward(self, x, meta=None, temperature=1.0):
        return (self.body(x) + (0 if meta is None else self.meta(meta))) / temperature


class Inside(nn.Module):
    """Computes its own loss, as the models of Hugging Face do."""

    def __init__(self, kind):
        super().__init__()
        self.body, self.kind = network(), kind

    def forward(self, pixel_values, labels=None):
        logits = self.body(pixel_values)
        loss = F.cross_entropy(logits, labels)
        return {"tuple": (loss, logits), "named": Out(loss, logits), "dict": {"loss": loss, "logits": logits}}[
            self.kind
        ]


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Tanh()),
            nn.Linear(9, 5),
            nn.Linear(9, 2),
        )

    def forward(self, x):
        h = self.body(x)
        return {"main": self.a(h), "aux": self.b(h)}


def test_keyword_input_with_a_default_is_a_field_of_the_batch():
    model, (x, y), meta = seeded(Second), data(), torch.rand(4, 3)
    optimizer = sgd(model)
    with watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(x, meta=meta), y).backward()
        optimizer.step()
    assert torch.equal(tape.batch["meta"], meta)
    assert tape.assumed == ("meta",)
    check(tape)


def test_an_argument_that_is_one_for_all_examples_is_kept_as_it_was():
    model, (x, y) = seeded(Second), data()
    optimizer = sgd(model)
    with watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(x, temperature=torch.tensor(3.0)), y).backward()
        optimizer.step()
    assert set(tape.batch.fields) == {"images", "labels"}
    check(tape)


@pytest.mark.parametrize("kind", ["tuple", "named", "dict"])
def test_loss_inside_the_model(kind):
    model, (x, y) = seeded(lambda: Inside(kind)), data()
    optimizer = sgd(model)
    with watch(model, optimizer) as tape:
        out = model(pixel_values=x, labels=y)
        (out["loss"] if kind == "dict" else out[0]).backward()
        optimizer.step()
    assert torch.equal(tape.batch["images"], x)
    assert torch.equal(tape.batch["labels"], y)
    check(tape)


@pytest.mark.parametrize("second", ["same target", "own target"])
def test_sum_of_losses_on_two_heads(second):
    model, (x, y) = seeded(Heads), data()
    other = y if second == "same target" else torch.tensor([0, 1, 1, 0])
    model.b = model.b if second == "own target" else seeded(lambda: nn.Linear(9, 5))
    optimizer = sgd(model)
    with watch(model, optimizer, F.cross_entropy) as tape:
        out = model(x)
        (F.cross_entropy(out["main"], y) + 0.3 * F.cross_entropy(out["aux"], other)).backward()
        optimizer.step()
    assert tape.task.step_loss.coefficients == pytest.approx((1.0, 0.3), rel=1e-4)
    check(tape)


def test_loss_of_the_users_own_on_a_tuple():
    model, (x, y) = seeded(Heads), data()
    loss = lambda out, y: F.cross_entropy(out["main"], y) + out["aux"].square().mean()  # noqa: E731
    optimizer = sgd(model)
    with watch(model, optimizer, loss) as tape:
        loss(model(x), y).backward()
        optimizer.step()
    check(tape)


def test_l2_term_in_the_loss():
    model, (x, y) = network(), data()
    optimizer = sgd(model)
    with watch(model, optimizer, F.cross_entropy) as tape:
        (F.cross_entropy(model(x), y) + 0.01 * sum(p.square().sum() for p in model.parameters())).backward()
        optimizer.step()
    assert tape.local.l2 == pytest.approx(0.02, rel=1e-3)
    check(tape)


@pytest.mark.parametrize(
    ("sizes", "divisor", "norm"),
    [((2, 2), 2, False), ((2, 2), 1, False), ((3, 1), 2, False), ((2, 2), 2, True), ((3, 1), 1, True)],
)
def test_accumulation(sizes, divisor, norm):
    model, (x, y) = network(*([nn.BatchNorm2d(4)] if norm else [])), data()
    optimizer = sgd(model)
    with watch(model, optimizer, F.cross_entropy) as tape:
        for xs, ys in zip(x.split(sizes), y.split(sizes)):
            (F.cross_entropy(model(xs), ys) / divisor).backward()
        optimizer.step()
    plain = sizes == (2, 2) and divisor == 2 and not norm
    assert (tape.local == LocalTraining(learning_rate=0.1)) == plain
    assert tape.local.batch_sizes == (sizes if sizes == (3, 1) or norm else ())
    check(tape)


@pytest.mark.parametrize("scaler", [False, True])
def test_clipping_by_norm(scaler):
    model, (x, y) = network(), data()
    optimizer, scale = sgd(model), torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaler)
    with watch(model, optimizer, F.cross_entropy) as tape:
        scale.scale(F.cross_entropy(model(x), y)).backward()
        scale.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        scale.step(optimizer)
    assert tape.update.norm == pytest.approx(0.05, rel=1e-4)
    check(tape)
    if not scaler:
        assert tape.local.clip_norm == pytest.approx(0.05, rel=1e-4)


def test_clipping_by_value():
    model, (x, y) = network(), data()
    optimizer = sgd(model)
    with watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.01)
        optimizer.step()
    assert tape.local.clip_value == pytest.approx(0.01)
    check(tape)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_closure(make):
    model, (x, y) = network(), data()
    optimizer = make(model.parameters(), lr=0.01)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with watch(model, optimizer, F.cross_entropy) as tape:
        optimizer.step(closure)
    assert torch.equal(tape.batch["labels"], y)
    check(tape)


def test_an_optimizer_that_computes_the_gradient_often_is_refused():
    model, (x, y) = network(), data()
    optimizer = torch.optim.LBFGS(model.parameters())

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with pytest.raises(InvalidValueError, match="several times"), watch(model, optimizer, F.cross_entropy):
        optimizer.step(closure)


class Q(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, x):
        return self.body(x)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_loss_that_broadcasts_is_repeated_as_it_happened():
    model, (x, _), target = seeded(Q), data(), torch.rand(4, 1)
    optimizer = sgd(model)
    with watch(model, optimizer, F.mse_loss) as tape:
        F.mse_loss(model(x), target).backward()
        optimizer.step()
    assert torch.equal(tape.batch["labels"], target)
    check(tape)


def test_a_step_that_cannot_be_repeated_shows_what_to_write():
    model, (x, _), actions, target = seeded(Q), data(), torch.tensor([0, 2, 1, 0]), torch.rand(4)
    optimizer = sgd(model)

    def train(tape):
        optimizer.zero_grad()
        chosen = model(x).gather(1, actions[:, None])[:, 0]
        tape.note(actions=actions, returns=target)
        F.smooth_l1_loss(chosen, target).backward()
        optimizer.step()

    with (
        pytest.raises(RequirementError, match=r"watch\(\.\.\., step=lambda call, fields:"),
        watch(model, optimizer, F.smooth_l1_loss) as tape,
    ):
        train(tape)

    def step(call, fields):
        return F.smooth_l1_loss(call(fields["images"]).gather(1, fields["actions"][:, None])[:, 0], fields["returns"])

    with watch(model, optimizer, step=step) as tape:
        train(tape)
    assert {"images", "actions", "returns"} <= set(tape.batch.fields)
    check(tape)


def test_a_wrong_adaptor_is_refused():
    model, (x, y) = network(), data()
    optimizer = sgd(model)
    wrong = lambda call, fields: F.cross_entropy(call(fields["images"]), fields["labels"].flip(0))  # noqa: E731
    with pytest.raises(RequirementError, match="left unexplained"):
        one_step(model, optimizer, x, y, step=wrong)


def test_an_adaptor_sees_the_parameters():
    model, (x, y) = network(), data()
    optimizer = sgd(model)

    def step(call, fields):
        return F.cross_entropy(call(fields["images"]), fields["labels"]) + call.parameters["0.weight"].abs().sum()

    with watch(model, optimizer, step=step) as tape:
        (F.cross_entropy(model(x), y) + model[0].weight.abs().sum()).backward()
        optimizer.step()
    assert replay(tape.observation(), tape.batch).status == "exact"


def test_gradients_left_over_from_before_the_block_are_noticed():
    model, (x, y) = network(), data()
    optimizer = sgd(model)
    F.cross_entropy(model(data(seed=5)[0]), y).backward()
    with pytest.raises(RequirementError, match="left unexplained"):
        one_step(model, optimizer, x, y, loss_fn=F.cross_entropy)


@pytest.mark.parametrize("how", ["module", "function"])
def test_dropout_is_replayed_from_the_recorded_state(how):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.drop, self.b = nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 5)

        def forward(self, x):
            h = torch.relu(self.a(x.flatten(1)))
            return self.b(self.drop(h) if how == "module" else F.dropout(h, 0.5, training=self.training))

    model, (x, y) = seeded(Net), data()
    optimizer = sgd(model)
    with watch(model, optimizer, F.cross_entropy) as tape:
        for part in (slice(0, 2), slice(2, 4)):
            (F.cross_entropy(model(x[part]), y[part]) / 2).backward()
        optimizer.step()
    found = replay(tape.observation(), tape.batch, randomness=tape.randomness)
    assert found.status == "exact"
    assert replay(tape.observation(), tape.batch).status == "random"


def test_mixed_precision_is_exact_at_its_rounding():
    model, (x, y) = network(), data()
    optimizer = sgd(model)
    with watch(model, optimizer, F.cross_entropy) as tape:
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert 0 < tape.update.rounding < 0.05
    assert replay(tape.observation(), tape.batch).status == "exact"


def several(model, optimizer, *, clip=None, value=None, proximal=0.0, scheduler=None, sizes=(3, 1), epochs=2, l2=0.0):
    x, y = data()
    start = [p.detach().clone() for p in model.parameters()]
    with watch(model, optimizer, F.cross_entropy) as tape:
        for _ in range(epochs):
            for xs, ys in zip(x.split(sizes), y.split(sizes)):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(xs), ys)
                if proximal:
                    loss = loss + proximal / 2 * sum((p - s).square().sum() for p, s in zip(model.parameters(), start))
                if l2:
                    loss = loss + l2 / 2 * sum(p.square().sum() for p in model.parameters())
                loss.backward()
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                if value:
                    nn.utils.clip_grad_value_(model.parameters(), value)
                optimizer.step()
                if scheduler:
                    scheduler.step()
    return tape


OPTIMIZERS = {
    "weight decay": lambda m: sgd(m, weight_decay=0.1),
    "nesterov": lambda m: sgd(m, momentum=0.9, nesterov=True),
    "dampening": lambda m: sgd(m, momentum=0.9, dampening=0.3),
    "maximize": lambda m: sgd(m, maximize=True),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, betas=(0.8, 0.9)),
    "groups": lambda m: torch.optim.SGD(
        [{"params": m[0].parameters(), "lr": 0.01}, {"params": m[3].parameters(), "weight_decay": 0.1}], lr=0.1
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("sizes", [(3, 1), (1, 3)])
def test_several_local_steps(name, sizes):
    model = network()
    tape = several(model, OPTIMIZERS[name](model), sizes=sizes)
    assert tape.update.kind == "difference"
    assert tape.local.epochs == 2
    check(tape)


def test_several_local_steps_with_clipping_proximal_term_and_schedule():
    model = network()
    tape = several(model, sgd(model), clip=0.1)
    assert tape.local.clip_norm == pytest.approx(0.1, rel=1e-3)
    check(tape)
    model = network()
    tape = several(model, sgd(model), value=0.02)
    assert tape.local.clip_value == pytest.approx(0.02, rel=1e-3)
    check(tape)
    model = network()
    tape = several(model, sgd(model), proximal=0.5)
    assert tape.local.proximal == pytest.approx(0.5, rel=1e-2)
    check(tape)
    model = network()
    tape = several(model, sgd(model), l2=0.2)
    assert tape.local.l2 == pytest.approx(0.2, rel=1e-2)
    check(tape)
    model = network()
    optimizer = sgd(model)
    tape = several(model, optimizer, scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5))
    assert tape.local.learning_rates == pytest.approx((0.1, 0.05, 0.025, 0.0125))
    check(tape)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
def test_the_difference_of_one_step_of_adam(make):
    model, (x, y) = network(), data()
    optimizer = make(model.parameters(), lr=0.01)
    with watch(model, optimizer, F.cross_entropy, sends="difference") as tape:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert tape.local.sends == "difference"
    assert max(t.abs().max() for t in tape.update.tensors.values()) < 0.0102
    check(tape)


def test_noise_between_backward_and_step_is_recorded_and_stays_a_difference():
    model, (x, y) = network(), data()
    optimizer = sgd(model)
    with watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(x), y).backward()
        for p in model.parameters():
            p.grad += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
        optimizer.step()
    assert replay(tape.observation(), tape.batch).status == "differs"
