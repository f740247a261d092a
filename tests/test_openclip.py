"""OpenCLIP's recipe and text tower against open_clip itself."""

import math
import random

import numpy as np
import pytest
import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES
from open_clip.loss import ClipLoss
from open_clip_train.scheduler import cosine_lr
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from registers.data.sample import Sample
from registers.methods.method import Progress
from registers.methods.openclip import OpenClip, learning_rate, occurring_tokens
from registers.models import checkpoint
from registers.models.text import TextTower, pack, tokenizer, unpack
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings

torch.set_num_threads(1)


class Colours:
    """Plain images of three colours with captions that name them."""

    classes = ("red", "green", "blue")
    attributes = {}
    fingerprint = "colours"

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> Sample:
        label = index % 3
        pixels = np.random.default_rng(index).integers(0, 90, (16, 16, 3))
        pixels[..., label] += 150
        wording = ("a photo of a {}.", "something {}", "here is a {} square")[index // 3 % 3]
        return Sample(
            Image.fromarray(pixels.astype(np.uint8)),
            str(index),
            label,
            wording.format(self.classes[label]),
        )


def method(registers: int = 1, **recipe) -> OpenClip:
    small = {"image_size": 16, "sizes.base.width": 32, "sizes.base.depth": 2, "sizes.base.heads": 2}
    text = {
        "embed": 16,
        "context": 16,
        "text_width": 16,
        "text_depth": 1,
        "text_heads": 2,
        "vocabulary": "corpus",
        **recipe,
    }
    settings = load_settings(
        {
            "scale": "laptop",
            "overrides": {**small, **{f"recipes.openclip.{k}": v for k, v in text.items()}},
        }
    )
    torch.manual_seed(0)
    return OpenClip(settings, BackboneId("openclip", registers, 0), Colours())


def batch_of(clip: OpenClip, indices) -> dict[str, torch.Tensor]:
    examples = [clip.augment(Colours()[i]) for i in indices]
    return {k: torch.stack([e[k] for e in examples]) for k in examples[0]}


def train(clip: OpenClip, steps: int, batch: int = 24) -> None:
    optimizer = clip.optimizer()
    for step in range(steps):
        random.seed(step), torch.manual_seed(step)
        clip.schedule(optimizer, Progress(step, steps))
        optimizer.zero_grad()
        clip(
            batch_of(clip, [(batch * step + i) % 96 for i in range(batch)]), Progress(step, steps)
        )["loss"].backward()
        optimizer.step()
        clip.after_step(Progress(step, steps))


def test_trained_towers_survive_the_disk(tmp_path):
    clip = method(lr=3e-3, warmup=5)
    train(clip, 2)
    tensors, facts = clip.eval().extras()
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, clip.backbone, facts, tensors)

    projection, text = unpack(checkpoint.load_extras(path), checkpoint.card(path))
    assert torch.equal(projection, clip.projection)
    texts = ["a photo of a red.", "here is a blue square"]
    assert torch.allclose(text.encode(texts), clip.text.encode(texts), atol=1e-5)


def test_text_tower_equals_open_clips_forward():
    tower = TextTower(embed=16, context=20, width=32, depth=2, heads=2).eval()
    texts = [
        "a photo of a cat",
        "two",
        "the quick brown fox jumps over the lazy dog and runs on and on and on and on",
    ]
    tokens = tower.tokenize(texts)
    # the last one is cut, with its end of text
    assert torch.equal(tokens, tokenizer()(texts, context_length=20))
    assert torch.allclose(tower(tokens), tower.transformer(tokens), atol=1e-6)
    few = tokens[:2]  # a shorter batch has fewer positions
    assert torch.allclose(tower(few), tower.transformer(few), atol=1e-6)


