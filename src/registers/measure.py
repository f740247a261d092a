"""Asking a question: open its subject, measure, write rows and arrays, record the run."""

from importlib import import_module

from registers import tracking
from registers.files import write_arrays
from registers.measurements import Measured, write
from registers.questions import QUESTIONS, Question
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError, nearest
from registers.settings.run import Settings


def measure(settings: Settings, name: str, backbone: str = "", began: float | None = None) -> None:
    """Answer question `name` about a backbone ("" for an exact question) and write what it leaves.

    began: when the job began, in seconds since the epoch, for the run's duration. Raises
    ConfigError for an unknown question or backbone, or where its bank or checkpoint is not there.
    """
    question = QUESTIONS.get(name)
    if question is None:
        raise ConfigError(
            f'question = "{name}": must be one of {", ".join(QUESTIONS)}{nearest(name, QUESTIONS)}'
        )
    if bool(backbone) != (question.reads != "nothing"):
        wanted = "no backbone" if question.reads == "nothing" else "the id of a backbone"
        raise ConfigError(f'{name} "{backbone}": must be asked of {wanted}')
    if backbone:
        BackboneId.parse(backbone)  # before a path is made of it

    module = import_module(question.module)
    sets = _data(settings, question)
    measured: Measured = module.measure(_subject(settings, question, backbone), sets, settings)
    _check(name, question, measured)

    tags = {"question": name, "data_hash": " ".join(s.val.fingerprint for s in sets)}
    params = values(settings, name)
    if backbone:
        tags |= identity_tags(backbone)
        params |= {"size": size_of(settings, backbone)}
    path = settings.layout.measurement(name, backbone)
    with tracking.run(
        settings.results, name, backbone or "exact", tags, params, began=began
    ) as record:
        write(path, measured.rows, run=record.key)
        if measured.arrays is not None:
            write_arrays(settings.layout.arrays(name, backbone), measured.arrays)
        record.measurements(measured.rows)
        record.artifact(path)


def identity_tags(backbone: str) -> dict[str, object]:
    """Which backbone a run is about, taken apart."""
    id = BackboneId.parse(backbone)
    return dict(method=id.method, registers=id.registers, seed=id.seed, backbone=backbone)


def size_of(settings: Settings, backbone: str) -> str:
    """Name of a backbone's size, its method's own where its id names none."""
    id = BackboneId.parse(backbone)
    return id.size or settings.recipes[id.method].size


def values(settings: Settings, name: str) -> dict[str, object]:
    """What a question reads of the settings, by dotted name: parameters of its rule and run."""
    content = settings.model_dump(mode="json")
    return {key: _at(content, key) for key in QUESTIONS[name].settings}


def _at(content: object, key: str) -> object:
    for part in key.split("."):
        content = content[part]
    return content


def _subject(settings: Settings, question: Question, backbone: str):
    """A token bank, or a backbone on its device, or None."""
    if question.reads == "bank":
        from registers.bank import TokenBank

        bank = TokenBank(settings.layout.bank(backbone))
        if bank.name != backbone:
            raise ConfigError(f"bank = {bank.folder}: holds {bank.name}; must be of {backbone}")
        return bank
    if question.reads == "checkpoint":
        return load_backbone(settings, backbone)
    return None


def load_backbone(settings: Settings, backbone: str):
    """A trained backbone on the device that the settings choose, in evaluation mode."""
    from registers.models import checkpoint
    from registers.models.device import choose_device

    path = settings.layout.checkpoint(backbone)
    return checkpoint.load(path, choose_device(settings.device), name=backbone)


def _data(settings: Settings, question: Question) -> list:
    if not question.role:
        return []
    from registers.readers.catalogue import evaluation_sets

    return evaluation_sets(settings, question.role)


def _check(name: str, question: Question, measured: Measured) -> None:
    """A row's question is its stage, and arrays are there exactly when the table says so."""
    if not measured.rows:
        raise ValueError(f"{question.module}: no rows; a question leaves at least one")
    others = {row.question for row in measured.rows} - {name}
    if others:
        raise ValueError(f"{question.module}: rows of question {', '.join(others)}; must be {name}")
    if (measured.arrays is not None) != question.arrays:
        raise ValueError(f"{question.module}: arrays must agree with questions.QUESTIONS")
