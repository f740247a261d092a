"""The lock of published models: at which commit their weights were fetched, and their SHA-256.

paper/released.lock.yaml holds both for every repository that the catalogue itself does not pin, so
that a checkout with this file fetches the same weights again, or stops.
"""

from typing import Any

import yaml

from registers import published
from registers.audit import hub
from registers.files import write_text
from registers.layout import Layout
from registers.settings.errors import ConfigError
from registers.settings.released import MAIN, PublishedModel, lock, lock_file
from registers.settings.run import Settings


def pin(settings: Settings) -> str:
    """Write the lock from the cards of the models that were fetched. Returns what is new, in lines.

    What is in the lock stays. Raises ConfigError where there is no fetched model.
    """
    fetched = [card for id in settings.models if (card := _fetched(settings.layout, id))]
    if not fetched:
        raise ConfigError(f"pin: no model was fetched to {settings.results} yet; fetch one first")
    locked = {name: entry.model_dump() for name, entry in lock().items()}
    lines = []
    for card in fetched:
        repository = card["repository"]
        if repository in locked or card["revision"] != MAIN or not card["commit"]:
            continue
        locked[repository] = {"revision": card["commit"], "sha256": card["sha256"]}
        lines.append(f"{repository} at {card['commit']}")
    if not lines:
        return f"nothing new: {lock_file()} and the catalogue pin every model that was fetched"
    head = "# Written by `registers pin`: later runs fetch exactly these weights.\n"
    write_text(lock_file(), head + yaml.safe_dump(locked))
    return "\n".join([*lines, f"written to {lock_file()}"])


def identity(layout: Layout, model: PublishedModel) -> dict[str, Any]:
    """Which published weights a checkpoint is, as plain JSON values: other ones are fetched anew.

    A model that was fetched from a branch and then pinned at the very commit stays as it is.
    """
    which = {"id", "timm", "arguments", "repository", "revision", "test_time_of"}
    content = model.model_dump(mode="json", include=which)
    card = _fetched(layout, model.id)
    if card and card["commit"] == model.revision:
        content["revision"] = card["revision"]
    return content


def moved(models: list[PublishedModel]) -> str:
    """Which repositories have gone on since they were pinned, a line; "" for none, or offline."""
    names = []
    for model in models:
        if not model.pinned or hub.is_offline():
            continue
        commit = hub.commit(model.repository, MAIN)
        if not commit:  # out of reach: the others are, too
            break
        if commit != model.revision:
            names.append(model.repository)
    if not names:
        return ""
    return (
        f"{', '.join(names)}: {MAIN} on the hub is another commit by now than the pinned one; the "
        "pinned one is fetched"
    )


def _fetched(layout: Layout, id: str) -> dict[str, Any]:
    """What the card of a model says that was fetched with its commit; {} where there is none."""
    card = published.origin(layout, id)
    return card if {"commit", "sha256"} <= {*card} else {}
