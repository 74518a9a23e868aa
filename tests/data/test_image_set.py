"""ImageSet, and sets made from PyTorch datasets."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from invertigo import data
from invertigo.types import Batch, InvalidValueError, MismatchError


@pytest.fixture
def faces():
    return data.load("faces")


def test_batch_keeps_the_order_asked_for(faces):
    batch = faces.batch([150, 3])
    assert isinstance(batch, Batch)
    assert batch["labels"].tolist() == [1, 0]
    assert torch.equal(batch["images"], faces.images[[150, 3]])


@pytest.mark.parametrize("indices", [7, [7], torch.tensor([7]), slice(7, 8), torch.arange(200) == 7, [-193]])
def test_every_kind_of_index_picks_the_same_example(faces, indices):
    assert torch.equal(faces.batch(indices)["images"], faces.images[7:8])
    rest = faces.others(indices)
    assert len(rest) == 199
    assert torch.equal(rest.images, torch.cat([faces.images[:7], faces.images[8:]]))


def test_an_index_outside_is_named(faces):
    with pytest.raises(InvalidValueError, match="no 200"):
        faces.batch([0, 200])


def test_it_is_a_torch_dataset(faces):
    images, labels = next(iter(DataLoader(faces, batch_size=4)))
    assert torch.equal(images, faces.images[:4])
    assert labels.tolist() == [0, 0, 0, 0]
    assert sum(1 for _ in faces) == 200


@pytest.mark.parametrize("labels", [[0, 5], [-1, 0]])
def test_labels_outside_the_classes_are_refused(labels):
    with pytest.raises(InvalidValueError, match="classes"):
        data.ImageSet("x", torch.rand(2, 1, 4, 4), torch.tensor(labels), ("a", "b"))


def test_images_and_labels_of_different_number_are_refused():
    with pytest.raises(MismatchError, match="2 images but 3 labels"):
        data.ImageSet("x", torch.rand(2, 1, 4, 4), torch.tensor([0, 1, 1]), ("a", "b"))


def test_from_dataset_takes_tensor_datasets_and_bytes():
    images, labels = torch.rand(5, 3, 6, 4), torch.tensor([0, 2, 1, 0, 2])
    found = data.from_dataset(TensorDataset(images, labels), limit=4)
    assert torch.equal(found.images, images[:4])
    assert found.classes == ("0", "1", "2")
    scaled = data.from_dataset(TensorDataset((images * 255).byte(), labels), classes=("a", "b", "c"))
    assert scaled.classes == ("a", "b", "c")
    assert (scaled.images - images).abs().max() < 1 / 255


def test_from_dataset_reads_no_more_than_the_limit():
    class Counting(Dataset):
        classes = ("x", "y")
        read = 0

        def __len__(self):
            return 1000

        def __getitem__(self, index):
            self.read += 1
            return torch.full((1, 2, 2), 0.5), np.int64(index % 2)

    dataset = Counting()
    found = data.from_dataset(dataset, limit=3)
    assert dataset.read == 3
    assert found.classes == ("x", "y")
    assert found.name == "Counting"


def test_from_dataset_reads_streams():
    class Stream(IterableDataset):
        def __iter__(self):
            while True:
                yield torch.zeros(1, 2, 2), 1

    assert len(data.from_dataset(Stream(), limit=2)) == 2


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (torch.rand(1, 2, 2), "pair"),
        ((np.zeros((1, 2, 2)), 0), "ndarray"),
        ((torch.rand(2, 2), 0), r"\(2, 2\)"),
        ((torch.tensor([[[-1.5, 1.5], [0.0, 0.5]]]), 0), "domains.Images"),
        ((torch.full((1, 2, 2), torch.nan), 0), "outside"),
        ((torch.rand(1, 2, 2), 0.5), "0.5"),
        ((torch.rand(1, 2, 2), torch.tensor(0.5)), "label of example 1"),
        ((torch.rand(1, 2, 2), torch.tensor([0, 1])), "label of example 1"),
    ],
)
def test_from_dataset_names_the_example_that_does_not_fit(item, says):
    torch.manual_seed(0)
    with pytest.raises(InvalidValueError, match=says):
        data.from_dataset([(torch.rand(1, 2, 2), 0), item])


def test_from_dataset_refuses_mixed_shapes_and_nothing():
    with pytest.raises(MismatchError, match=r"Example 1 has shape \(1, 3, 3\)"):
        data.from_dataset([(torch.rand(1, 2, 2), 0), (torch.rand(1, 3, 3), 0)])
    with pytest.raises(InvalidValueError, match="empty"):
        data.from_dataset([])
