"""What each job reads of the settings is what its rule declares, found by recording the reads.

A setting that a job reads and its rule does not declare leaves an old result in place when it is
changed; one that is declared and never read runs a job for nothing.
"""

import json
import os
import re

import pytest
from pipeline import SMOKE

from registers import measure, tracking
from registers.questions import QUESTIONS
from registers.readers import catalogue
from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.base import Section
from registers.settings.data import ANNOTATED_ROLES, IMAGE_ROLES
from registers.settings.identity import bank_identity, training_identity, world_identity
from registers.settings.load import load_settings

# They say where files lie, how fast a job runs and what it tells on the way, not what it finds.
NO_RESULT = {
    "scale", "data_name", "data_root", "device", "threads", "workers", "mlflow_uri",
    "log_every", "checkpoint_every",
}  # fmt: skip


def sections(value, path=""):
    """All sections inside a value with their dotted names."""
    if isinstance(value, Section):
        yield path, value
        children = [(name, vars(value)[name]) for name in type(value).model_fields]
    else:
        children = list(value.items()) if isinstance(value, dict) else []
    for name, child in children:
        yield from sections(child, f"{path}.{name}".lstrip("."))


def leaves(settings):
    """Dotted names of all single values."""
    for path, section in sections(settings):
        for name in type(section).model_fields:
            value = vars(section)[name]
            if not any(True for _ in sections(value)):
                yield f"{path}.{name}".lstrip(".")


def other(value):
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case "tiny" | "small":  # sizes that exist
            return "small" if value == "tiny" else "tiny"
        case str():
            return value + "x"
        case tuple():
            return (*value, value[-1] if value else "x")
        case dict():
            return {**value, "dinov2": 9.0}
        case None:
            return 1


def changed(settings, leaf):
    """A copy in which one value is another one; it need not make sense."""
    copy = settings.model_copy(deep=True)
    path, _, name = leaf.rpartition(".")
    vars(dict(sections(copy))[path])[name] = other(vars(dict(sections(copy))[path])[name])
    return copy


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """A folder that shares what a finished run made, and keeps what is made here to itself."""
    shared = finished / "results/smoke"
    here = tmp_path / "results/smoke"
    here.mkdir(parents=True)
    for name in ("data", "banks"):
        (here / name).symlink_to(shared / name)
    (here / "checkpoints").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "deliver", lambda *arguments, **options: (0, 0))
    return shared, here


@pytest.fixture
def reads(monkeypatch):
    """reads(settings, job): the settings that a call of `job` reads."""

    def record(settings, job):
        names = {id(section): path for path, section in sections(settings)}
        found = set()

        def get(section, name):
            path = names.get(id(section))
            if path is not None and name in type(section).model_fields:
                found.add(f"{path}.{name}".lstrip("."))
            return object.__getattribute__(section, name)

        with monkeypatch.context() as patched:
            patched.setattr(Section, "__getattribute__", get, raising=False)
            job(settings)
        return (found & set(leaves(settings))) - NO_RESULT

    return record


def compare(settings, read, declare):
    """(read and not declared, declared and not read)."""
    before = json.dumps(declare(settings), default=str)
    declared = {
        leaf
        for leaf in leaves(settings)
        if json.dumps(declare(changed(settings, leaf)), default=str) != before
    }
    return read - declared, declared - read


@pytest.fixture(scope="module")
def settings():
    return load_settings({**SMOKE, "device": "cpu"})


def told(missing):
    """What a job reads only to tell MLflow of it: the size, a change of which trains anew."""
    return {leaf for leaf in missing if re.fullmatch(r"recipes\.\w+\.size", leaf)}


def sees(role):
    """What a manifest, an input of whoever looks at the images of a role, stands for."""
    return {f"data.{role}"} if role else set()


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question(question, settings, folder, reads):
    shared, here = folder
    (here / "checkpoints").rmdir()
    (here / "checkpoints").symlink_to(shared / "checkpoints")
    backbone = "openclip-r4-s0" if question == "zeroshot" else "dinov2-r4-s0"
    backbone = "" if QUESTIONS[question].reads == "nothing" else backbone
    read = reads(settings, lambda recorded: measure.measure(recorded, question, backbone))
    missing, idle = compare(settings, read, lambda s: measure.values(s, question))
    assert missing - told(missing) == sees(QUESTIONS[question].role)
    # exact questions, which take seconds, declare recipes and sizes whole
    is_exact = QUESTIONS[question].reads == "nothing"
    assert all(is_exact and leaf.startswith(("recipes.", "sizes.")) for leaf in idle)


@pytest.mark.parametrize("method", METHODS)
def test_a_training(method, settings, folder, reads):
    from registers.train import train_backbone

    id = BackboneId(method, 4, 0)

    def train(recorded):
        train_backbone(
            recorded, id, catalogue.open_dataset(settings, METHODS[method].role, "train")
        )

    missing, idle = compare(settings, reads(settings, train), lambda s: training_identity(s, id))
    assert missing == set()
    # the world's, which its images stand for
    assert idle <= {f"data.{METHODS[method].role}", "world.pixels", "world.train"}


def test_a_token_bank(settings, folder, reads):
    from registers import verbs

    shared, here = folder
    (here / "checkpoints/dinov2-r4-s0").symlink_to(shared / "checkpoints/dinov2-r4-s0")
    (here / "banks").unlink()
    options = type("Options", (), {"backbone": "dinov2-r4-s0"})()
    read = reads(settings, lambda recorded: verbs.tokens(recorded, options))
    missing, idle = compare(settings, read, bank_identity)
    assert missing - told(missing) == sees("eval") and idle == set()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_world(split, settings, folder, reads):
    _, here = folder
    os.unlink(here / "data")
    read = reads(settings, lambda recorded: catalogue.draw_world(recorded, split, progress=False))
    assert compare(settings, read, lambda s: world_identity(s, split)) == (set(), set())


@pytest.mark.parametrize("role", [*IMAGE_ROLES, *ANNOTATED_ROLES])
def test_a_manifest(role, settings, folder, reads):
    """Its rule declares the role's data set; the worlds that it lists are inputs."""
    read = reads(settings, lambda recorded: catalogue.prepare(recorded, role, progress=False))
    worlds = {f"world.{name}" for name in ("pixels", "train", "val", "test")}
    assert read - worlds == sees(role)
    assert compare(settings, read, lambda s: s.data.specs(role))[1] == set()


def test_every_setting_is_read_by_a_job_or_said_to_be_none(settings):
    """So that a new section is not forgotten here: the recording covers all leaves."""
    sections_of_jobs = {
        *(key.partition(".")[0] for question in QUESTIONS.values() for key in question.settings),
        *(key for key in bank_identity(settings)),
        "world", "data", "recipes", "sizes", "fractions", "precision",
    }  # fmt: skip
    graph = {"methods", "registers", "seeds", "size_study", "stale", "overrides", "models"}
    rest = {leaf.partition(".")[0] for leaf in leaves(settings)} - sections_of_jobs - graph
    assert rest <= NO_RESULT
