"""Labels read off the classifier's gradient, before any image is rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invertigo.attacks.classifier import find_classifier
from invertigo.attacks.classifier_gradient import ClassifierGradient, mean_gradients
from invertigo.attacks.column_space import classes_in_column_space
from invertigo.attacks.masked_label import has_holes, masked_label
from invertigo.attacks.shares import fit_shares, listed, rounded, whole_size
from invertigo.attacks.targets import float_targets
from invertigo.types import Observation, RequirementError

ROUNDS = 20
UNFIT = 0.6
"""Share of an untrained network's negative bias gradient from which examples weigh alike and shares can be trusted."""


NEAR = 0.5
"""Share of the largest entry from which another one is near enough for signs to decide between them."""


@dataclass(frozen=True)
class LabelGuess:
    """Labels inferred from an update.

    `labels` (batch,) are sorted, since an update does not tell the order of its examples; `counts` (class,) says
    how often each class occurs. `shares` (class,) are the estimated fractions of the batch before rounding.
    `confidence` in [0, 1] is 1 when all `shares` x batch size are whole numbers and 0 when one lies halfway between
    two. `batch_size_given` tells that the number of examples was known rather than estimated.
    """

    labels: Tensor
    counts: Tensor
    shares: Tensor
    confidence: float
    batch_size_given: bool
    notes: tuple[str, ...] = ()


def infer_labels(observation: Observation) -> LabelGuess:
    r"""Count the labels of the batch behind an update, duplicates included.

    The classifier's mean bias gradient is $g = \sum_k c_k D_k$, where $c_k$ is class $k$'s share of the batch and
    $D_k = \partial \ell / \partial z$ at the logits of its examples: $p_k - e_k$ for cross-entropy. Those logits
    are not known, but the weight gradient $G = \sum_k c_k D_k \bar h_k^\top$ tells the mean features $\bar h_k$ of a
    class once the shares are known, and the shares follow from the features by non-negative least squares; both are
    refined in turn. Rows of classes that are absent from the batch tell the overall mean features to begin with.
    Shares are rounded to counts that add up to the batch size. One example needs none of this: its label is the
    entry of largest magnitude.

    A model that fits its data gives examples very different weight, and shares mislead. Then the classes are read from
    the column space of $G$, where each occurring class leaves a vector that is negative at that class alone.

    After several local steps the mean gradient over the steps is used, at the middle of the way; momentum makes early
    steps weigh more, which blurs the counts when steps read different examples. Without a bias, $g$
    is the weight gradient projected on the mean features. Without a batch size, the smallest one is taken that makes
    the counts whole and is no less than the rank of $G$ (or that rank itself, for a model that fits its data).

    On digits (10 classes) the counts were exact for untrained networks and batches up to 64, duplicates included; with
    BatchNorm in training mode exact up to 8 examples and at least 90 % right beyond. For networks trained to 97-100 %
    accuracy, one label was almost always right, of two 75-100 %, of four 70-100 %, of more 25-80 %, and `confidence`
    is low then.

    Raises: RequirementError when the classifier's gradient is not in the update or the loss does not tell classes.

    Source: Zhao et al. (2020), iDLG (one example); Ma et al. (2022), Instance-wise Batch Label Restoration
    via Gradients in Federated Learning (features from row ratios); Dang et al. (2021), Revealing and
    Protecting Labels in Distributed Training (column space). The alternation, the non-negative fit
    and the estimate of the batch size are ours.
    """
    reader, size = reader_of(observation), observation.num_examples
    if reader.classes == 1:
        return _yes_or_no(reader, size)
    _check_tells_classes(reader.directions(reader.classifier.logits.double().mean(0).expand(reader.classes, -1)))
    if size == 1 and reader.classes > 2:
        return _one_example(reader)
    if size is not None and not reader.reduction.normalised:
        reader = replace(reader, scale=1 / size)
    return _batch(reader, size)


def reader_of(observation: Observation) -> ClassifierGradient:
    """The classifier's part of an update: of the layer with one output a class, or with a single one for yes or no.

    Raises: RequirementError when there is neither, or its gradient is not in the update.
    """
    gradients, parameters = mean_gradients(observation)
    try:
        classifier = find_classifier(observation, parameters)
    except RequirementError:
        form = float_targets(observation)
        if form is None or form.kind != "binary" or torch.Size(form.shape).numel() != 1:
            raise
        classifier = find_classifier(observation, parameters, width=1)
    return ClassifierGradient(observation, classifier, parameters, gradients)


