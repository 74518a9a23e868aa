"""A malicious server plants parameters; nothing else of the client changes."""

import pytest
import torch

from invertigo.federation import observe, send, train_locally
from invertigo.testing import easy_client
from invertigo.types import InvalidValueError, MismatchError, Plant


def test_the_client_trains_on_what_was_planted_and_the_honest_model_stays():
    client = easy_client()
    before = {k: v.clone() for k, v in client.task.model.state_dict().items()}
    plant = Plant("test", {"5.weight": torch.zeros_like(before["5.weight"])})
    seen = observe(client.task, client.batch, client.local, level=5, plant=plant)
    assert not seen.parameters["5.weight"].any()
    assert torch.equal(seen.parameters["3.weight"], before["3.weight"])
    assert not seen.update.tensors["3.weight"].any()  # a zero head passes no gradient down
    assert seen.knowledge.labels is None
    assert seen.knowledge.plant is plant
    assert all(torch.equal(before[k], v) for k, v in client.task.model.state_dict().items())


def test_clients_can_be_sent_different_models_and_are_summed():
    client = easy_client()
    bias = torch.zeros(4, dtype=torch.float64)
    plant = Plant("test", {}, per_client=({"5.bias": bias}, {"5.bias": bias + torch.arange(4)}))
    halves = client.batch.select([0, 1]), client.batch.select([2, 3])
    seen = observe(client.task, halves[0], client.local, level=5, plant=plant, others=[halves[1]])
    own = [train_locally(send(client.task, plant, i), half, client.local).tensors for i, half in enumerate(halves)]
    for name, tensor in seen.update.tensors.items():
        torch.testing.assert_close(tensor, (own[0][name] + own[1][name]) / 2)
    assert seen.num_examples == 4


def test_a_plant_must_fit_the_architecture_and_belongs_to_rung_5():
    client = easy_client()
    for state in ({"9.weight": torch.zeros(1)}, {"5.bias": torch.zeros(7)}, {}):
        with pytest.raises(MismatchError):
            send(client.task, Plant("test", state))
    with pytest.raises(InvalidValueError, match="craft the model first"):
        observe(client.task, client.batch, client.local, level=5)
    with pytest.raises(InvalidValueError, match="rung 5"):
        observe(client.task, client.batch, client.local, level=1, plant=Plant("test", {"5.bias": torch.zeros(4)}))
