"""What a watched block trained must be what is audited; loops that compute gradients their own way are read."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invertigo.federation import replay, watch
from invertigo.federation.block_checks import check_hooks
from invertigo.federation.passes import filled, read_call
from invertigo.types import InvalidValueError, RequirementError


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 4))


def data(n=2):
    g = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 6, 6, generator=g), torch.randint(0, 4, (n,), generator=g)


def gradient(model, x, y, loss=F.cross_entropy):
    """The oracle: autograd's gradient of a copy, by name."""
    model = copy.deepcopy(model)
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss(model(x), y), list(model.parameters()))))


def watched(model, optimizer, loss, block, **options):
    with watch(model, optimizer, loss, **options):
        block()


def check(tape, wanted):
    for name, value in wanted.items():
        torch.testing.assert_close(tape.update.tensors[name], value)
    assert replay(tape.observation(), tape.batch).status == "exact"


@pytest.mark.parametrize("first", [0, 1])
def test_parameters_that_another_optimizer_trains_are_not_left_out_in_silence(first):
    model, (x, y) = network(), data()
    head = torch.optim.SGD(model[3].parameters(), lr=0.1)
    body = torch.optim.SGD(model[1].parameters(), lr=1e-6)  # too small a change to show in a replay

    def block():
        F.cross_entropy(model(x), y).backward()
        for optimizer in ((head, body), (body, head))[first]:
            optimizer.step()

    with pytest.raises(RequirementError, match=r"also trained '1\.weight', '1\.bias'.*requires_grad_\(False\)"):
        watched(model, head, F.cross_entropy, block)


def test_what_the_optimizer_trains_outside_the_model_is_not_left_out_in_silence():
    model, head, (x, y) = network(), nn.Linear(4, 3), data()
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=1e-6)

    def loss(output, target):
        return F.cross_entropy(head(output), target % 3)

    def block():
        loss(model(x), y).backward()
        optimizer.step()

    with pytest.raises(RequirementError, match=r"tensor \(3, 4\).*outside the watched model"):
        watched(model, optimizer, loss, block)


def test_an_average_that_the_model_keeps_of_itself_is_taken_as_it_was_sent():
    model, (x, y) = network(), data()
    teacher = copy.deepcopy(model).requires_grad_(False)
    model.add_module("4", nn.Identity())
    model[4].teacher = teacher
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        with torch.no_grad():
            for kept, own in zip(teacher.parameters(), model.parameters()):
                kept.lerp_(own, 0.5)
    for name, value in tape.task.model.named_parameters():
        assert torch.equal(value, before[name]), name


def test_gradients_of_autograd_grad_are_read():
    model, (x, y) = network(), data()
    wanted, optimizer = gradient(model, x, y), torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, F.cross_entropy) as tape:
        loss = F.cross_entropy(model(x), y)
        for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters()))):
            p.grad = g
        optimizer.step()
    check(tape, wanted)


def test_gradients_of_torch_func_are_read():
    model, (x, y) = network(), data()
    wanted, optimizer = gradient(model, x, y), torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(parameters):
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    with watch(model, optimizer, F.cross_entropy) as tape:
        found = torch.func.grad(loss)({n: p.detach() for n, p in model.named_parameters()})
        for name, p in model.named_parameters():
            p.grad = found[name]
        optimizer.step()
    check(tape, wanted)


def test_gradients_made_by_hand_of_something_else_are_refused():
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def block():
        loss = F.cross_entropy(model(x), y)
        for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters()))):
            p.grad = g + 0.01 * torch.ones_like(g)
        optimizer.step()

    with pytest.raises(RequirementError, match="cannot be repeated"):
        watched(model, optimizer, F.cross_entropy, block)