def _yes_or_no(reader: ClassifierGradient, size: int | None) -> LabelGuess:
    """With one output, $g_b = \\sum_i (p_i - y_i)/n$: the scores of grey noise tell how many of the labels are 1."""
    if size is None:
        raise RequirementError("Labels of a single output follow for a known batch size only; give num_examples.")
    bias, weight, seen = reader.bias_gradient, reader.weight_gradient, reader.classifier.features
    if bias is None or not bool(bias.any()):
        assert weight is not None
        assert seen is not None
        features = seen.double().mean(0)
        bias = weight @ features / features.square().sum()
    directions = reader.directions(reader.classifier.logits.double().mean(0).expand(2, -1))
    reduction = reader.reduction
    parts = fit_shares(directions, bias if reduction.normalised else bias / size)
    share = reduction.examples(parts)
    counts = rounded(share, size)
    labels = reader.targets.repeat_interleave(counts.to(reader.targets.device), 0)
    return LabelGuess(labels, counts, share, _confidence(share, size, counts), True)


def _one_example(reader: ClassifierGradient) -> LabelGuess:
    """|p_y - 1| is the sum of all other p_k, so the label has the largest entry (or row), whatever the features.

    Noise, signs or a confident mistake bring others near it in size; then the label is the entry that is most negative.
    Where entries were left out, the largest may be among them, and the label is told by signs alone (`masked_label`).
    """
    if (masked := _behind_a_mask(reader)) is not None:
        return masked
    strength = reader.strength()
    first, second = strength.topk(2).values.tolist()
    label = strength.argmax()
    if second > NEAR * first and (pull := _pull(reader)) is not None:
        label, (first, second) = pull.argmax(), pull.topk(2).values.clamp(min=0).tolist()
    counts = torch.zeros(reader.classes, dtype=torch.long, device=strength.device)
    counts[label] = 1
    confidence = 1 - second / first if first > 0 else 0.0
    return LabelGuess(listed(counts), counts, counts.double(), confidence, True)


def _behind_a_mask(reader: ClassifierGradient) -> LabelGuess | None:
    """The label of one example from the entries that a mask left; None where none is missing or the loss tells less."""
    weight, bias = reader.weight_gradient, reader.bias_gradient
    if weight is None or not has_holes(weight, bias):
        return None
    directions = reader.directions(reader.classifier.logits.double().mean(0).expand(reader.classes, -1))
    if not _tells_classes(directions):
        return None
    seen = reader.classifier.features
    label, confidence = masked_label(weight, bias, None if seen is None else seen.double().mean(0))
    counts = torch.zeros(reader.classes, dtype=torch.long, device=weight.device)
    counts[label] = 1
    note = "Entries of the classifier's gradient were left out: the label is the one class whose score is pushed up."
    return LabelGuess(listed(counts), counts, counts.double(), confidence, True, (note,))


def _pull(reader: ClassifierGradient) -> Tensor | None:
    """(class,) how strongly each class's score is pushed up; None where not only the true one's may be."""
    seen, weight, bias = reader.classifier.features, reader.weight_gradient, reader.bias_gradient
    directions = reader.directions(reader.classifier.logits.double().mean(0).expand(reader.classes, -1))
    if not _tells_classes(directions):
        return None
    if bias is not None and bias.any():
        return -bias
    return None if weight is None or seen is None else -(weight @ seen.double().mean(0))


def _batch(reader: ClassifierGradient, size: int | None) -> LabelGuess:
    (share, bias), notes = _shares(reader)
    rank, given = reader.rank(), size is not None
    unfit = _unfit(share, bias)
    share = reader.reduction.examples(share)
    if size is None:
        size = rank if not unfit and rank < reader.classes - 1 else whole_size(share, rank)
        notes.append(
            f"The batch size was not known; {size} was estimated from the counts and the rank of the gradient."
        )
    counts = rounded(share, size)
    confidence = _confidence(share, size, counts)
    if confidence < 0.5 or not unfit:
        mixed = reader.observation.update.kind == "difference"  # steps with their own column spaces are added up
        occurring = None if mixed else classes_in_column_space(reader, min(rank, size))
        if occurring is not None:
            counts = _constrained(share, size, occurring)
            confidence = min(_confidence(share, size, counts), 0.5) if int(occurring.sum()) != size else 0.9
            notes.append("The model fits its data, so classes were read from the gradient's column space.")
        elif not unfit:
            confidence = min(confidence, 0.5)
            notes.append("The model fits its data and the batch is large, so the counts are rough.")
    return LabelGuess(listed(counts), counts, share, confidence, given, tuple(notes))


