"""What the cards of published models say: where they are from, and their test-time registers.

Read from the json beside weights, without torch, for captions, claims, the page and the lock.
"""

import json
from collections.abc import Iterable
from typing import Any

from registers.layout import Layout
from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.released import MOVED, UNMOVED
from registers.settings.run import Settings

SOURCE = "Jiang et al. 2025"


def unmoved(settings: Settings) -> dict[str, str]:
    """Why nothing was moved, by id, for models whose added tokens are empty.

    They are shown, and say so, but they are no model "with registers" that a claim could be judged
    on.
    """
    cards = {str(id): origin(settings.layout, id) for id in _with_added(settings.models)}
    return {id: card[UNMOVED] for id, card in cards.items() if UNMOVED in card}


def added_in_words(settings: Settings) -> str:
    """What was done to each model that has them: "openclip-base-r4-s0-tt: 10 neurons of..."."""
    texts = []
    for id in _with_added(settings.models):
        card = origin(settings.layout, id)
        empty = f"{id.registers} empty tokens ({card[UNMOVED]})" if UNMOVED in card else ""
        texts.append(f"{id}: {empty or card.get(MOVED, 'not made yet')}")
    return "; ".join(texts)


def caption(settings: Settings, names: Iterable[str]) -> str:
    """For a caption: whose registers were added at test time; "" for nobody's.

    names: of files that it is drawn from; those that name no published model are passed over.
    """
    drawn = set(names)
    ids = _with_added(name for name in settings.models if name in drawn)
    if not ids:
        return ""
    text = f"The registers of {_names(ids)} were added at test time, without training ({SOURCE})"
    empty = unmoved(settings)
    none = [id for id in ids if str(id) in empty]
    if none:
        reasons = "; ".join(dict.fromkeys(empty[str(id)] for id in none))
        text += f"; in {_names(none)} nothing is moved to them and they are empty ({reasons})"
    return f"{text}."


def origin(layout: Layout, backbone: str | BackboneId) -> dict[str, Any]:
    """What the card of a checkpoint says of where it is from; {} where there is none yet."""
    try:
        return json.loads(layout.checkpoint(backbone).with_suffix(".json").read_text())["published"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _with_added(names: Iterable[str]) -> list[BackboneId]:
    return [id for id in map(BackboneId.parse, names) if id.test_time]


def _names(ids: list[BackboneId]) -> str:
    """DeiT-III and OpenCLIP."""
    titles = {id.method: METHODS[id.method].title for id in ids if id.method in METHODS}
    return " and ".join(dict.fromkeys(titles.get(id.method, id.method) for id in ids))
