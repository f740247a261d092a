"""The arguments of the verbs of `registers`: what each is, and what may stand in its place.

Their help shows the lists, and tab completion offers them.
"""

import textwrap
from collections.abc import Iterable
from typing import Any

from registers.questions import QUESTIONS, names
from registers.settings.data import ANNOTATED_ROLES, IMAGE_ROLES
from registers.settings.errors import ConfigError

SPLITS = ("train", "val", "test")
HELP = {
    "split": "a split of the built-in data set",
    "role": "what a data set is used for",
    "name": "a public data set",
    "backbone": "a backbone's id, such as dinov2-r4-s0: {method}[-{size}]-r{registers}-s{seed}",
    "model": "the id of a published model, such as dinov2-base-r4-s0",
    "question": "a question of src/registers/questions.py",
    "id": "a figure, a table or a picture",
}
IDS = "registers check --ids"  # the command by which a shell knows the backbones of a run


def completions(argument: str) -> tuple[str, ...]:
    """The words that a shell may complete; none for backbones, which IDS knows."""
    match argument:
        case "split":
            return SPLITS
        case "role":
            return (*IMAGE_ROLES, *ANNOTATED_ROLES)
        case "name":
            from registers.readers.download import SETS

            return tuple(SETS)
        case "question":
            return tuple(QUESTIONS)
        case "id":
            return tuple(_artifacts())
        case "model":
            from registers.settings.released import catalogue

            return tuple(catalogue())
    return ()


def listing(argument: str, params: Any) -> str:
    """What may stand there, as the end of a verb's help. params: None outside a project."""
    match argument:
        case "backbone":
            return _backbones(params)
        case "question":
            return "\n\n".join(
                _paragraph(
                    f"questions about a {about}" if about else "questions about no backbone", q
                )
                for about, q in (
                    ("token bank", names("bank")),
                    ("backbone", names("checkpoint")),
                    ("", names("nothing")),
                )
            )
        case "id":
            rows = (f"  {id:8} {title}" for id, title in _artifacts().items())
            pictures = "  discovery-ID, segmentation-ID, depth-ID: what a backbone does with photos"
            return "\n".join(["figures, tables and pictures:", *rows, pictures])
    return _paragraph(f"{argument} may be", completions(argument))


def backbones(params: Any) -> list[str]:
    """Ids of the backbones that these settings train or fetch. Raises ConfigError."""
    from registers import artifacts
    from registers.settings.load import load_settings

    return [str(id) for id in artifacts.trained(load_settings(params))]


def _backbones(params: Any) -> str:
    try:
        ids = backbones(params) if params else []
    except (ConfigError, OSError):  # settings that are wrong
        ids = []
    if not ids:
        return "A project's `registers check` lists its backbones."
    after = "Append -at050, say, for the checkpoint at 50 % of its training."
    return "\n".join([_paragraph("backbones of these settings", ids), after])


def _artifacts() -> dict[str, str]:
    from registers import artifacts

    return {artifact.id: artifact.title for artifact in artifacts.load().values()}


def _paragraph(head: str, words: Iterable[str]) -> str:
    text = textwrap.fill(
        ", ".join(words), 96, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return f"{head}:\n{text}"
