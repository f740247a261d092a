"""Zero-shot classification: planted answers, and the classifier against open_clip's."""

import pytest
import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES, build_zero_shot_classifier
from test_openclip import Colours, method, train
from torch import nn
from torch.nn import functional as F

from registers.evals import zeroshot
from registers.models import checkpoint
from registers.models.text import TextTower, tokenizer
from registers.readers.evaluation_set import EvaluationSet

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


@pytest.fixture(scope="module")
def clip():
    """Trained until colours are told apart; at first all images look alike to it."""
    clip = method(lr=3e-3, warmup=5)
    train(clip, 200)
    return clip.eval()


def ask(clip, classes=Colours.classes, dataset=None):
    """The one row for the three colours: with three classes, top-5 would be 1 by definition."""
    (row,) = zeroshot.classify(
        clip.backbone,
        clip.projection,
        clip.text,
        dataset or Colours(),
        count=96,
        size=16,
        classes=classes,
        templates=["a photo of a {}.".format, "something {}".format],
    )
    return row


def test_trained_towers_classify_without_labels_from_the_disk(clip, tmp_path):
    tensors, facts = clip.extras()
    path = tmp_path / "last.safetensors"
    facts = {**facts, "normalization": clip.normalization}
    checkpoint.save(path, clip.backbone, facts, tensors)

    backbone = checkpoint.load(path)
    images = EvaluationSet.of("colours", None, Colours())
    (row,) = zeroshot.measure(backbone, [images], clip.settings).rows
    assert (row.metric, row.data, row.backbone) == ("top1", "colours", "openclip-r1-s0")
    assert row.value > 0.9
    assert row.low < row.value <= row.high
    assert row.n == 96
    assert row.chance == pytest.approx(1 / 3)
    assert row.note == "80 prompts"


def test_the_names_decide(clip):
    """With those of two classes exchanged, right answers of these classes become wrong ones."""
    right = ask(clip)
    assert right.value > 0.9
    assert right.note == "2 prompts"
    assert ask(clip, ("green", "red", "blue")).value < 0.45
    unseen = "1 of 3 class names with words that no caption had, the first: aubergine"
    assert ask(clip, ("red", "green", "aubergine")).note == f"2 prompts; {unseen}"


def test_no_usable_image_is_one_clear_line(clip):
    class Unlabelled(Colours):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return type(sample)(sample.image, sample.name)

    with pytest.raises(ValueError, match="none of 96 images can be used; the first: 0: has no"):
        ask(clip, dataset=Unlabelled())


def test_another_methods_checkpoint_has_no_text_tower(clip, tmp_path):
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, clip.backbone, {"normalization": clip.normalization})
    images = EvaluationSet.of("colours", None, Colours())
    with pytest.raises(ValueError, match="it has no text tower"):
        zeroshot.measure(checkpoint.load(path), [images], clip.settings)


def test_the_classifier_equals_open_clips():
    tower = TextTower(embed=16, context=20, width=32, depth=1, heads=2).eval()

    class OpenClipsView(nn.Module):
        def encode_text(self, tokens, normalize):
            embeddings = tower.transformer(tokens)
            return F.normalize(embeddings, dim=-1) if normalize else embeddings

    def tokenize(texts):
        return tokenizer()(texts, context_length=20)

    classes = ["tench", "great white shark", "toilet paper"]
    templates = OPENAI_IMAGENET_TEMPLATES[::8]
    official = build_zero_shot_classifier(OpenClipsView(), tokenize, classes, templates)
    assert torch.allclose(zeroshot.classifier(tower, classes, templates), official, atol=1e-6)


def test_planted_embeddings_give_the_planted_ranks():
    weights = torch.eye(8)  # eight classes along the axes
    image = torch.zeros(4, 8)
    image[0, 3] = 2.0  # class 3 is the first
    image[1] = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.0, 0.0, 0.0])  # class 4 is the fifth
    image[2] = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.0, 0.0])  # class 5 is the sixth
    image[3, 7] = 1.0
    hits = zeroshot.hits(image, torch.tensor([3, 4, 5, 7]), weights, 5)
    assert hits[:, 0].tolist() == [True, False, False, True]
    assert hits[:, 4].tolist() == [True, True, False, True]
    assert (hits[:, 1:] >= hits[:, :-1]).all()  # a hit among k is one among k + 1