def _unfit(share: Tensor, bias: Tensor) -> bool:
    """The bias gradient is about as negative as with equal scores: the model does not fit this batch yet."""
    expected = float((share - 1 / len(share)).clamp(min=0).sum())
    return float(-bias.clamp(max=0).sum()) >= UNFIT * expected


def _confidence(share: Tensor, size: int, counts: Tensor) -> float:
    return float((1 - 2 * (share * size - counts).abs().max()).clamp(0, 1))


def _constrained(share: Tensor, size: int, occurring: Tensor) -> Tensor:
    """Whole counts of the occurring classes only, at least one each where the batch size allows it."""
    share = torch.where(occurring, share + 1e-9, 0.0)
    number = int(occurring.sum())
    if number >= size:
        counts = torch.zeros_like(share, dtype=torch.long)
        counts[share.argsort(descending=True)[:size]] = 1
        return counts
    extra = (share * size / share.sum() - 1).clamp(min=0) * occurring
    extra = extra if extra.sum() > 0 else occurring.double()
    return occurring.long() + rounded(extra / extra.sum(), size - number)


def _shares(reader: ClassifierGradient) -> tuple[tuple[Tensor, Tensor], list[str]]:
    """(class,) fraction of the batch that each class makes up, and the (class,) bias gradient it was read from."""
    weight, notes = reader.weight_gradient, []
    seen = reader.classifier.features
    bias = reader.bias_gradient
    if weight is None or seen is None:
        assert bias is not None
        mean_logits = reader.classifier.logits.double().mean(0)
        notes.append("Class scores were estimated on grey noise, as the classifier's features are unknown.")
        directions = reader.directions(mean_logits.expand(reader.classes, -1))
        _check_tells_classes(directions)
        return (fit_shares(directions, bias), bias), notes
    if bias is None or not bool(bias.any()):
        bias, features = _project(reader, weight, seen.double().mean(0))
    else:
        absent = bias > 0
        pruned = not bool(absent.any())
        features = seen.double().mean(0) if pruned else weight[absent].sum(0) / bias[absent].sum()
    directions = reader.directions(reader.logits(features[None]).expand(reader.classes, -1))
    _check_tells_classes(directions)
    return (_alternate(reader, weight, bias, features, directions), bias), notes


def _alternate(
    reader: ClassifierGradient, weight: Tensor, bias: Tensor, features: Tensor, directions: Tensor
) -> Tensor:
    own = features.expand(reader.classes, -1).clone()
    best, best_residual = fit_shares(directions, bias), float("inf")
    for _ in range(ROUNDS):
        share = fit_shares(directions, bias)
        residual = float((weight - torch.einsum("k,kc,kd->cd", share, directions, own)).norm() / weight.norm())
        if residual < best_residual:
            best, best_residual = share, residual
        # weight[k] = sum_j c_j D_jk h_j, solved for the class's own features h_k
        pull = share * directions.diagonal()
        known = (share > 1e-3) & (pull.abs() > 1e-12)
        others = torch.einsum("j,jk,jd->kd", share, directions, own) - pull[:, None] * own
        wanted = (weight - others) / pull.where(known, 1.0)[:, None]
        own = torch.where(known[:, None], (own + wanted) / 2, features)
        directions = reader.directions(reader.logits(own))
    return best


def _project(reader: ClassifierGradient, weight: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Without a bias: what its gradient would have been, from the weight gradient along the mean features."""
    for _ in range(5):
        along = weight @ features / features.square().sum()
        probability = reader.logits(features[None]).softmax(-1)[0]
        absent = along > 0
        features = weight[absent].sum(0) / probability[absent].sum()
    return weight @ features / features.square().sum(), features


def tells_classes(observation: Observation) -> bool:
    """The loss reads class numbers and pushes up the score of the true class alone, as cross-entropy does."""
    try:
        reader = reader_of(observation)
        mean = reader.classifier.logits.double().mean(0).expand(reader.classes, -1)
        return reader.classes > 1 and _tells_classes(reader.directions(mean))
    except RequirementError:
        return False


def _check_tells_classes(directions: Tensor) -> None:
    if not _tells_classes(directions):
        raise RequirementError(
            "Labels cannot be read from this update: the loss does not push up the score of the true class alone, as "
            "cross-entropy does. Give the labels in Knowledge, or use an attack that optimises them."
        )


def _tells_classes(directions: Tensor) -> bool:
    diagonal = directions.diagonal()
    return bool((diagonal <= directions.min(1).values).all() and (diagonal < 0).any())
