"""The lines between exact, recognisable and nothing, on people's faces, photographs' stand-ins and blank pictures."""

import pytest
import torch
from skimage.data import lfw_subset
from skimage.filters import gaussian
from sklearn.datasets import load_digits

from invertigo.domains import Images
from invertigo.evaluation import Criteria, outcomes
from invertigo.evaluation.outcomes import FEW_CANDIDATES, on_a_short_list
from invertigo.types import Batch, Identification, Scores

FACES = torch.from_numpy(lfw_subset()[:120]).double().unsqueeze(1)
DIGITS = torch.from_numpy(load_digits().images[:220]).double().unsqueeze(1) / 16


def judged(truth, guess, public):
    domain, batch = Images(tuple(truth.shape[1:])), Batch({"images": truth})
    known = None if public is None else Batch({"images": public})
    scores = domain.score(batch, {"images": guess})
    identification = None if known is None else domain.identify(batch, {"images": guess}, known)
    return outcomes(scores, identification, domain.baselines(batch, known))


def noisy(images, sigma):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=images.dtype)
    return (images + sigma * noise).clamp(0, 1)


def blurred(images, sigma):
    return torch.stack([torch.from_numpy(gaussian(image[0].numpy(), sigma)).unsqueeze(0) for image in images])


SEEN = {
    "a little noise": lambda x: noisy(x, 0.05),
    "noise": lambda x: noisy(x, 0.1),
    "blur": lambda x: blurred(x, 1),
    "too bright": lambda x: (x + 0.25).clamp(0, 1),
    "faded": lambda x: 0.5 + 0.2 * (x - 0.5),
    "shifted": lambda x: x.roll(3, -1),
    "another order": lambda x: noisy(x, 0.1).roll(3, 0),
}
UNSEEN = {
    "grey": lambda x: torch.full_like(x, 0.5),
    "its own mean colour": lambda x: x.mean((-2, -1), keepdim=True).expand_as(x),
    "noise alone": lambda x: noisy(torch.full_like(x, 0.5), 0.3),
    "drowned in noise": lambda x: noisy(x, 0.5),
    "blurred away": lambda x: blurred(x, 4),
    "the mean face": lambda x: FACES[8:100].mean(0).expand_as(x),
    "other people": lambda x: FACES[20 : 20 + len(x)],
    "too faint to see": lambda x: 0.5 + 0.01 * (x - 0.5),
}


@pytest.mark.parametrize("how", SEEN)
def test_a_face_that_people_know_counts(how):
    assert judged(FACES[:8], SEEN[how](FACES[:8]), FACES[8:]).count("recognisable") >= 7


@pytest.mark.parametrize("how", UNSEEN)
def test_a_face_that_nobody_knows_does_not(how):
    assert judged(FACES[:8], UNSEEN[how](FACES[:8]), FACES[8:]) == ["nothing"] * 8


def test_a_plain_picture_counts_although_a_grey_square_has_the_higher_psnr():
    domain, truth = Images((1, 25, 25)), Batch({"images": FACES[:8]})
    guess = {"images": SEEN["too bright"](FACES[:8])}
    grey = domain.baselines(truth, None)["mid_grey"].mean("psnr")
    assert domain.score(truth, guess).mean("psnr") < grey
    assert judged(truth["images"], guess["images"], FACES[8:]) == ["recognisable"] * 8


def test_20_db_of_a_grey_square_are_nothing_where_there_is_little_contrast():
    pale = 0.5 + 0.25 * (FACES - 0.5)
    grey = torch.full_like(pale[:8], 0.5)
    assert Images((1, 25, 25)).score(Batch({"images": pale[:8]}), {"images": grey}).mean("psnr") > 20
    assert judged(pale[:8], grey, pale[8:]) == ["nothing"] * 8
    assert judged(pale[:8], noisy(pale[:8], 0.02), pale[8:]) == ["recognisable"] * 8


@pytest.mark.parametrize(("error", "expected"), [(0.99e-3, "exact"), (1.01e-3, "recognisable")])
def test_exact_begins_at_sixty_decibels(error, expected):
    signs = (torch.arange(625) % 2 * 2 - 1).view(25, 25)
    truth = FACES[:3].clamp(0.1, 0.9)
    assert judged(truth, truth + error * signs, FACES[3:]) == [expected] * 3


