"""What only a model's `forward` shows is seen by running it on made-up examples."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import invertigo
from invertigo.domains import Images
from invertigo.federation import draws_randomly, functional_update, mode_matters, native_level, observe, simulating
from invertigo.types import Batch, ConfigurationError, LocalTraining, Task, buffers_of, trainable

SHAPE = (1, 6, 6)


class Net(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.draw, self.layer = draw, nn.Linear(36, 4)

    def forward(self, x):
        return self.layer(self.draw(x.flatten(1), self.training))


DRAWS = {
    "nothing": (lambda x, training: x, False, False),
    "dropout": (lambda x, training: F.dropout(x, 0.5, training=training), True, True),
    "dropout that never ends": (lambda x, training: F.dropout(x, 0.5), False, True),
    "noise": (lambda x, training: x + torch.randn_like(x) if training else x, True, True),
}


def task_of(draw) -> Task:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Task(Net(draw), F.cross_entropy, Images(SHAPE), 4)


@pytest.mark.parametrize("name", DRAWS)
def test_functional_randomness_is_seen(name):
    draw, matters, draws = DRAWS[name]
    task, state = task_of(draw), torch.get_rng_state()
    assert mode_matters(task) == matters
    assert draws_randomly(task, "train") == draws
    assert (int(native_level(task, LocalTraining(mode="eval"))) == 3) == matters
    assert torch.equal(state, torch.get_rng_state())
    assert task.model.training


def test_dropout_is_simulated_alike_as_a_module_and_as_a_function():
    batch = {"images": torch.rand(3, *SHAPE), "labels": torch.tensor([0, 1, 2])}

    def simulated(draw):
        task = task_of(draw)
        with simulating(task.model, "train"):
            return functional_update(task, trainable(task.model), buffers_of(task.model), LocalTraining(), 3)(batch)

    plain = simulated(DRAWS["nothing"][0]).update
    for draw in (DRAWS["dropout"][0], DRAWS["dropout that never ends"][0]):
        for name, tensor in simulated(draw).update.items():
            assert torch.equal(tensor, plain[name])


@pytest.mark.parametrize("layer", [nn.MultiheadAttention(8, 2, dropout=0.5), nn.LSTM(8, 8, 2, dropout=0.5)])
def test_dropout_of_attention_and_recurrent_layers_is_off(layer):
    x = torch.rand(5, 3, 8)
    layer.train()
    with simulating(layer, "train"):
        one, other = ((layer(x, x, x) if isinstance(layer, nn.MultiheadAttention) else layer(x))[0] for _ in range(2))
    layer.eval()
    expected = (layer(x, x, x) if isinstance(layer, nn.MultiheadAttention) else layer(x))[0]
    assert torch.equal(one, other)
    torch.testing.assert_close(one, expected)


def test_noise_in_the_forward_pass_is_one_fixed_draw_in_simulation():
    task = task_of(DRAWS["noise"][0])
    batch = {"images": torch.rand(3, *SHAPE), "labels": torch.tensor([0, 1, 2])}
    found = []
    for _ in range(2):
        torch.rand(7)  # whatever else draws in between
        with simulating(task.model, "train"):
            simulate = functional_update(task, trainable(task.model), buffers_of(task.model), LocalTraining(), 3)
            found += [simulate(batch).update, simulate(batch).update]
    assert all(torch.equal(one["layer.weight"], found[0]["layer.weight"]) for one in found)


def test_an_l2_term_is_taken_off_what_attacks_see():
    task, batch = task_of(DRAWS["nothing"][0]), Batch({"images": torch.rand(2, *SHAPE), "labels": torch.tensor([0, 1])})
    plain = observe(task, batch, LocalTraining(), level=1)
    seen = observe(task, batch, LocalTraining(l2=0.3), level=1)
    for name, tensor in plain.update.tensors.items():
        torch.testing.assert_close(seen.update.tensors[name], tensor)
    assert seen.local == plain.local


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.pixels, self.meta = nn.Linear(36, 4), nn.Linear(3, 4)

    def forward(self, x, meta):
        return self.pixels(x.flatten(1)) + self.meta(meta)


def test_a_second_input_is_told_to_the_attacks_and_said():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Two().eval()
    batch = {"images": torch.rand(1, *SHAPE), "labels": torch.tensor([2]), "meta": torch.rand(1, 3)}
    with pytest.raises(ConfigurationError, match="'meta'"):
        invertigo.audit(model, F.cross_entropy, batch, budget="5s")

    def step(call, fields):
        return F.cross_entropy(call(fields["images"], fields["meta"]), fields["labels"])

    found = invertigo.audit(model, None, batch, step=step, budget="20s", levels=[1], decoys=5)
    assert "fields_assumed_known" in [flag.code for flag in found.flags]
    assert {record.name: record.status for record in found.record.controls}["replay"] == "passed"
