"""Figures for a dark page: ink, greys and paper change, data and photos keep their colours."""

from pathlib import Path

from matplotlib import colors
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.text import Text

from registers.figures.paint import style

PAPER = "#16171a"  # of the page in dark mode (report.html.j2)
RECOLOURED = {
    "#000000": "#e9e9ec",
    style.INK: "#e9e9ec",
    style.GREY: "#a0a0a8",
    style.PALE: "#3a3b42",
    style.PANEL: "#26272c",
    style.CLAIMED: "#1c3a2a",
    style.CUTOFF: "#ff7a86",
    style.GOOD: "#58c48c",
    style.OPEN: "#e0b04a",
    "#ffffff": PAPER,
}
RESOLUTION = 2 / 3  # of a light page's, as it is only looked at on a screen
PROPERTIES = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


def save(figure: Figure, out: str | Path) -> None:
    """Write out.png and out.pdf as `style.save` does, and out.dark.png for a dark page.

    The figure has the colours of the dark page afterwards.
    """
    style.save(figure, out)
    darken(figure)
    style.save_png(figure, Path(out).with_suffix(".dark.png"), RESOLUTION)


def darken(figure: Figure) -> None:
    """Recolour a drawn figure in place. What is marked style.ON_COLOUR stays as it is."""
    for artist in figure.findobj():
        if artist.get_gid() == style.ON_COLOUR:
            continue
        _recolour(artist)
        if isinstance(artist, Text) and artist.get_bbox_patch():
            _recolour(artist.get_bbox_patch())


def _recolour(artist: Artist) -> None:
    for name in PROPERTIES:
        getter = getattr(artist, f"get_{name}", None)
        setter = getattr(artist, f"set_{name}", None)
        if getter is None or setter is None:
            continue
        try:
            before = colors.to_rgba_array(getter())
        except (TypeError, ValueError):  # "auto"
            continue
        after = [_dark(colour) for colour in before]
        if after and after != [tuple(colour) for colour in before]:
            setter(after[0] if len(after) == 1 else after)


def _dark(colour) -> tuple[float, ...]:
    """One colour (r, g, b, alpha) on a dark page, as transparent as before."""
    replaced = RECOLOURED.get(colors.to_hex(colour)) if colour[3] else None
    return colors.to_rgba(replaced, colour[3]) if replaced else tuple(colour)
