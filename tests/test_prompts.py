"""Class names and prompts of zero-shot classification: the published ones, a user's own, and what is said of wrong ones before a run."""

import json
import subprocess
import sys

import open_clip
import pytest
from PIL import Image

from registers.data import prompts
from registers.readers import catalogue
from registers.readers.image_folder import class_names as folder_names
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings
from registers.world.plan import KINDS

SYNSETS = [
    "n01440764",
    "n02123045",
    "n15075141",
]  # ImageNet-1k's first, one in the middle, its last


def test_the_80_templates_are_open_clips():
    ours, theirs = prompts.templates(), open_clip.OPENAI_IMAGENET_TEMPLATES
    assert len(ours) == 80 and [t("tench") for t in ours] == [t("tench") for t in theirs]


def test_bare_synset_folders_have_the_names_of_published_results(tmp_path):
    theirs = open_clip.IMAGENET_CLASSNAMES
    assert (
        folder_names(SYNSETS, tmp_path)
        == (theirs[0], theirs[281], theirs[999])
        == ("tench", "tabby cat", "toilet paper")
    )
    assert folder_names(["n00005787", "n99999999"], tmp_path) == (
        "benthos",
        "n99999999",
    )  # ImageNet-22k's; nobody's
    assert len(prompts.synset_names()) > 21_000


def test_templates_of_a_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a photo of a {}.\n\n  {} {x}, twice {}\n")
    assert [t("red {} fox") for t in prompts.templates(str(path))] == [
        "a photo of a red {} fox.",
        "red {} fox {x}, twice red {} fox",
    ]


def test_classes_of_a_text_and_of_json(tmp_path):
    (tmp_path / "names.txt").write_text("tench\ntabby cat\n\nloo roll\n")
    (tmp_path / "list.json").write_text(json.dumps(["tench", "tabby cat", "loo roll"]))
    (tmp_path / "map.json").write_text(
        json.dumps(
            dict(zip(SYNSETS, ["tench", "tabby cat", "loo roll"])) | {"n99999999": "one more"}
        )
    )
    index = {
        str(i): [s, n] for i, (s, n) in enumerate(zip(SYNSETS, ["tench", "tabby_cat", "loo_roll"]))
    }
    (tmp_path / "imagenet_class_index.json").write_text(json.dumps(index))
    for file in ("names.txt", "list.json", "map.json", "imagenet_class_index.json"):
        assert prompts.class_names(str(tmp_path / file), SYNSETS, SYNSETS) == (
            "tench",
            "tabby cat",
            "loo roll",
        ), file
    assert prompts.class_names("own", ["a", "b"], ["x", "y"]) == ("a", "b")
    # a mapping goes by the folder, a list by the place
    assert prompts.class_names(str(tmp_path / "map.json"), SYNSETS[::-1], SYNSETS[::-1]) == (
        "loo roll",
        "tabby cat",
        "tench",
    )


@pytest.mark.parametrize(
    "key, name, content, said",
    [
        (
            "classes",
            "names.txt",
            "tench\ncat\n",
            r'2 names; the data set has 3 classes, allowed is one name for each, .*"n01440764" to "n15',
        ),
        (
            "classes",
            "names.json",
            '{"n01440764": "tench"}',
            'no name for 2 of 3 classes, the first: "n02123045"',
        ),
        ("classes", "names.json", '{"n01440764": ', "not JSON"),
        (
            "classes",
            "names.json",
            '{"n01440764": 3}',
            "allowed is a list of names or a mapping of class folders to names",
        ),
        ("classes", "names.json", "7", "allowed is a list of names or a mapping"),
        ("classes", "missing.txt", None, "no such file; allowed are own or a file"),
        (
            "templates",
            "prompts.txt",
            "a photo of a {}.\na photo.\n",
            r'line 2, "a photo\.", has no \{\} for the name',
        ),
        ("templates", "prompts.txt", "\n", "no template in it"),
        ("templates", "openia", None, "no such file; allowed are openai or a file"),
    ],
)
def test_wrong_words_are_one_line_before_anything_is_trained(tmp_path, key, name, content, said):
    for split in ("train", "val"):
        for synset in SYNSETS:
            (tmp_path / "photos" / split / synset).mkdir(parents=True)
    if content is not None:
        (tmp_path / name).write_text(content)
    data = {"root": str(tmp_path), "use": "folder:photos"}
    settings = load_settings({"data": data, "overrides": {f"zeroshot.{key}": str(tmp_path / name)}})
    with pytest.raises(ConfigError, match=rf'^zeroshot\.{key} = ".*{name}": {said}') as caught:
        catalogue.check_words(settings)
    assert "\n" not in str(caught.value)


def test_the_world_takes_other_names_too(tmp_path):
    (tmp_path / "names.json").write_text(json.dumps({kind: f"drawn {kind}" for kind in KINDS}))
    catalogue.check_words(
        load_settings({"overrides": {"zeroshot.classes": str(tmp_path / "names.json")}})
    )
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match=f"2 names; the data set has {len(KINDS)} classes"):
        catalogue.check_words(
            load_settings({"overrides": {"zeroshot.classes": str(tmp_path / "names.txt")}})
        )


def test_captions_are_made_of_the_names_that_will_be_asked(tmp_path):
    for split in ("train", "val"):
        for synset in SYNSETS:
            (tmp_path / "photos" / split / synset).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "photos" / split / synset / "0.png")
    (tmp_path / "names.json").write_text(
        json.dumps(dict(zip(SYNSETS, ["perch", "lynx", "tissue"])))
    )
    data, chosen = (
        {"root": str(tmp_path), "use": "folder:photos"},
        {"zeroshot.classes": str(tmp_path / "names.json")},
    )
    dataset = catalogue.open_dataset(
        load_settings({"data": data, "overrides": chosen}), "text", "train"
    )
    assert dataset.classes == ("perch", "lynx", "tissue")
    assert all(
        dataset.classes[sample.label] in sample.caption for sample in (dataset[i] for i in range(3))
    )
    assert catalogue.open_dataset(load_settings({"data": data}), "text", "train").classes == (
        "tench",
        "tabby cat",
        "toilet paper",
    )


def test_changed_words_are_noticed(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("a\n")
    before = prompts.digest(str(path))
    path.write_text("b\n")
    assert prompts.digest(str(path)) != before and prompts.digest("own") == "own"


def test_reading_words_imports_neither_torch_nor_open_clip():
    load = (
        "import sys; from registers.data import words; prompts.templates(); prompts.synset_names()"
    )
    code = f"{load}; print({{'torch', 'timm', 'open_clip'}} & set(sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "set()"
    )
