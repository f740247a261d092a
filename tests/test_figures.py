"""Figures and tables take their declared inputs, fit their page, and need no torch."""

import inspect
import subprocess
import sys

import pandas as pd
import planted
import planted_arrays
import planted_inputs
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from planted_inputs import ARTIFACTS, SHARE, module

from registers.figures.paint import style


@pytest.fixture(scope="module", params=[SHARE, 0.0], ids=["second mode", "one mode"])
def inputs(request, tmp_path_factory):
    return planted_inputs.inputs(tmp_path_factory.mktemp("rows"), request.param)


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_every_artifact_takes_its_declared_inputs_and_says_one_sentence(inputs, artifact):
    arguments = inputs[artifact]
    assert set(arguments) == set(ARTIFACTS[artifact].inputs)
    made = module(artifact)
    wanted = {"table", "caption", "draw" if artifact.startswith("fig") else "shown"}
    public = {
        name
        for name, function in vars(made).items()
        if inspect.isfunction(function)
        and function.__module__ == made.__name__
        and not name.startswith("_")
    }
    assert public == wanted
    caption = made.caption(**arguments)
    assert caption.endswith(".")
    assert not any(wrong in caption for wrong in ("\n", "nan", ". ", "e-0"))
    assert len(made.table(**arguments))


@pytest.mark.parametrize("artifact", [id for id in ARTIFACTS if id.startswith("fig")])
def test_every_figure_is_drawn_inside_its_paper(inputs, artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "DPI", 60)  # saves time
    figure = module(artifact).draw(**inputs[artifact])
    style.save(figure, tmp_path / artifact)
    assert (tmp_path / f"{artifact}.png").read_bytes().startswith(b"\x89PNG")
    pdf = (tmp_path / f"{artifact}.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType, embedded

    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert not any("$" in text or "math" in text for text in texts)  # mathtext is off
    page = figure.bbox
    for ax in figure.axes:
        box = ax.get_tightbbox(renderer)
        assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1
        assert box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1


@pytest.mark.parametrize(
    "method, counts", [("deit3", (0,)), ("dinov2", (4,)), ("openclip", (1, 4))]
)
def test_runs_with_other_methods_and_counts_are_drawn_too(tmp_path, method, counts):
    names = [f"{method}-r{r}-s{s}" for r in counts for s in (0, 1)]
    fewest = f"{method}-r{counts[0]}"
    norms = planted.frame(
        tmp_path,
        *(planted.norms(n, registers=planted_inputs.registers_of(n), layers=2) for n in names),
    )
    first = norms[norms["registers"] == counts[0]]
    linear = planted.frame(tmp_path, [planted.accuracy("linear", name, 0.5) for name in names])
    maps = {name: planted_arrays.maps(name) for name in names}
    ids = [f"{fewest}-s{s}{ending}" for s in (0, 1) for ending in ("", "-noaa")]
    positions = planted.frame(tmp_path, *(planted.positions(id) for id in ids))

    weights = pd.DataFrame({"backbone": [f"{fewest}-s0"], "width": 64, "parameters": 300_000})

    only_maps = ("fig01", "fig02", "fig09", "fig18", "fig19", "fig20", "fig21")
    arguments = {figure: {"maps": maps} for figure in only_maps}
    arguments |= {
        "fig03": {"norms": first, "maps": {f"{fewest}-s0": maps[f"{fewest}-s0"]}},
        "fig04": {"steps": first, "sizes": first, "weights": weights},
        "fig07": {"norms": norms},
        "fig08": {"maps": maps, "linear": linear},
        "fig10": {
            "positions": positions,
            "interpolation": planted.frame(tmp_path, planted.interpolation()),
        },
        "fig15": {"norms": norms},
        "fig16": {"positions": positions[~positions["noaa"].astype(bool)]},
    }
    for artifact, frames in arguments.items():
        caption = module(artifact).caption(**frames)
        assert module(artifact).draw(**frames).axes and "nan" not in caption
        assert style.name(method) in caption or "any of these" in caption
        assert "without registers" not in caption or 0 in counts
        assert "1 models" not in caption and "1 images" not in caption


def test_figures_and_report_need_no_torch():
    names = [artifact.python for artifact in ARTIFACTS.values()]
    names += [
        "registers.report",
        "registers.claims.verdicts",
        "registers.figures.paint.predictions",
    ]
    heavy = {"torch", "timm", "mlflow", "torchvision"}
    code = f"import sys; [__import__(n) for n in {names}]; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# --- words


def test_numbers_are_written_as_people_write_them():
    assert style.percent(0.411) == "41.1 %" and style.percent(0) == "0.0 %"
    assert style.percent(0.0000123) == "0.0012 %"
    assert style.number(-4.591e-05) == "-0.0000459" and style.number(1234.5) == "1234"
    assert style.times(0.9996) == style.times(1.04) == "1.0" and style.times(672.3) == "672"
    assert style.change(0.04) == "0.0" and style.change(-0.04) == "0.0"
    assert style.change(-0.4) == "-0.4" and style.change(4) == "+4.0"


def test_words_follow_their_numbers():
    assert style.plural(1, "image") == "1 image" and style.plural(2, "image") == "2 images"
    assert style.listing([]) == "none" and style.listing("abc") == "a, b and c"
    assert style.span(["1.7", "1.7"]) == "1.7" and style.span(["1.6", "1.7"]) == "1.6 to 1.7"
    assert style.model("dinov2", 0) == "DINOv2 without registers"
    assert style.model("dinov2", 1) == "DINOv2 with 1 register"
