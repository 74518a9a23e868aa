"""A patch embedding with learnt positions gives one image away, or the attack says why it does not."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from invertigo import models
from invertigo.attacks import reconstruct
from invertigo.auditing.record import AttackRecord
from invertigo.auditing.verdict import is_certified
from invertigo.domains import Images
from invertigo.federation import observe
from invertigo.types import Batch, LocalTraining, Observation, RequirementError, Task


def picture(shape, count=1, dtype=torch.float32):
    drawn = torch.rand(count, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return Batch({"images": drawn.to(dtype), "labels": torch.arange(count) % 10})


def see(model, batch, shape, local=None, loss=cross_entropy):
    return observe(Task(model, loss, Images(shape), 10), batch, local or LocalTraining(), level=1)


def vit(shape, dtype=torch.float32, **options):
    generator = torch.Generator().manual_seed(0)
    return models.build("vit", input_shape=shape, num_classes=10, generator=generator, **options).to(dtype)


def worst_db(batch, rebuilt):
    error = (rebuilt.fields["images"].double() - batch["images"].double()).square().flatten(1).mean(1)
    return float(-10 * error.log10().max())


class HuggingFaceShaped(nn.Module):
    """Names and order of a Hugging Face ViT: patch projection, class token, positions in one parameter, encoder."""

    def __init__(self, width=64):
        super().__init__()
        self.embeddings = nn.Module()
        self.embeddings.projection = nn.Conv2d(3, width, 8, stride=8)
        self.embeddings.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.embeddings.position_embeddings = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.classifier = nn.Linear(width, 10)

    def forward(self, pixels):
        tokens = self.embeddings.projection(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.embeddings.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        return self.classifier(self.layer(tokens + self.embeddings.position_embeddings)[:, 0])


class LinearPatches(nn.Module):
    """Patches cut by hand, an embedding table of positions, mean pooling; pixels normalised first."""

    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Linear(48, 40), nn.Embedding(16, 40)
        self.mix = nn.Sequential(nn.LayerNorm(40), nn.Linear(40, 40), nn.GELU())
        self.head = nn.Linear(40, 10)

    def forward(self, x):
        patches = ((x - 0.5) / 0.25).unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return self.head(self.mix(self.embed(patches) + self.place(torch.arange(16))).mean(1))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 30, 26)])
def test_our_vit_gives_one_image_away(shape):
    batch = picture(shape)
    rebuilt = reconstruct(see(vit(shape), batch, shape), "token_solve")
    assert worst_db(batch, rebuilt) >= 80
    assert rebuilt.stopped == "exact"


def test_a_hugging_face_shaped_vit_and_patches_cut_by_hand():
    torch.manual_seed(0)
    for model, shape in ((HuggingFaceShaped(), (3, 32, 32)), (LinearPatches(), (3, 16, 16))):
        batch = picture(shape)
        assert worst_db(batch, reconstruct(see(model, batch, shape), "token_solve")) >= 80


def test_a_real_hugging_face_vit():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, image_size=32, patch_size=8,
        num_labels=10, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)

    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x).logits

    shape, batch = (3, 32, 32), picture((3, 32, 32))
    assert worst_db(batch, reconstruct(see(Scores(), batch, shape), "token_solve")) >= 80


def test_any_scale_any_loss_and_several_local_steps():
    shape, batch = (3, 32, 32), picture((3, 32, 32))
    local = LocalTraining(sends="difference", epochs=3, learning_rate=0.05)
    assert worst_db(batch, reconstruct(see(vit(shape), batch, shape, local), "token_solve")) >= 60

    def odd(scores, labels):
        return 7 * mse_loss(scores, torch.nn.functional.one_hot(labels, 10).float())

    assert worst_db(batch, reconstruct(see(vit(shape), batch, shape, loss=odd), "token_solve")) >= 80


def test_several_images_are_refused_also_when_their_number_is_not_known():
    shape, batch = (3, 32, 32), picture((3, 32, 32), 2)
    seen = see(vit(shape), batch, shape)
    with pytest.raises(RequirementError, match="sum over 2 images"):
        reconstruct(seen, "token_solve")
    blind = type(seen)(seen.task, seen.parameters, seen.buffers, seen.update, seen.local)
    with pytest.raises(RequirementError, match="No single image explains"):
        reconstruct(blind, "token_solve")


def test_more_tokens_than_their_width_and_no_positions_are_refused():
    shape, batch = (3, 32, 32), picture((3, 32, 32))
    with pytest.raises(RequirementError, match="64 tokens of width 32"):
        reconstruct(see(vit(shape, dim=32), batch, shape), "token_solve")
    bare = nn.Sequential(nn.Conv2d(3, 64, 8, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))
    with pytest.raises(RequirementError, match="learnt position"):
        reconstruct(see(bare, batch, shape), "token_solve")


def test_where_no_equation_is_left_over_an_image_is_returned_but_not_certified():
    # 16 tokens of width 17, of which LayerNorm's mean takes one direction away: any gradient is solved by some image.
    shape = (1, 16, 16)
    batch = picture(shape, dtype=torch.float64)
    model = vit(shape, torch.float64, dim=17, depth=1, heads=1)
    gradients = torch.autograd.grad(cross_entropy(model(batch["images"]), batch["labels"]), list(model.parameters()))
    sent = dict(zip((name for name, _ in model.named_parameters()), gradients, strict=True))
    seen = Observation.from_gradients(model, cross_entropy, sent, domain=Images(shape), num_classes=10)
    rebuilt = reconstruct(seen, "token_solve")
    assert worst_db(batch, rebuilt) > 80
    assert rebuilt.stopped == "converged"
    assert not is_certified(record_of(rebuilt))
    assert is_certified(record_of(replace(rebuilt, stopped="exact")))


def record_of(rebuilt):
    return AttackRecord(
        level=1, attack=rebuilt.attack, paper="p", exact=True, status="ran", stopped=rebuilt.stopped, residual=1e-12
    )


def test_as_many_tokens_as_they_are_wide_without_layernorm_prove_nothing_either():
    torch.manual_seed(0)
    model, batch = LinearPatches().double(), picture((3, 16, 16), dtype=torch.float64)
    model.embed, model.place = nn.Linear(48, 16).double(), nn.Embedding(16, 16).double()
    model.mix, model.head = nn.Sequential(nn.Linear(16, 16), nn.Tanh()).double(), nn.Linear(16, 10).double()
    rebuilt = reconstruct(see(model, batch, (3, 16, 16)), "token_solve")
    assert worst_db(batch, rebuilt) > 60
    assert rebuilt.stopped == "converged"
    assert not is_certified(record_of(rebuilt))