def test_a_corpus_vocabulary_trains_to_the_same_towers_as_the_full_one():
    full, compact = method(vocabulary="full"), method(vocabulary="corpus")
    state = full.state_dict()
    kept = compact.text.vocabulary
    state["text.transformer.token_embedding.weight"] = state[
        "text.transformer.token_embedding.weight"
    ][kept]
    compact.load_state_dict({**state, "text.vocabulary": kept})
    assert len(kept) < 500
    train(full, 4)
    train(compact, 4)
    prompts = [template(c) for template in OPENAI_IMAGENET_TEMPLATES[:5] for c in Colours.classes]
    assert torch.allclose(full.text.encode(prompts), compact.text.encode(prompts), atol=1e-5)
    weight = full.text.transformer.token_embedding.weight[kept]
    assert torch.allclose(weight, compact.text.transformer.token_embedding.weight, atol=1e-6)


def test_corpus_vocabulary_holds_captions_and_prompts():
    kept = occurring_tokens(Colours(), 16)
    for text in [
        "here is a green square",
        *(template("blue") for template in OPENAI_IMAGENET_TEMPLATES),
    ]:
        assert set(tokenizer().encode(text)[:14]) <= kept


def test_loss_equals_open_clips():
    clip = method().eval()
    batch = batch_of(clip, range(12))
    ours = clip(batch, Progress(0, 10))
    image = F.normalize(clip.backbone(batch["image"]).cls @ clip.projection, dim=-1)
    text = F.normalize(clip.text(batch["tokens"]), dim=-1)
    assert torch.allclose(ours["loss"], ClipLoss()(image, text, clip.logit_scale.exp()), atol=1e-5)
    assert ours["logit_scale"].item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_logit_scale_is_clamped_to_open_clips_range():
    clip = method()
    for value, kept in ((9.0, math.log(100)), (-1.0, 0.0), (3.0, 3.0)):
        with torch.no_grad():
            clip.logit_scale.fill_(value)
        clip.after_step(Progress(0, 10))
        assert clip.logit_scale.item() == pytest.approx(kept, rel=1e-6)


def test_optimizer_groups():
    clip = method(registers=2)
    optimizer = clip.optimizer()
    decayed, kept = optimizer.param_groups
    names = {id(p): n for n, p in clip.named_parameters()}
    spared = {names[id(p)] for p in kept["params"]}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.2, 0.0)
    assert optimizer.defaults["betas"] == (0.9, 0.98) and optimizer.defaults["eps"] == 1e-6
    prefix = {f"backbone.vit.{n}" for n in ("pos_embed", "cls_token", "reg_token")}
    assert prefix | {"logit_scale", "text.transformer.positional_embedding"} <= spared
    assert {
        "projection",
        "text.transformer.token_embedding.weight",
        "text.transformer.text_projection",
    } <= {names[id(p)] for p in decayed["params"]}
    assert len(spared) + len(decayed["params"]) == len(names)


def test_learning_rate_equals_open_clips_schedule():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    official = cosine_lr(optimizer, base_lr=5e-4, warmup_length=10, steps=50)
    for step in range(50):
        official(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(
            learning_rate(step, 50, 10, 5e-4), rel=1e-9
        )


def test_image_tower_is_clips():
    vit = method().backbone.vit
    assert isinstance(vit.norm_pre, nn.LayerNorm) and vit.patch_embed.proj.bias is None


def test_what_is_missing_is_named(tmp_path):
    clip = method().eval()
    with pytest.raises(ValueError, match="no caption"):
        clip.augment(Sample(Image.new("RGB", (16, 16)), "x"))
    with pytest.raises(ValueError, match="checkpoint = dinov2-r0-s0: it has no text tower"):
        unpack({}, {"id": "dinov2-r0-s0"})


def test_packed_towers_are_plain_tensors(tmp_path):
    clip = method()
    tensors, facts = pack(clip.projection, clip.text)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, tmp_path / "x.safetensors")
    _, again = unpack({k: v.detach() for k, v in tensors.items()}, facts)
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), clip.text.state_dict().values())
    )
