"""Soteria hides the columns that a loop over features says, of one layer, and an adversary leaves them out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from invertigo.defenses import Soteria, make
from invertigo.types import InvalidValueError

LAST = "5.weight"


def scores_by_loops(model, images):
    """Sum over examples of |d r_f / d x_n| / |r_fn|, one backward pass for each feature of each example."""
    body = model[:-1]
    total = np.zeros(model[-1].in_features)
    for n in range(len(images)):
        for f in range(len(total)):
            x = images[n : n + 1].clone().requires_grad_()
            value = body(x)[0, f]
            (slope,) = torch.autograd.grad(value, x)
            if value.item() != 0:
                total[f] += slope.norm().item() / abs(value.item())
            # A feature at zero sends nothing of this example.
    return total


@pytest.mark.parametrize("percentile", [30, 80.0])
@pytest.mark.parametrize("count", [1, 3])
def test_it_zeroes_the_columns_that_score_below_the_percentile(released, percentile, count):
    _, _, raw = released(None, count=count)
    task, batch, seen = released(Soteria(percentile=percentile), count=count)
    scores = scores_by_loops(task.model, batch["images"])
    hidden = torch.from_numpy(scores < np.percentile(scores, percentile))
    before, after = raw.observation.update.tensors, seen.observation.update.tensors
    assert hidden.any()
    assert torch.equal(after[LAST], before[LAST].masked_fill(hidden, 0.0))
    assert seen.traces[0].facts["hidden_features"] == pytest.approx(hidden.double().mean().item())


def test_it_touches_no_other_layer(released):
    before = released(None)[2].observation.update.tensors
    after = released(Soteria())[2].observation.update.tensors
    assert [name for name in before if not torch.equal(before[name], after[name])] == [LAST]


def relu_network():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, 4)).double()
    with torch.no_grad():
        model[1].bias[:8] = -100.0  # dead for every example
    return model


def test_dead_features_do_not_stop_it(released):
    _, batch, seen = released(Soteria(percentile=80), count=2, model=relu_network())
    live = (relu_network()[:3](batch["images"]) > 0).any(0)
    sent = seen.observation.update.tensors["3.weight"]
    kept = (sent != 0).any(0)
    assert not kept[~live].any()
    assert int(kept.sum()) == int(live.sum()) - int(np.ceil(0.8 * (int(live.sum()) - 1)))


def test_all_of_the_representation_can_be_hidden(released):
    sent = released(Soteria(percentile=100))[2].observation.update.tensors
    assert not sent[LAST].any()
    assert sent["5.bias"].any()


def test_an_adversary_leaves_out_what_is_hidden(released):
    defense = Soteria()
    _, _, seen = released(defense)
    visible = defense.adversary_view(seen.observation).visible
    assert visible is not None
    assert list(visible) == [LAST]
    assert torch.equal(visible[LAST] == 0, seen.observation.update.tensors[LAST] == 0)


def test_knowing_it_pays(attacked):
    naive, informed = attacked(Soteria())
    assert informed > naive + 2


@pytest.mark.parametrize("percentile", [0, -1, 101])
def test_a_share_outside_the_scale_is_refused(percentile):
    with pytest.raises(InvalidValueError, match="hidden"):
        make("soteria", percentile=percentile)


def test_a_model_without_a_linear_classifier_is_refused(released):
    model = nn.Sequential(nn.Conv2d(1, 4, 16), nn.Flatten()).double()
    with pytest.raises(InvalidValueError, match="representation"):
        released(Soteria(), model=model)
