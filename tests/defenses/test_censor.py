"""CENSOR does what its algorithm says, its weak spots are real, and adversaries who know it use them."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from invertigo import data, defenses, models
from invertigo.attacks import infer_labels
from invertigo.attacks.releases import mean_update
from invertigo.domains import Images
from invertigo.federation import train_locally
from invertigo.federation.observe import observe_round
from invertigo.types import Batch, InvalidValueError, LocalTraining, Task, Update

DIGITS = data.load("digits")


def client(count=1, first=0, *, classes=10, model="lenet"):
    network = models.build(
        model, input_shape=(1, 8, 8), num_classes=classes, generator=torch.Generator().manual_seed(0)
    )
    chosen = (DIGITS.labels < classes).nonzero()[first : first + count, 0]
    batch = Batch({"images": DIGITS.images[chosen].float(), "labels": DIGITS.labels[chosen]})
    return Task(network, F.cross_entropy, Images((1, 8, 8)), classes), batch


def see(task, batch, defense, *, seed=0, releases=1, local=None, level=1):
    return observe_round(
        task, batch, local or LocalTraining(), level=level, defense=defense, releases=releases,
        secret=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def cosine(left, right):
    left, right = left.double().flatten(), right.double().flatten()
    return float(left @ right / (left.norm() * right.norm()))


def raw_of(task, batch, local=None):
    return train_locally(task, batch, local or LocalTraining()).tensors


def bias_of(tensors):
    return tensors[[name for name in tensors if name.endswith("bias")][-1]]


@pytest.mark.parametrize("fallback", ["best_trial", "raw"])
def test_each_layer_is_at_right_angles_and_as_long_as_the_gradient(fallback):
    task, batch = client(model="mlp")
    raw = raw_of(task, batch)
    defense = defenses.Censor(fallback=fallback, step_size=0.1)  # where some trial mostly lowers the loss
    kept = 0
    for seed in range(6):
        round_ = see(task, batch, defense, seed=seed)
        if round_.traces[0].facts["fallbacks"] and fallback == "raw":
            continue
        kept += 1
        for name, sent in round_.observation.update.tensors.items():
            assert abs(cosine(sent, raw[name])) < 1e-6
            assert sent.norm().item() == pytest.approx(raw[name].norm().item(), rel=1e-5)
        assert round_.traces[0].facts["worst_layer_cosine"] < 1e-6
    assert kept >= 3


def test_the_authors_code_is_not_orthogonal_and_leans_towards_the_gradient():
    task, batch = client()
    traces = [see(task, batch, defenses.Censor(projection="released"), seed=seed).traces[0] for seed in range(5)]
    layers = [abs(c) for trace in traces for c in trace.layer_cosines.values()]
    assert sum(layers) / len(layers) > 0.02
    assert max(layers) > 0.2
    assert sum(trace.cosine for trace in traces) / len(traces) > 0.02
    assert not any(trace.undefended for trace in traces)


def test_the_trial_of_least_loss_is_taken():
    task, batch = client()
    (one,) = see(task, batch, defenses.Censor(trials=1, step_size=0.1)).traces
    losses = {}
    for trials in (1, 30):
        sent = see(task, batch, defenses.Censor(trials=trials, step_size=0.1)).observation.update.tensors
        moved = {name: p.detach() - 0.1 * sent[name] for name, p in task.model.named_parameters()}
        output = torch.func.functional_call(task.model, moved, (batch["images"],))
        losses[trials] = F.cross_entropy(output, batch["labels"]).item()
    assert losses[30] < losses[1]
    assert one.facts["trials"] == 1


def quadratic_client():
    """A model whose loss no orthogonal step lowers: it is convex in the parameters."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    batch = Batch({"images": DIGITS.images[:2].float(), "labels": DIGITS.labels[:2]})
    return Task(model, F.cross_entropy, Images((1, 8, 8)), 10), batch


@pytest.mark.parametrize("fallback", ["best_trial", "skip", "noise"])
def test_the_true_gradient_is_never_sent_unless_asked_for(fallback):
    task, batch = quadratic_client()
    raw = raw_of(task, batch)
    round_ = see(task, batch, defenses.Censor(fallback=fallback, trials=5))
    sent, trace = round_.observation.update.tensors, round_.traces[0]
    assert trace.facts["fallbacks"] == 1
    assert not trace.undefended
    lengths = {name: sent[name].norm().item() / raw[name].norm().item() for name in raw}
    if fallback == "skip":
        assert not any(lengths.values())
    else:
        assert all(ratio == pytest.approx(1, rel=1e-5) for ratio in lengths.values())
    orthogonal = all(abs(c) < 1e-6 for c in trace.layer_cosines.values())
    assert orthogonal == (fallback != "noise")


