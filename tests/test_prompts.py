"""Class names and prompts of zero-shot classification.

The published ones, a user's own, and the messages about wrong ones before anything is trained.
"""

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
from registers.settings.identity import words_digest
from registers.settings.load import load_settings
from registers.world.plan import KINDS

# ImageNet-1k's first, one in the middle, its last
SYNSETS = ["n01440764", "n02123045", "n15075141"]
NAMES = ("tench", "tabby cat", "loo roll")


@pytest.fixture
def photos(tmp_path):
    """A folder of images, one black image a class; its setting `data`."""
    for split in ("train", "val"):
        for synset in SYNSETS:
            folder = tmp_path / "photos" / split / synset
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "0.png")
    return {"root": str(tmp_path), "use": "folder:photos"}


def with_overrides(data=None, **zeroshot):
    overrides = {f"zeroshot.{key}": str(value) for key, value in zeroshot.items()}
    return load_settings(({"data": data} if data else {}) | {"overrides": overrides})


def test_the_80_templates_are_open_clips():
    ours = prompts.templates()
    theirs = open_clip.OPENAI_IMAGENET_TEMPLATES
    assert len(ours) == 80
    assert [template("tench") for template in ours] == [template("tench") for template in theirs]


def test_bare_synset_folders_have_the_names_of_published_results(tmp_path):
    published = open_clip.IMAGENET_CLASSNAMES
    names = folder_names(SYNSETS, tmp_path)
    assert names == (published[0], published[281], published[999])
    assert names == ("tench", "tabby cat", "toilet paper")


def test_other_synsets_have_their_first_lemma(tmp_path):
    in_22k, nowhere = "n00005787", "n99999999"
    assert folder_names([in_22k, nowhere], tmp_path) == ("benthos", nowhere)
    assert len(prompts.synset_names()) > 21_000


def test_templates_of_a_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a photo of a {}.\n\n  {} {x}, twice {}\n")
    assert [template("red {} fox") for template in prompts.templates(str(path))] == [
        "a photo of a red {} fox.",
        "red {} fox {x}, twice red {} fox",
    ]


CLASS_FILES = {
    "names.txt": "tench\ntabby cat\n\nloo roll\n",
    "list.json": json.dumps(NAMES),
    "map.json": json.dumps(dict(zip(SYNSETS, NAMES)) | {"n99999999": "one more"}),
    "imagenet_class_index.json": json.dumps(
        {
            str(label): [synset, name.replace(" ", "_")]
            for label, (synset, name) in enumerate(zip(SYNSETS, NAMES))
        }
    ),
}


@pytest.mark.parametrize("file", CLASS_FILES)
def test_classes_of_a_file(tmp_path, file):
    (tmp_path / file).write_text(CLASS_FILES[file])
    assert prompts.class_names(str(tmp_path / file), SYNSETS, SYNSETS) == NAMES


def test_a_mapping_goes_by_the_folder(tmp_path):
    (tmp_path / "map.json").write_text(CLASS_FILES["map.json"])
    backwards = SYNSETS[::-1]
    names = prompts.class_names(str(tmp_path / "map.json"), backwards, backwards)
    assert names == NAMES[::-1]


def test_own_names_need_no_file():
    assert prompts.class_names("own", ["a", "b"], ["x", "y"]) == ("a", "b")


WRONG = [
    (
        "classes",
        "names.txt",
        "tench\ncat\n",
        r'2 names; must be 3, one for each class of the data set .*"n01440764" to "n15',
    ),
    (
        "classes",
        "names.json",
        '{"n01440764": "tench"}',
        'no name for 2 of 3 classes, the first: "n02123045"',
    ),
    ("classes", "names.json", '{"n01440764": ', "not JSON"),
    ("classes", "names.json", '{"n01440764": 3}', "must be a list of names or a mapping of class"),
    ("classes", "names.json", '{"0": [["n01440764"], "tench"]}', "must be a list of names"),
    ("classes", "names.json", "7", "must be a list of names or a mapping"),
    ("classes", "missing.txt", None, "no such file; must be own or a file"),
    (
        "templates",
        "prompts.txt",
        "a photo of a {}.\na photo.\n",
        r'line 2, "a photo\.", has no \{\} for the name',
    ),
    ("templates", "prompts.txt", "\n", "no template in it"),
    ("templates", "openia", None, "no such file; must be openai or a file"),
]


@pytest.mark.parametrize("key, name, content, message", WRONG)
def test_wrong_files_are_one_line_before_anything_is_trained(
    tmp_path, photos, key, name, content, message
):
    if content is not None:
        (tmp_path / name).write_text(content)
    settings = with_overrides(photos, **{key: tmp_path / name})
    expected = rf'^zeroshot\.{key} = ".*{name}": {message}'
    with pytest.raises(ConfigError, match=expected) as caught:
        catalogue.check_words(settings)
    assert "\n" not in str(caught.value)


def test_the_world_takes_other_names_too(tmp_path):
    path = tmp_path / "names.json"
    path.write_text(json.dumps({kind: f"drawn {kind}" for kind in KINDS}))
    catalogue.check_words(with_overrides(classes=path))

    path = tmp_path / "names.txt"
    path.write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match=f"2 names; must be {len(KINDS)}, one for each class"):
        catalogue.check_words(with_overrides(classes=path))


def test_captions_are_made_of_the_names_that_will_be_asked(tmp_path, photos):
    path = tmp_path / "names.json"
    names = ("perch", "lynx", "tissue")
    path.write_text(json.dumps(dict(zip(SYNSETS, names))))
    dataset = catalogue.open_dataset(with_overrides(photos, classes=path), "text", "train")
    assert dataset.classes == names
    for index in range(3):
        sample = dataset[index]
        assert names[sample.label] in sample.caption


def test_captions_have_published_names_by_default(photos):
    dataset = catalogue.open_dataset(with_overrides(photos), "text", "train")
    assert dataset.classes == ("tench", "tabby cat", "toilet paper")


def test_a_changed_file_changes_the_digest(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("a\n")
    before = words_digest(str(path))
    path.write_text("b\n")
    assert words_digest(str(path)) != before
    assert words_digest("own") == "own"


def test_reading_prompts_imports_neither_torch_nor_open_clip():
    code = (
        "import sys; from registers.data import prompts; "
        "prompts.templates(); prompts.synset_names(); "
        "print({'torch', 'timm', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
