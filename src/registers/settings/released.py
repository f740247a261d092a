"""Published models: paper/released.yaml, and which of them a run of scale `released` asks for."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from registers.layout import project_folder
from registers.settings.backbone_id import BackboneId
from registers.settings.base import Integer, Section, Text, build
from registers.settings.errors import ConfigError, UnsuitableError, one_of, refusal
from registers.settings.read import read_yaml
from registers.settings.recipes import SIZES, Form

CATALOGUE = project_folder("paper") / "released.yaml"
# in the card of a model with test-time registers: what was moved, or why nothing was, in words
MOVED = "moved"
UNMOVED = "unmoved"
MAIN = "main"  # the hub's branch: a revision that is not pinned
ALL = "all"  # what `models` says for every model of the catalogue
COMMIT = re.compile(r"[0-9a-f]{40}")


class PublishedModel(Section):
    """One model of paper/released.yaml; the file's head explains the fields."""

    id: Text
    timm: Text
    repository: Text
    revision: Text = MAIN
    sha256: Text = ""
    licence: Text
    mb: Integer = Field(ge=0)
    paper: Text
    default: bool = False
    shown: bool = False
    non_commercial: bool = False
    arguments: dict[str, Any] = Field(default_factory=dict)
    test_time_of: Text | None = None

    @field_validator("id")
    @classmethod
    def _names_a_published_size(cls, text: str) -> str:
        id = BackboneId.parse(text)
        if id.size not in SIZES or id.seed or id.noaa or id.percent != 100:
            raise UnsuitableError(
                "", text, "METHOD-SIZE-rREGISTERS-s0, with or without -tt at its end"
            )
        return text

    @model_validator(mode="after")
    def _says_so_where_registers_are_added(self):
        """The name tells it (-tt), and differs from the published model's by nothing else."""
        id = self.backbone
        source = str(replace(id, registers=0, test_time=False))
        if id.test_time and (not id.registers or self.test_time_of != source):
            raise UnsuitableError("test_time_of", self.test_time_of, f"{source}, as {id} says")
        if self.test_time_of and not id.test_time:
            raise UnsuitableError("id", self.id, f"{id}-tt, as it has test_time_of")
        return self

    @property
    def backbone(self) -> BackboneId:
        return BackboneId.parse(self.id)

    @property
    def pinned(self) -> bool:
        """Whether its revision is a commit, which cannot change, and no branch."""
        return bool(COMMIT.fullmatch(self.revision))

    @property
    def patch(self) -> int:
        """Side of a patch in pixels, which timm's names of ViTs tell."""
        if "patch_size" in self.arguments:
            return self.arguments["patch_size"]
        match = re.search(r"_patch(\d+)", self.timm)
        if not match:
            raise ConfigError(f"{CATALOGUE}: {self.timm}: must name its patch or arguments of timm")
        return int(match[1])


class AuditedModel(Section):
    """A published model that `registers audit` looks at and the pipeline cannot."""

    timm: Text
    licence: Text
    why: Text


def catalogue() -> dict[str, PublishedModel]:
    """All models by id, in the file's order. Raises ConfigError for what is wrong with the file.

    One with test-time registers is what the model is that it is made of, but for what it says. A
    revision that the file does not pin is that of the lock, where there is one.
    """
    rows = {row.get("id"): row for row in read_yaml(CATALOGUE).get("models", [])}
    locked = lock()
    models = []
    for row in rows.values():
        source = row.get("test_time_of")
        if source is not None:
            if source not in rows:
                raise refusal(f"{CATALOGUE.name}: test_time_of", source, one_of(source, rows))
            row = {**rows[source], "mb": 0, "default": False, "shown": False, **row}
        pin = locked.get(row.get("repository"))
        if pin and row.get("revision", MAIN) == MAIN:
            row = {**row, **pin.model_dump()}
        models.append(build(PublishedModel, row, CATALOGUE.name))
    return {model.id: model for model in models}


class Pin(Section):
    """What a repository is held to: a commit, and the SHA-256 of its weights there."""

    revision: Text
    sha256: Text


def lock() -> dict[str, Pin]:
    """By repository, what `registers pin` wrote down; nothing where there is no such file."""
    path = lock_file()
    content = read_yaml(path) if path.is_file() else {}
    return {repository: build(Pin, row, path.name) for repository, row in content.items()}


def lock_file() -> Path:
    """Where the lock lies: beside the catalogue."""
    return CATALOGUE.with_suffix(".lock.yaml")


def audited() -> list[AuditedModel]:
    """The models for `registers audit` alone."""
    return [build(AuditedModel, row, CATALOGUE.name) for row in read_yaml(CATALOGUE)["audited"]]


def chosen(names: Any) -> tuple[str, ...]:
    """Ids that `models` means, in the catalogue's order: all, its default ones, or those listed.

    names: "all", "default", or ids; one with test-time registers brings along the published model
    that it is made of and held against. Raises ConfigError for an unknown one, and where none is
    left.
    """
    known = catalogue()
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, (list, tuple)) or not listed:
        raise refusal("models", names, "all, default, or a list of at least one")
    listed = list(listed)
    if listed == [ALL]:
        return tuple(known)
    if listed == ["default"]:
        return tuple(id for id, model in known.items() if model.default)
    for name in listed:
        if name not in known:
            raise refusal("models", name, f"all, default, or {one_of(name, known)}")
    listed += [known[name].test_time_of for name in listed]
    return tuple(id for id in known if id in listed)


def forms(models: tuple[str, ...]) -> dict[str, Form]:
    """Size and patch of each method, as recipes have them of what is trained.

    A method's own size, which figures with one model of a method show, is that which the paper
    shows, or else its largest among `models`. Of a method without a model among them it is that of
    the catalogue's first.
    """
    known = catalogue()
    own: dict[str, PublishedModel] = {}
    for model in known.values():
        own.setdefault(model.backbone.method, model)
    for id in models:
        model = known[id]
        other = own[model.backbone.method]
        if other.id not in models or _rank(model) > _rank(other):
            own[model.backbone.method] = model
    return {
        method: Form(size=model.backbone.size, patch=model.patch) for method, model in own.items()
    }


def _rank(model: PublishedModel) -> tuple[bool, int]:
    return model.shown, SIZES.index(model.backbone.size)