def test_the_published_fallback_sends_the_true_gradient_and_an_adversary_tells():
    task, batch = quadratic_client()
    defense = defenses.Censor(fallback="raw", trials=5)
    round_ = see(task, batch, defense)
    assert round_.traces[0].undefended
    view = defense.adversary_view(round_.observation)
    assert view.visible is None
    for name, tensor in raw_of(task, batch).items():
        assert torch.equal(round_.observation.informed(view).update.tensors[name], tensor)


def test_the_default_never_releases_the_true_gradient_where_the_published_algorithm_does():
    task, batch = client()
    raw_ones = {}
    for fallback in ("raw", "best_trial"):
        traces = [see(task, batch, defenses.Censor(fallback=fallback), seed=seed).traces[0] for seed in range(4)]
        assert all(t.facts["fallbacks"] for t in traces), "an untrained LeNet's loss rises with every trial"
        raw_ones[fallback] = sum(t.undefended for t in traces)
    assert raw_ones == {"raw": 4, "best_trial": 0}


def test_true_gradients_are_picked_out_among_made_up_ones():
    task, batch = client(3)
    defense = defenses.Censor(fallback="raw", trials=3)
    seen = see(task, batch, defenses.Censor(trials=3), releases=3).observation
    raw = Update(raw_of(task, batch), "gradient")
    mixed = dataclasses.replace(seen, releases=(seen.releases[0], raw, seen.releases[2]))
    view = defense.adversary_view(mixed)
    assert "1 of 3" in view.knows
    assert all(torch.allclose(view.update.tensors[name], raw.tensors[name]) for name in raw.tensors)
    assert "determines" in defense.adversary_view(seen).knows, "an orthogonal release was taken for a true gradient"


def test_true_updates_are_picked_out_after_several_local_steps_too():
    task, batch = quadratic_client()
    local = LocalTraining(sends="difference", epochs=2, batch_size=1)
    defense = defenses.Censor(fallback="raw", trials=3)
    round_ = see(task, batch, defense, local=local)
    assert round_.traces[0].undefended
    assert "1 of 1" in defense.adversary_view(round_.observation).knows
    hidden = see(task, batch, defenses.Censor(trials=3), local=local).observation
    assert "which their sum is not" in defense.adversary_view(hidden).knows


def test_after_the_last_protected_round_true_gradients_are_sent_and_used():
    task, batch = client()
    defense = defenses.Censor(trials=2, epochs=2)
    round_ = see(task, batch, defense, releases=4)
    assert [trace.undefended for trace in round_.traces] == [False, False, True, True]
    assert round_.traces[3].facts["unprotected"] == 1
    informed = round_.observation.informed(defense.adversary_view(round_.observation))
    assert cosine(bias_of(informed.update.tensors), bias_of(raw_of(task, batch))) == pytest.approx(1)


@pytest.mark.parametrize("local", [LocalTraining(), LocalTraining(sends="difference", learning_rate=0.3)])
def test_nine_releases_give_away_the_classifiers_bias_gradient_and_the_label(local):
    defense = defenses.Censor(trials=1)
    right = {5: 0, 9: 0}
    for first in range(10):
        task, batch = client(1, first)
        raw = bias_of(raw_of(task, batch, local))
        seen = see(task, batch, defense, releases=9, local=local, seed=first).observation
        for releases in right:
            some = dataclasses.replace(seen, releases=seen.releases[:releases])
            informed = some.informed(defense.adversary_view(some))
            found = bias_of(informed.update.tensors)
            if releases == 9:
                assert cosine(found, raw) > 0.99
                assert found.norm().item() == pytest.approx(raw.norm().item(), rel=1e-4)
                assert not {n for n in informed.knowledge.view.visible if n.endswith("head.bias")}
            else:
                assert abs(cosine(found, raw)) < 1e-6
                assert set(informed.knowledge.view.visible) == set(raw_of(task, batch))
            right[releases] += infer_labels(informed).labels.tolist() == batch["labels"].tolist()
    assert right[9] == 10
    assert right[5] <= 4


def test_labels_of_a_batch_follow_from_the_bias_gradient_alone():
    defense = defenses.Censor(trials=1)
    for first in (0, 8, 16):
        task, batch = client(8, first)
        seen = see(task, batch, defense, releases=9, seed=first).observation
        guess = infer_labels(seen.informed(defense.adversary_view(seen)))
        assert guess.labels.tolist() == batch["labels"].sort().values.tolist()