@pytest.mark.parametrize(("error", "expected"), [(0.05, "exact"), (0.2, "recognisable")])
def test_exact_is_a_tenth_of_the_contrast_too_however_wide_the_range(error, expected):
    """In a range of 6,000 times the pictures' own, an error of a fifth of their contrast is one of 3e-5 of it."""
    truth = FACES[:3]
    signs = (torch.arange(625) % 2 * 2 - 1).view(25, 25)
    contrast = (truth - truth.mean((-2, -1), keepdim=True)).square().mean((-2, -1), keepdim=True).sqrt()
    squeeze = lambda images: 0.5 + images / 6000  # noqa: E731
    found = judged(squeeze(truth), squeeze(truth + error * contrast * signs), None)
    assert found == [expected] * 3


def test_a_blank_picture_guessed_blank_is_no_leak():
    blank = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    assert judged(blank, blank, DIGITS) == ["nothing"] * 2
    assert judged(DIGITS[:2], DIGITS[:2], DIGITS[2:]) == ["exact"] * 2


def test_a_digit_counts_although_its_nearest_neighbour_is_nearly_the_same():
    assert judged(DIGITS[:8], noisy(DIGITS[:8], 0.1), DIGITS[8:]).count("recognisable") >= 6
    assert judged(DIGITS[:8], DIGITS[100:108], DIGITS[8:]) == ["nothing"] * 8


def test_without_a_line_up_the_picture_must_be_clearer():
    mean = FACES[8:100].mean(0).expand(8, -1, -1, -1)
    assert judged(FACES[:8], noisy(FACES[:8], 0.05), None) == ["recognisable"] * 8
    assert judged(FACES[:8], mean, None) == ["nothing"] * 8


def stated(psnr, perceptual):
    return Scores({"psnr": torch.tensor([psnr]), "perceptual": torch.tensor([perceptual])}, torch.tensor([0]))


@pytest.mark.parametrize(
    ("scores", "rank", "decoys", "expected"),
    [
        ((20.0, 0.25), 1, 100, "recognisable"),
        ((20.0, 0.26), 1, 100, "nothing"),
        ((20.0, 0.25), 2, 100, "nothing"),
        ((20.0, 0.25), 1, 99, "nothing"),
        ((20.0, 0.15), 1, 99, "recognisable"),
        ((20.0, 0.15), 2, 99, "nothing"),
        ((20.0, 0.15), None, 0, "recognisable"),
        ((20.0, 0.16), None, 0, "nothing"),
        ((60.0, 0.0), 2, 100, "exact"),
        ((59.9, 0.0), 1, 100, "recognisable"),
    ],
)
def test_the_rule_at_its_borders(scores, rank, decoys, expected):
    identification = None if rank is None else Identification(torch.tensor([rank]), decoys)
    assert outcomes(stated(*scores), identification, {"public_mean": stated(15.0, 0.3)}) == [expected]


def test_baselines_that_do_as_well_undo_a_claim_unless_they_look_at_the_truth():
    identification, good = Identification(torch.tensor([1]), 100), stated(20.0, 0.2)
    assert outcomes(good, identification, {"public_mean": stated(10.0, 0.2)}) == ["nothing"]
    assert outcomes(good, identification, {"public_nearest": stated(10.0, 0.1)}) == ["recognisable"]
    lenient = Criteria(perceptual=0.5)
    assert outcomes(stated(9.0, 0.4), identification, {"public_mean": stated(10.0, 0.45)}, lenient) == ["recognisable"]


def test_an_example_on_a_short_list_of_answers_is_recognised_and_on_a_long_one_is_not():
    first, other = ["nothing", "exact", "nothing"], ["exact", "nothing", "recognisable"]
    assert on_a_short_list(first, []) == first
    assert on_a_short_list(first, [other]) == ["recognisable", "exact", "nothing"]
    assert on_a_short_list(first, [other] * (FEW_CANDIDATES - 1)) == ["recognisable", "exact", "nothing"]
    assert on_a_short_list(first, [other] * FEW_CANDIDATES) == first
