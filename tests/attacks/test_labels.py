"""Labels are counted from the classifier's gradient, wherever the classifier stands in the model."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invertigo import data, models
from invertigo.attacks import infer_labels
from invertigo.domains import Images
from invertigo.federation import observe, train_locally
from invertigo.types import (
    Batch,
    Knowledge,
    LocalTraining,
    Observation,
    RequirementError,
    Task,
    Update,
    buffers_of,
    trainable,
)

SHAPE, CLASSES = (1, 8, 8), 10
DIGITS = data.load("digits")


def build(name, **options):
    generator = torch.Generator().manual_seed(0)
    return models.build(name, input_shape=SHAPE, num_classes=CLASSES, generator=generator, **options)


def batch_with(labels) -> Batch:
    chosen = []
    for position, label in enumerate(labels):
        chosen.append(int((DIGITS.labels == label).nonzero()[position, 0]))
    return Batch({"images": DIGITS.images[chosen].float(), "labels": DIGITS.labels[chosen]})


def see(model, batch, local=None, *, known=True, loss=F.cross_entropy, classes=CLASSES) -> Observation:
    task, local = Task(model, loss, Images(SHAPE), classes), local or LocalTraining(mode="eval")
    update = train_locally(task, batch, local, generator=torch.Generator().manual_seed(0))
    knowledge = Knowledge(num_examples=len(batch) if known else None)
    return Observation(task, trainable(model), buffers_of(model), update, local, knowledge)


def trained(model, steps):
    optimizer, g = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), torch.Generator().manual_seed(5)
    for _ in range(steps):
        i = torch.randint(0, len(DIGITS.images), (32,), generator=g)
        optimizer.zero_grad()
        F.cross_entropy(model(DIGITS.images[i].float()), DIGITS.labels[i]).backward()
        optimizer.step()
    return model


class ClassifierFirst(nn.Module):
    """The classifier is registered first and an unused-looking head last; only running the model tells."""

    def __init__(self, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.classifier = nn.Linear(32, CLASSES, bias=bias)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
        self.gate = nn.Linear(32, 32)

    def forward(self, x):
        features = self.body(x)
        return self.classifier(features * self.gate(features).sigmoid())


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", ["convnet", "resnet", "lenet", "mlp"])
@pytest.mark.parametrize("labels", [[3, 3, 3, 5, 7, 7], [0, 1, 2, 3, 8, 9, 9, 9], [4] * 5])
def test_counts_of_an_untrained_network_are_exact(name, mode, labels):
    options = {"width": 16} if name == "convnet" else {"width": 8} if name == "resnet" else {}
    guess = infer_labels(see(build(name, **options), batch_with(labels), LocalTraining(mode=mode)))
    assert guess.labels.tolist() == labels
    assert torch.equal(guess.counts, torch.bincount(guess.labels, minlength=CLASSES))
    assert guess.batch_size_given
    assert 0 <= guess.confidence <= 1


@pytest.mark.parametrize("name", ["lenet", "mlp"])
def test_batch_size_is_estimated_when_unknown(name):
    guess = infer_labels(see(build(name), batch_with([3, 3, 3, 5, 7, 7]), known=False))
    assert guess.labels.tolist() == [3, 3, 3, 5, 7, 7]
    assert not guess.batch_size_given
    assert any("6 was estimated" in note for note in guess.notes)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("labels", [[3, 3, 3, 5, 7, 7], [6], [0, 9]])
def test_classifier_is_found_by_running_the_model(bias, labels):
    guess = infer_labels(see(ClassifierFirst(bias), batch_with(labels)))
    assert guess.labels.tolist() == labels


@pytest.mark.parametrize("steps", [0, 100])
@pytest.mark.parametrize("label", range(0, CLASSES, 3))
def test_one_example_trained_or_not(steps, label):
    model = trained(build("mlp"), steps)
    assert infer_labels(see(model, batch_with([label]))).labels.tolist() == [label]


def test_a_little_trained():
    model = trained(build("mlp"), 20)
    for labels in ([3, 3, 3, 5, 7, 7], [0, 1], [2, 2, 4, 4, 4, 8, 9]):
        assert infer_labels(see(model, batch_with(labels))).labels.tolist() == labels


def test_well_trained_network_gives_its_classes_away_in_the_column_space():
    model = trained(build("mlp"), 200)
    for labels in ([0, 1], [2, 5, 7], [1, 4, 6, 9]):
        assert infer_labels(see(model, batch_with(labels))).labels.tolist() == labels


def test_uncertain_counts_say_so():
    model = trained(build("mlp"), 200)
    guess = infer_labels(see(model, batch_with(list(range(10)) * 3)))
    assert len(guess.labels) == 30
    assert guess.confidence <= 0.5
    assert any("rough" in note for note in guess.notes)


@pytest.mark.parametrize("labels", [[0] * 7 + [1] * 3 + [5] * 20 + [9] * 2, [*range(10), 9, 9]])
def test_batch_larger_than_the_number_of_classes(labels):
    assert infer_labels(see(build("lenet"), batch_with(labels))).labels.tolist() == labels
    with_batchnorm = infer_labels(see(build("convnet", width=16), batch_with(labels), LocalTraining())).counts
    right = torch.minimum(with_batchnorm, torch.bincount(torch.tensor(labels), minlength=CLASSES)).sum()
    assert right >= 0.9 * len(labels)


@pytest.mark.parametrize(("momentum", "size"), [(0.0, 2), (0.9, None)])
def test_labels_from_several_local_steps(momentum, size):
    local = LocalTraining(sends="difference", batch_size=size, learning_rate=0.01, epochs=2, momentum=momentum)
    guess = infer_labels(see(build("mlp"), batch_with([3, 3, 3, 5, 7, 7]), local))
    assert guess.labels.tolist() == [3, 3, 3, 5, 7, 7]


def test_label_smoothing_and_losses_behind_a_softmax():
    smooth = lambda z, y: F.cross_entropy(z, y, label_smoothing=0.2)  # noqa: E731
    assert infer_labels(see(build("mlp"), batch_with([3, 3, 5]), loss=smooth)).labels.tolist() == [3, 3, 5]
    model = nn.Sequential(build("mlp"), nn.LogSoftmax(-1))
    assert infer_labels(see(model, batch_with([3, 3, 5]), loss=F.nll_loss)).labels.tolist() == [3, 3, 5]


def test_convolutional_classifier():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert infer_labels(see(model, batch_with([3, 3, 3, 5, 7, 7]))).labels.tolist() == [3, 3, 3, 5, 7, 7]


def test_two_classes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
    for labels in ([0], [1], [0, 0, 1], [1, 1, 1]):
        assert infer_labels(see(model, batch_with(labels), classes=2)).labels.tolist() == labels


def test_labels_do_not_depend_on_hooks_left_behind_or_change_the_model():
    model = build("resnet", width=8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    infer_labels(see(model, batch_with([1, 2, 3])))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_what_cannot_be_read_is_refused():
    regression = lambda z, y: (z - F.one_hot(y, CLASSES)).abs().sqrt().mean()  # noqa: E731
    with pytest.raises(RequirementError, match="loss"):
        infer_labels(see(build("mlp"), batch_with([1, 2]), loss=lambda z, y: -regression(z, y)))
    with pytest.raises(RequirementError, match="no linear or convolution layer"):
        infer_labels(see(build("mlp"), batch_with([1, 2]), classes=17))
    frozen = build("mlp")
    frozen.head.requires_grad_(False)
    with pytest.raises(RequirementError, match="no gradient of the classifier 'head'"):
        infer_labels(see(frozen, batch_with([1, 2])))
    local = LocalTraining(sends="difference", batch_size=2)
    with pytest.raises(RequirementError, match="number of local steps"):
        infer_labels(see(build("mlp"), batch_with([1, 2]), local, known=False))


def test_given_labels_play_no_part():
    seen = observe(
        Task(build("mlp"), F.cross_entropy, Images(SHAPE), CLASSES), batch_with([3, 5]), LocalTraining(), level=2
    )
    lie = Observation(
        seen.task,
        seen.parameters,
        seen.buffers,
        Update(seen.update.tensors, "gradient"),
        seen.local,
        Knowledge(labels=torch.tensor([0, 0])),
    )
    assert infer_labels(lie).labels.tolist() == [3, 5]