def test_joining_small_layers_stops_that():
    task, batch = client()
    defense = defenses.Censor(trials=1, group=64)
    seen = see(task, batch, defense, releases=20).observation
    view = defense.adversary_view(seen)
    assert set(view.visible) == set(seen.parameters)
    alone = dataclasses.replace(defense, group=0)
    open_ones = see(task, batch, alone, releases=20).observation
    assert len(alone.adversary_view(open_ones).visible) <= len(seen.parameters) - 4


def test_layers_of_open_sign_are_matched_up_to_their_sign():
    task, batch = client()
    defense = defenses.Censor(trials=1)
    seen = see(task, batch, defense, releases=15).observation
    view, raw = defense.adversary_view(seen), raw_of(task, batch)
    flipped = {name: -tensor[None] for name, tensor in raw.items()}
    made = view.surrogate(flipped)
    known = [name for name in raw if name not in view.visible and not name.endswith("head.bias")]
    assert len(known) >= 3
    for name in known:
        assert cosine(made[name], view.update.tensors[name]) == pytest.approx(1, abs=1e-5)


def test_two_classes_need_one_release_and_leave_the_sign_open():
    task, batch = client(classes=2)
    defense = defenses.Censor(trials=1)
    seen = see(task, batch, defense).observation
    view = defense.adversary_view(seen)
    assert abs(cosine(bias_of(view.update.tensors), bias_of(raw_of(task, batch)))) == pytest.approx(1, abs=1e-5)


def test_averaging_helps_against_the_authors_code_only():
    task, batch = client()
    raw = raw_of(task, batch)
    flat = torch.cat([t.flatten() for t in raw.values()])
    reached = {}
    for projection in ("released", "eq12"):
        seen = see(task, batch, defenses.Censor(projection=projection, trials=5), releases=20, seed=1).observation
        for rounds in (1, 20):
            mean = mean_update(seen.releases[:rounds]).tensors
            reached[projection, rounds] = cosine(torch.cat([t.flatten() for t in mean.values()]), flat)
    assert reached["released", 20] > reached["released", 1] + 0.2
    assert reached["released", 20] > 0.4
    assert abs(reached["eq12", 20]) < 1e-6
    view = defenses.Censor(projection="released").adversary_view(
        see(task, batch, defenses.Censor(projection="released", trials=2), releases=4).observation
    )
    assert view.visible is None
    for name, tensor in view.update.tensors.items():
        assert tensor.norm().item() == pytest.approx(raw[name].norm().item(), rel=1e-4)


def learn(defense, steps=40):
    """Accuracy of a small network whose every step goes along the release, and how often that was the true gradient."""
    task, _ = client(model="mlp")
    network, draws, secret = task.model, torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    undefended = 0
    for _ in range(steps):
        chosen = torch.randint(1300, (64,), generator=draws)
        batch = Batch({"images": DIGITS.images[chosen].float(), "labels": DIGITS.labels[chosen]})
        round_ = observe_round(
            Task(network, F.cross_entropy, task.domain, 10), batch, LocalTraining(), level=1,
            defense=defense, secret=secret,
        )  # fmt: skip
        undefended += all(trace.undefended for trace in round_.traces)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter -= 0.3 * round_.observation.update.tensors[name]
    right = network(DIGITS.images[1300:].float()).argmax(1) == DIGITS.labels[1300:]
    return right.float().mean().item(), undefended / steps


def test_a_network_trained_on_releases_learns_only_where_they_are_the_true_gradient():
    plain, _ = learn(None)
    orthogonal, _ = learn(defenses.Censor(trials=3))
    published, raw_share = learn(defenses.Censor(trials=3, fallback="raw"))
    assert plain > 0.65
    assert orthogonal < 0.3
    assert published > 0.5
    assert raw_share > 0.5


def test_an_adversary_cannot_use_contaminated_releases():
    """Noise among the releases hides the direction that the others avoid, and the adversary notices."""
    task, batch = quadratic_client()
    defense = defenses.Censor(fallback="noise", trials=1)
    seen = see(task, batch, defense, releases=12).observation
    assert "0.bias" not in seen.parameters
    assert set(defense.adversary_view(seen).visible) == set(seen.parameters)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"trials": 0}, "nothing to release but the true gradient"),
        ({"trials": 2.5}, "whole number"),
        ({"fallback": "best"}, "raw, best_trial, skip, noise"),
        ({"projection": "exact"}, "eq12, released"),
        ({"step_size": 0.0}, "must be positive"),
        ({"epochs": 0}, "every true gradient is sent"),
        ({"group": -1}, "fewer than 0"),
    ],
)
def test_settings_that_would_not_protect_are_refused(untyped, settings, told):
    with pytest.raises(InvalidValueError, match=told):
        defenses.Censor(**settings)
