"""Captions: of a scene of the built-in world, or of a class name where a data set has none."""

import re

from registers.data.prompts import templates

_ARTICLE = re.compile(r"\ba (?=[aeiou])")
_MORE = {"3": " and another shape", "4": " and two more shapes"}  # by the count of things
_BEGINNINGS = ("", "", "a picture of ", "a drawing of ", "an image of ", "here is ")
_PLACES = {
    "plain": "on a plain {} background",
    "gradient": "on a {} gradient",
    "glow": "in a {} glow",
    "horizon": "above a {} horizon",
    "haze": "in a {} haze",
}


def describe(attributes: dict[str, str], touching: bool, index: int) -> str:
    """One sentence about a scene.

    attributes: names of the values of `plan.ATTRIBUTES`.
    touching: main and second thing overlap, so that one is seen in front of the other.
    index: of the scene; chooses among wordings.
    """
    text = _BEGINNINGS[index % len(_BEGINNINGS)] + "a "
    if index % 3 == 0:
        text += f"{attributes['size']} "
    text += f"{attributes['texture']} {attributes['colour']} {attributes['class']}"
    if attributes["second"] != "none":
        relation = _relation(attributes["order"]) if touching else "next to"
        text += f" {relation} a {attributes['second_colour']} {attributes['second']}"
        text += _MORE.get(attributes["count"], "")
    place = _PLACES[attributes["background"]]
    text += " " + place.format(attributes["background_colour"])
    if index % 5 == 0:
        text += f", in the {attributes['quadrant']}"
    return _ARTICLE.sub("an ", text)


def _relation(order: str) -> str:
    return {"in front": "in front of", "behind": "behind"}[order]


def from_class(name: str, index: int) -> str:
    """A caption from a class name, by one of CLIP's templates.

    index: of the sample; the same gives the same template, neighbours different ones.
    """
    choices = templates()
    return choices[index * 37 % len(choices)](name)
