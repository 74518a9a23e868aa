import pytest
from torch import nn
from torch.nn import functional as F

from invertigo import models
from invertigo.auditing.portfolio import choose, is_small
from invertigo.auditing.scenario import AttackSection
from invertigo.domains import Images
from invertigo.types import ConfigurationError, Task, UnknownNameError

SHAPE = (1, 16, 16)


def task(name, **options):
    return Task(models.build(name, input_shape=SHAPE, num_classes=4, **options), F.cross_entropy, Images(SHAPE), 4)


def names(*arguments):
    return [entry.name for entry in choose(*arguments)]


def test_the_audits_own_choice_starts_with_the_exact_attacks_and_repeats_nothing():
    chosen = names("auto", task("lenet"), 4)
    assert chosen[0] == "linear_layer"
    assert "inverting_gradients" in chosen
    assert not {"auto", "dlg", "idlg"} & set(chosen)


def test_second_order_matching_is_for_small_models_with_or_without_kinks():
    assert "gauss_newton" in names("auto", task("lenet"), 4)
    assert "gauss_newton" not in names("auto", task("resnet"), 4)
    assert is_small(task("lenet"), 4)
    assert not is_small(task("lenet"), 1000)
    assert "gauss_newton" in names("auto", task("mlp"), 4)  # ReLU


def test_attacks_on_batch_statistics_need_batchnorm():
    assert "see_through_gradients" in names(None, task("convnet"), 4)
    assert "see_through_gradients" not in names(None, task("lenet"), 4)


def test_named_attacks_take_their_hyperparameters_and_exact_ones_still_go_first():
    wanted = ["inverting_gradients", {"name": "gauss_newton", "iterations": 7}, "linear_layer"]
    first, second, third = choose(wanted, task("lenet"), 4)
    assert first.name == "linear_layer"
    assert (second.name, second.pinned) == ("inverting_gradients", False)
    assert (third.attack.iterations, third.pinned) == (7, True)
    (section,) = choose([AttackSection(name="dlg", restarts=3)], task("lenet"), 4)
    assert section.attack.restarts == 3


def test_typos_get_a_suggestion():
    with pytest.raises(UnknownNameError, match="Did you mean 'gauss_newton'"):
        choose(["gaus_newton"], task("lenet"), 1)
    with pytest.raises(ConfigurationError, match="Did you mean 'iterations'"):
        choose([{"name": "gauss_newton", "iteration": 3}], task("lenet"), 1)


def test_another_kind_of_data_gets_only_attacks_that_read_it():
    class Text(Images):
        name = "text"

    assert choose("auto", Task(nn.Linear(1, 1), F.cross_entropy, Text(SHAPE)), 1) == []