def test_an_optimizer_that_extends_another_takes_one_step():
    class Centred(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    model, (x, y) = network(), data()
    wanted, optimizer = gradient(model, x, y), Centred(model.parameters(), lr=0.1)
    with watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert tape.local.sends == "gradient"
    check(tape, wanted)


@pytest.mark.parametrize("which", ["optimizer", "model"])
def test_what_has_no_hooks_is_refused_with_the_way_out(which):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InvalidValueError, match=r"audit\(model, loss_fn, batch\)"):
        check_hooks(*((model, None) if which == "optimizer" else (model.forward, optimizer)))


@pytest.mark.parametrize("thrown", ["no backward", "zero_grad"])
def test_a_batch_of_which_nothing_was_sent_is_no_part_of_the_audit(thrown):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Sigmoid(), nn.Flatten(), nn.Linear(48, 4))
    (x, y), optimizer = data(6), torch.optim.SGD(model.parameters(), lr=0.1)
    wanted, features = gradient(model, x[3:], y[3:]), model[0](x[3:])
    with watch(model, optimizer, F.cross_entropy) as tape:
        loss = F.cross_entropy(model(x[:3]), y[:3])
        if thrown == "zero_grad":
            loss.backward()
            optimizer.zero_grad()
        F.cross_entropy(model(x[3:]), y[3:]).backward()
        optimizer.step()
    check(tape, wanted)
    assert torch.equal(tape.batch["images"], x[3:])
    mean, _ = tape.observation(level=2).knowledge.batch_statistics["1"]
    torch.testing.assert_close(mean, features.mean((0, 2, 3)))


@pytest.mark.parametrize("own", [True, False])
def test_a_loss_with_a_value_for_each_example_may_be_summed_by_the_loop(own):
    model, (x, y) = network(), data(3)
    loss = nn.CrossEntropyLoss(reduction="none")
    wanted, optimizer = gradient(model, x, y, lambda o, t: loss(o, t).sum() / 50), torch.optim.SGD(model.parameters())
    with watch(model, optimizer, loss if own else None) as tape:
        (loss(model(x), y).sum() / 50).backward()
        optimizer.step()
    check(tape, wanted)


def test_containers_that_look_at_what_they_hold_are_recorded():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, images, packed):
            return self.head(self.layer(packed)[1][0][-1] + images.mean())

    lengths, rows = torch.tensor([4, 2]), torch.rand(2, 4, 5)
    packed = nn.utils.rnn.pack_padded_sequence(rows, lengths, batch_first=True)
    tensors, args, _ = read_call(Recurrent(), (torch.rand(2, 1, 2, 2), packed), {})
    again = filled(args, tensors)[1]
    assert torch.equal(again.data, packed.data)
    assert torch.equal(again.batch_sizes, packed.batch_sizes)


def test_accumulation_is_not_read_as_a_difference_and_the_refusal_says_what_to_leave_out():
    model, (x, y) = network(), data(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def block():
        for one in range(2):
            F.cross_entropy(model(x[one : one + 1]), y[one : one + 1]).backward()
        optimizer.step()

    with pytest.raises(RequirementError, match="Leave sends='difference' out"):
        watched(model, optimizer, F.cross_entropy, block, sends="difference")


def test_a_model_that_does_not_run_again_is_said_to_be_the_reason():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(36, 16).bfloat16(), nn.Linear(16, 4)

        def forward(self, x):
            return self.b(self.a(x.flatten(1).bfloat16()).float())

    model, (x, y) = Mixed(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def block():
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    with pytest.raises(RequirementError, match="running it again raised RuntimeError"):
        watched(model, optimizer, F.cross_entropy, block)


def test_gradients_that_the_optimizer_does_not_hold_are_told():
    model, (x, y) = network(), data()
    optimizer = torch.optim.SGD(model[3].parameters(), lr=0.1)
    with watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert set(tape.unwatched) == {"1.weight", "1.bias"}
    model[1].requires_grad_(False)
    optimizer.zero_grad()
    with watch(model, optimizer, F.cross_entropy) as tape:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert not tape.unwatched
