"""Captions: from the facts of a scene, or from class names by templates where a data set has none."""

import re

from registers.data.prompts import templates

_ARTICLE = re.compile(r"\ba (?=[aeiou])")
_MORE = {"3": " and another shape", "4": " and two more shapes"}
_BEGINNINGS = ("", "", "a picture of ", "a drawing of ", "an image of ", "here is ")


def _place(background: str, colour: str) -> str:
    return {
        "plain": f"on a plain {colour} background",
        "gradient": f"on a {colour} gradient",
        "glow": f"in a {colour} glow",
        "horizon": f"above a {colour} horizon",
        "haze": f"in a {colour} haze",
    }[background]


def describe(facts: dict[str, str], touching: bool, index: int) -> str:
    """One sentence from the facts of a scene of the embedded world (names of its attributes' values).

    touching: main and second thing overlap, so that one is seen in front of the other. index chooses among wordings.
    """
    size = f"{facts['size']} " if index % 3 == 0 else ""
    text = f"a {size}{facts['texture']} {facts['colour']} {facts['class']}"
    if facts["second"] != "none":
        relation = (
            {"in front": "in front of", "behind": "behind"}[facts["order"]]
            if touching
            else "next to"
        )
        text += f" {relation} a {facts['second_colour']} {facts['second']}" + _MORE.get(
            facts["count"], ""
        )
    text += " " + _place(facts["background"], facts["background_colour"])
    if index % 5 == 0:
        text += f", in the {facts['quadrant']}"
    return _ARTICLE.sub("an ", _BEGINNINGS[index % len(_BEGINNINGS)] + text)


def from_class(name: str, index: int) -> str:
    """A caption from a class name by one of CLIP's templates: the same index gives the same one, neighbours different ones."""
    choice = templates()
    return choice[index * 37 % len(choice)](name)
