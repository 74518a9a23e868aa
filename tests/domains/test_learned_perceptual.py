"""LPIPS is offered where it can be loaded offline, and only there."""

import sys

import pytest
import torch

from invertigo.domains import Images, learned_perceptual
from invertigo.types import Batch

FAKE = """
import torch

class LPIPS(torch.nn.Module):
    def __init__(self, net, verbose):
        super().__init__()
        assert net == "alex"

    def forward(self, a, b):
        assert a.shape[1:] == (3, 64, 64) and a.min() >= -1 and a.max() <= 1 and a.dtype == torch.float32
        return (a - b).abs().mean((1, 2, 3), keepdim=True)
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    learned_perceptual._network.cache_clear()
    yield tmp_path
    learned_perceptual._network.cache_clear()
    for name in ("lpips", "torchvision"):
        sys.modules.pop(name, None)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    (tmp_path / "lpips.py").write_text(FAKE)
    (tmp_path / "torchvision.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("hub", "packages")
def test_without_weights_it_is_absent_rather_than_downloaded():
    domain, images = Images((1, 8, 8)), torch.rand(2, 1, 8, 8)
    assert "lpips" not in [metric.name for metric in domain.metrics]
    assert "lpips" not in domain.score(Batch({"images": images}), {"images": images}).per_example


@pytest.mark.usefixtures("packages")
def test_with_weights_it_is_a_metric_like_the_others(hub):
    (hub / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    for channels in (1, 3, 4):
        domain = Images((channels, 8, 8))
        images = torch.rand(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
        assert domain.metrics[-1].name == "lpips"
        scores = domain.score(Batch({"images": images}), {"images": images + torch.tensor([0.0, 0.1]).view(2, 1, 1, 1)})
        assert scores.per_example["lpips"][0] == 0 < scores.per_example["lpips"][1]
