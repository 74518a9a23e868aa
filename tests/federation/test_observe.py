"""Each rung of the ladder holds what it says, and nothing more."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invertigo.domains import Images
from invertigo.federation import mode_matters, native_level, observe, statistics_from_buffers, train_locally
from invertigo.types import Batch, InvalidValueError, LocalTraining, RequirementError, Task, ThreatLevel


def network(norm: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, momentum=0.03) if norm is None else norm
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double()


def task_of(model) -> Task:
    return Task(model, F.cross_entropy, Images((3, 8, 8)), 5)


def some_batch(n=4, seed=1) -> Batch:
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, 8, 8, generator=g, dtype=torch.float64)
    return Batch({"images": images, "labels": torch.randint(0, 5, (n,), generator=g)})


def true_statistics(model, batch):
    features = model[0](batch["images"]).detach()
    return features.mean((0, 2, 3)), features.var((0, 2, 3), unbiased=False)


def test_knowledge_grows_with_the_rung():
    task, batch, public = task_of(network()), some_batch(), some_batch(9, seed=5)
    known = {k: observe(task, batch, LocalTraining(), level=k, public=public).knowledge for k in (1, 2, 3, 4)}
    assert known[1].labels is None
    assert known[1].batch_statistics is None
    for level in (2, 3, 4):
        assert torch.equal(known[level].labels, batch["labels"])
        assert known[level].batch_statistics is not None
    assert [known[k].public is None for k in (1, 2, 3, 4)] == [True, True, True, False]
    assert all(k.num_examples == 4 for k in known.values())


def test_rung_two_knows_the_exact_batch_statistics():
    model, batch = network(), some_batch()
    mean, variance = observe(task_of(model), batch, LocalTraining(), level=2).knowledge.batch_statistics["1"]
    expected = true_statistics(model, batch)
    torch.testing.assert_close(mean, expected[0])
    torch.testing.assert_close(variance, expected[1])


def test_no_hook_is_left_on_the_model():
    model = network()
    observe(task_of(model), some_batch(), LocalTraining(), level=2)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_rung_three_recomputes_in_inference_mode_unless_statistics_are_shared():
    task, batch = task_of(network()), some_batch()
    what_if = observe(task, batch, LocalTraining(), level=3)
    assert what_if.local.mode == "eval"
    in_eval = train_locally(task, batch, LocalTraining(mode="eval"))
    assert torch.equal(what_if.update.tensors["0.weight"], in_eval.tensors["0.weight"])
    sharing = observe(task, batch, LocalTraining(shares_buffers=True), level=3)
    assert sharing.local.mode == "train"
    assert sharing.update.buffers is not None


def test_aggregate_is_the_gradient_of_all_examples_together():
    task = task_of(network(nn.Identity()))
    batches = [some_batch(n, seed=n) for n in (2, 3, 4)]
    seen = observe(task, batches[0], LocalTraining(), level=0, clients=3, others=batches[1:])
    everyone = Batch({k: torch.cat([b[k] for b in batches]) for k in ("images", "labels")})
    together = train_locally(task, everyone, LocalTraining())
    for name, tensor in together.tensors.items():
        torch.testing.assert_close(seen.update.tensors[name], tensor)
    assert seen.knowledge.num_examples == 9
    assert seen.knowledge.labels is None


def test_aggregate_of_local_steps_is_modelled_with_as_many_steps():
    local = LocalTraining(sends="difference", batch_size=2)
    seen = observe(task_of(network()), some_batch(4), local, level=0, others=[some_batch(4, seed=2)])
    assert len(seen.local.steps(seen.num_examples)) == len(local.steps(4))


@pytest.mark.parametrize(
    ("layer", "matters"),
    [
        (nn.BatchNorm2d(4), True),
        (nn.BatchNorm2d(4, track_running_stats=False), False),
        (nn.GroupNorm(2, 4), False),
        (nn.InstanceNorm2d(4, track_running_stats=True), True),
        (nn.Dropout(0.1), True),
        (nn.Dropout(0.0), False),
        (nn.TransformerEncoderLayer(4, 2, dropout=0.0), False),
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
    ],
)
def test_layers_for_which_the_mode_matters(layer, matters):
    assert mode_matters(nn.Sequential(layer)) is matters


def test_native_rung():
    batchnorm, plain = task_of(network()), task_of(network(nn.Identity()))
    assert native_level(batchnorm, LocalTraining()) is ThreatLevel.UPDATE
    assert native_level(batchnorm, LocalTraining(mode="eval")) is ThreatLevel.INFERENCE_MODE
    assert native_level(batchnorm, LocalTraining(shares_buffers=True)) is ThreatLevel.INFERENCE_MODE
    assert native_level(plain, LocalTraining(mode="eval", shares_buffers=True)) is ThreatLevel.UPDATE


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"level": 5}, "no rung 5"),
        ({"level": 1, "local": LocalTraining(mode="eval")}, "already gives rung 3"),
        ({"level": 0}, "no other batch"),
        ({"level": 0, "clients": 4, "others": [some_batch(2)]}, "clients=4"),
        ({"level": 4}, "public"),
    ],
)
def test_impossible_rungs_are_refused(arguments, match):
    with pytest.raises(InvalidValueError, match=match):
        observe(task_of(network()), some_batch(), **{"local": LocalTraining()} | arguments)


@pytest.mark.parametrize("momentum", [0.1, 0.03, None])
@pytest.mark.parametrize("rounds_before", [0, 3])
def test_statistics_are_read_from_shared_buffers(momentum, rounds_before):
    model, batch = network(nn.BatchNorm2d(4, momentum=momentum)), some_batch()
    for seed in range(rounds_before):
        model.train()(some_batch(5, seed=seed + 10)["images"])
    seen = observe(task_of(model), batch, LocalTraining(shares_buffers=True), level=3)
    mean, variance = statistics_from_buffers(seen)["1"]
    expected = true_statistics(model, batch)
    torch.testing.assert_close(mean, expected[0])
    torch.testing.assert_close(variance, expected[1])


@pytest.mark.parametrize(
    ("local", "match"),
    [
        (LocalTraining(), "shares no buffers"),
        (LocalTraining(sends="difference", batch_size=2, shares_buffers=True), "updated 2 times"),
        (LocalTraining(mode="eval", shares_buffers=True), "inference mode"),
    ],
)
def test_buffers_that_do_not_hold_one_batch_are_refused(local, match):
    seen = observe(task_of(network()), some_batch(), local, level=3 if local.shares_buffers else 1)
    with pytest.raises(RequirementError, match=match):
        statistics_from_buffers(seen)
