"""Evaluation in one call: simplest use, full use and bad input."""

import pytest
import torch
from skimage.data import lfw_subset

import invertigo
from invertigo.domains import Images
from invertigo.evaluation import evaluate
from invertigo.types import Batch, InvalidValueError, MismatchError, Reconstruction

FACES = torch.from_numpy(lfw_subset()).float().unsqueeze(1)
LABELS = torch.arange(200) % 5


def batch(part):
    return Batch({"images": FACES[part], "labels": LABELS[part]})


@pytest.fixture(scope="module")
def full():
    truth, public = batch(slice(0, 6)), batch(slice(6, 200))
    noise = torch.randn(6, 1, 25, 25, generator=torch.Generator().manual_seed(0))
    images = truth["images"] + 0.05 * noise
    images[5] = 0.5
    order = [2, 0, 1, 5, 3, 4]
    fields = {"images": images[order], "labels": truth["labels"][order]}
    found = Reconstruction(fields, attack="test", objective=0.1, stopped="schedule", seconds=1.0)
    return evaluate(found, truth, domain=Images((1, 25, 25)), public=public)


def test_strangers_of_another_kind_vouch_for_nothing():
    """Among noise any mosaic of a face stands out; its distance of 0.15 to 0.25 then counts for nothing."""
    faces = torch.from_numpy(lfw_subset()[:8]).unsqueeze(1).double()
    noisy = (faces + 0.12 * torch.randn(faces.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    strangers = Batch({"images": torch.rand(100, 1, 25, 25, generator=torch.Generator().manual_seed(1)).double()})
    truth, guess = Batch({"images": faces}), {"images": noisy}
    domain = Images((1, 25, 25))
    vouched = evaluate(guess, truth, domain=domain, decoys=strangers)
    alone = evaluate(guess, truth, domain=domain, decoys=strangers, same_kind=False)
    close = vouched.scores.per_example["perceptual"] <= 0.15
    assert vouched.outcomes.count("recognisable") > int(close.sum())
    assert [outcome == "recognisable" for outcome in alone.outcomes] == close.tolist()


def test_two_tensors_are_enough():
    found = invertigo.evaluate(FACES[:3] * 0.999, FACES[:3])
    assert found.outcomes == ["exact"] * 3
    assert found.identification is None
    assert found.label_accuracy is None
    assert isinstance(found.domain, Images)


def test_every_part_of_a_full_evaluation(full):
    assert full.scores.matching.tolist() == [1, 2, 0, 4, 5, 3]
    assert full.outcomes == ["recognisable"] * 5 + ["nothing"]
    assert full.identification.decoys == 194
    assert full.label_accuracy == 1
    assert set(full.baselines) == set(Images.baseline_labels)
    assert (full.recovered.estimate, full.recovered.n) == (5 / 6, 6)
    for name, interval in full.intervals.items():
        assert interval.estimate == pytest.approx(full.scores.mean(name))
        assert interval.low < interval.estimate < interval.high


def test_the_summary_names_scores_baselines_findings_and_how_few_examples_there_are(full):
    text = full.summary()
    worst = max(full.scores.per_example["psnr"].tolist())
    assert f"{worst:.4g}" in text
    for piece in ("PSNR dB", "SSIM", "public_nearest", "recovered: 5 of 6", "identified: 5 of 6 among 194 decoys"):
        assert piece in text
    assert "labels: 100% right" in text
    assert "indicative" in text


def test_the_same_seed_gives_the_same_evaluation(full):
    truth, public = batch(slice(0, 6)), batch(slice(6, 200))
    one, other = (evaluate(FACES[6:12], truth, public=public, seed=4) for _ in range(2))
    assert one.intervals == other.intervals
    assert one.outcomes == other.outcomes


def test_decoys_may_differ_from_public_data():
    truth = batch(slice(0, 2))
    found = evaluate(FACES[:2], truth, public=batch(slice(2, 9)), decoys=batch(slice(9, 150)))
    assert found.identification.decoys == 141


def test_baselines_of_an_earlier_evaluation_are_used_again(full):
    found = evaluate(FACES[:6], batch(slice(0, 6)), baselines=full.baselines)
    assert found.baselines is full.baselines


def test_labels_of_the_wrong_example_count_as_wrong():
    truth = batch(slice(0, 3))
    found = evaluate({"images": FACES[:3].roll(1, 0), "labels": LABELS[:3]}, truth)
    assert found.label_accuracy == 0


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(MismatchError, match=r"domain=\.\.\."):
        evaluate({"tokens": torch.zeros(1)}, Batch({"tokens": torch.zeros(1)}))
    with pytest.raises(MismatchError, match="1, 25, 25"):
        evaluate(torch.rand(2, 3, 25, 25), FACES[:2])
    with pytest.raises(InvalidValueError, match="empty"):
        evaluate(FACES[:2], FACES[:0])
