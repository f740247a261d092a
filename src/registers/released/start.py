"""Before a run of published models: what it fetches, under which licences, and whether it can."""

import os
import shutil
from pathlib import Path

from registers import artifacts
from registers.audit import hub
from registers.core_speed import core_flops
from registers.exact import demands
from registers.readers import photos
from registers.released import lock
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.released import PublishedModel, catalogue
from registers.settings.run import Settings
from registers.vocabulary import added

LINE = 100e6 / 8  # bytes a second of an ordinary line, for a first idea of the time
TIMEOUT = 10  # seconds until the hub counts as out of reach
SHARE = 0.5  # of a large matrix product's speed that a ViT reaches


def plan(settings: Settings) -> str:
    """What a run fetches and computes: models with licences, disk and time; lines for people."""
    models = [catalogue()[id] for id in settings.models]
    published = [model for model in models if not model.test_time_of]
    noun = "model" if len(published) == 1 else "models"
    waiting = missing(settings)
    fetched = sum(model.mb for model in waiting)
    lines = [
        f"{len(published)} published {noun}, {sum(model.mb for model in models)} MB; "
        + (_fetching(waiting, fetched) if waiting else "all are on this machine"),
        *(_about(model, model in waiting) for model in models),
        lock.moved(waiting),
        f"looking at them takes about {max(1, _minutes(settings)):.0f} core-minutes here",
    ]
    return "\n".join(filter(None, lines))


def check(settings: Settings) -> None:
    """Raise ConfigError, one line, where a model is neither here nor can be fetched.

    It says what is missing and the commands that fetch it elsewhere and bring it along.
    """
    waiting = missing(settings)
    if not waiting:
        return
    why = "HF_HUB_OFFLINE is set" if hub.is_offline() else _unreachable()
    if why:
        names = ", ".join(model.id for model in waiting)
        downloads = " && ".join(_download(model) for model in waiting)
        raise ConfigError(
            f"models: {names} are not on this machine and cannot be fetched ({why}); where there "
            f"is a network run `{downloads}` and bring the folders models--* of its "
            f"~/.cache/huggingface/hub to {cache()}"
        )
    free = shutil.disk_usage(_existing(cache())).free / hub.MB
    wanted = sum(model.mb for model in waiting)
    if free < wanted:
        raise ConfigError(
            f"models: need {wanted} MB, and {free:.0f} MB are free at {cache()}; free some space "
            "there, set HF_HOME to a folder on another disk, or name fewer models"
        )


def missing(settings: Settings) -> list[PublishedModel]:
    """The models that are neither checkpoints of this run nor in the hub's cache."""
    return [
        model
        for model in (catalogue()[id] for id in settings.models)
        if not model.test_time_of  # made of another one, which is among the models
        and not settings.layout.checkpoint(model.id).is_file()
        and not any(hub.cached(model.repository, name, model.revision) for name in hub.WEIGHT_FILES)
    ]


def cache() -> Path:
    """The folder that huggingface_hub keeps what it fetches in."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


# --- in words


def _fetching(waiting: list[PublishedModel], mb: int) -> str:
    minutes = mb * 1e6 / LINE / 60
    free = shutil.disk_usage(_existing(cache())).free / 1e9
    return (
        f"{len(waiting)} to fetch, {mb} MB, {minutes:.0f} minutes at 100 Mbit/s, "
        f"to {cache()} ({free:.0f} GB free)"
    )


def _about(model: PublishedModel, waits: bool) -> str:
    if model.test_time_of:
        tokens = added(model.backbone.registers)
        return f"  {model.id:22} {tokens}, made of {model.test_time_of}"
    licence = model.licence + (" (forbids commercial use)" if model.non_commercial else "")
    at = model.revision if model.pinned else f"{model.revision}, not pinned"
    state = "to fetch" if waits else "here"
    return f"  {model.id:22} {model.mb:5} MB  {state:8}  {licence}  {model.repository} ({at})"


def _download(model: PublishedModel) -> str:
    pin = f" --revision {model.revision}" if model.pinned else ""
    return f"hf download {model.repository} {hub.WEIGHT_FILES[0]}{pin}"


def _minutes(settings: Settings) -> float:
    """Core-minutes of the forward passes for token banks and questions that see images."""
    questions = ["tokens", "maps", "discovery"]
    asked = [q for q in questions if q == "tokens" or not artifacts.unanswerable(settings, q)]
    images = settings.bank.images
    if settings.data.eval == "photos":
        images = min(images, len(photos.VIEWS) * len(photos.installed()))
    bank = settings.bank.model_copy(update={"images": images})
    settings = settings.model_copy(update={"bank": bank})
    work = sum(
        demands.question_flops(settings, BackboneId.parse(id), question)
        for id in settings.models
        for question in asked
    )
    return work / (SHARE * core_flops()) / 60


def _unreachable() -> str:
    """Why the hub cannot be asked; "" where it answers, whatever it says."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except (HTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0][:80]
        return f"no network to {constants.ENDPOINT}: {reason}"
    return ""


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not os.path.isdir(folder):
        folder = folder.parent
    return folder
