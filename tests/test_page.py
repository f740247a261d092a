"""The page's first screen, its picture of all claims, and the PDF to hand around."""

import json

import numpy as np
import pandas as pd
import planted
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from pypdf import PdfReader

from registers import artifacts, reference
from registers.claims import forest, printed, wording
from registers.claims.effects import Effect
from registers.claims.loading import load
from registers.claims.verdicts import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    REPRODUCED,
    Verdict,
    judged,
    verdict,
)
from registers.figures.paint import dark, photos, style
from registers.page import handout, opening, sections
from registers.settings.load import load_settings

PRINTED = reference.read(artifacts.PAPER / "reference.yaml")
CLAIMS = load(artifacts.PAPER / "claims.yaml")
METHODS = ("deit3", "openclip", "dinov2")


def norms(folder, outliers):
    names = [f"{method}-r{r}-s0" for method in METHODS for r in (0, 4)]
    rows = [
        planted.norms(name, outliers=0 if "r4" in name else outliers, layers=2, images=20)
        for name in names
    ]
    return planted.frame(folder, *rows)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """All claims on planted rows: five seeds in which registers add four points."""
    rows = [
        planted.accuracy("linear", f"{method}-r{r}-s{seed}", 0.5 + r / 100 + seed / 500 * (1 + r))
        for method in METHODS
        for r in (0, 4)
        for seed in range(5)
    ]
    frame = planted.frame(
        tmp_path_factory.mktemp("rows"),
        rows,
        planted.cost(("ViT-L/14@224", "ViT-B/16@224")),
        planted.norms("dinov2-r0-s0", layers=2, images=20),
        planted.norms("dino-r0-s0", layers=2, images=20),
    )
    return judged(CLAIMS, frame, "laptop", PRINTED)


# --- the first screen -----------------------------------------------------------------------------


def test_the_conclusion_counts_verdicts_and_says_whether_there_are_outliers(tmp_path):
    made = [
        Verdict(name, "", "", name, "")
        for name in [REPRODUCED] * 3 + [CONTRADICTED, INCONCLUSIVE, NOT_TESTABLE, NOT_TESTABLE]
    ]
    first, second = opening.conclusion(made, norms(tmp_path, outliers=0))
    assert first.startswith("Of the paper's 7 claims this run reproduces 3, contradicts 1, leaves")
    assert "cannot test 2 (one seed decides nothing about training)." in first
    assert second.startswith("None of its 6 models has high-norm outliers (the largest patch norm")
    assert second.endswith("in a smaller ViT: make emergence.")
    _, second = opening.conclusion(made, norms(tmp_path, outliers=0.02))
    methods = "DeiT-III, OpenCLIP and DINOv2"
    assert second == (
        f"High-norm outliers appear without registers in {methods} and with registers in no model."
    )


def test_the_conclusion_counts_the_seeds_with_outliers(tmp_path):
    """Of three seeds two have outliers in DINOv2, all in DeiT-III, with registers one does."""
    affected = {"deit3-r0": {0, 1, 2}, "dinov2-r0": {0, 2}, "dinov2-r4": {2}}
    rows = [
        planted.norms(f"{name}-s{seed}", outliers=0.02 * (seed in seeds), layers=2, images=20)
        for name, seeds in affected.items()
        for seed in range(3)
    ]
    made = [Verdict(INCONCLUSIVE, "", "", INCONCLUSIVE, "")]
    first, second = opening.conclusion(made, planted.frame(tmp_path, *rows))
    assert first == "Of the paper's 1 claims this run leaves open 1."
    assert second == (
        "High-norm outliers appear without registers in DeiT-III and DINOv2 (2 of 3 seeds) and "
        "with registers in DINOv2 (1 of 3 seeds)."
    )


def test_it_says_what_was_trained_on_what_and_for_how_long(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings({"scale": "smoke", "registers": [0, 4]})
    bare = dict(opening.trained(settings))
    assert bare["For"] == "not recorded" and "parameters" not in bare["Trained"]

    for number, id in enumerate(artifacts.trained(settings)):
        card = settings.layout.checkpoint(id).with_suffix(".json")
        card.parent.mkdir(parents=True)
        card.write_text(json.dumps({"steps": 1000 + number % 2 * 500}))
        benchmark = settings.layout.benchmark("train", str(id))
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text("s\th:m:s\n60.0\t0:01:00\n")
    manifest = settings.layout.manifest("images")
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"train": {"samples": 4800}}))
    trained = dict(opening.trained(settings))
    number = len(artifacts.trained(settings))
    assert trained["Trained"].startswith(f"{number} vision transformers (DeiT-III, OpenCLIP")
    assert trained["With"] == "0 and 4 registers; seed 0"
    several = opening.trained(load_settings({"scale": "smoke", "seeds": [0, 1, 2]}))
    assert dict(several)["With"].endswith("; seeds 0, 1 and 2")
    assert trained["On"] == "4,800 synthetic scenes of the built-in world, 16 × 16 pixels"
    assert trained["For"].startswith(f"1,000 to 1,500 steps each, {number} minutes of training")


# --- all claims in one picture --------------------------------------------------------------------


def test_the_forest_has_a_line_for_every_claim(verdicts):
    table = forest.table(verdicts).set_index("claim")
    assert list(table.index) == [claim["id"] for claim in CLAIMS]
    assert table.loc["linear-not-worse", "verdict"] == REPRODUCED
    row = table.loc["linear-not-worse"]
    assert row["low"] < row["value"] < row["high"] and row["claimed_low"] == -0.02
    assert row["parts"] == 3 and np.isnan(row["claimed_high"])

    figure = forest.draw(verdicts)
    texts = " ".join(text.get_text() for text in figure.findobj(Text))
    words = " ".join(texts.split())
    bare = words.lower().replace("[", "").replace("]", "")
    assert [c["id"] for c in CLAIMS if c["id"].replace("-", " ") not in bare] == []
    assert "FLOPs of four of ViT B" in words
    renderer = FigureCanvasAgg(figure).get_renderer()
    right = max(text.get_window_extent(renderer).x1 for text in figure.findobj(Text))
    assert right <= figure.bbox.x1 + 1
    assert forest.caption(verdicts).endswith("on green ground the claim holds.")


@pytest.mark.parametrize(
    "claimed, value, side",
    [((0.0, None), 0.3, 1), ((0.0, None), -0.3, -1), ((None, 0.9), 0.5, 1), ((None, 0.9), 1.2, -1)],
)
def test_a_number_stands_on_the_side_of_its_claim(claimed, value, side):
    effect = Effect("DINOv2", "", False, value, value - 0.1, value + 0.1, claimed)
    place = forest.position(effect, value)
    assert np.sign(place) == side
    ends = [forest.position(effect, end) for end in (effect.low, effect.high)]
    assert min(ends) < place < max(ends) and max(map(abs, ends)) <= 1


def test_a_range_stands_around_the_middle():
    effect = Effect("", wording.SHARE, False, 0.02, 0.015, 0.025, (0.01, 0.04), 0.0237)
    assert forest.position(effect, 0.025) == pytest.approx(0)
    ends = [forest.position(effect, end) for end in effect.claimed]
    assert ends[0] == pytest.approx(-ends[1])
    assert effect.words == "2.0 [1.5, 2.5] %" and effect.words_of_paper == "2.4 %"


def test_the_papers_value_stands_beside_ours(verdicts):
    """Of the method that decides, as Table 2 prints it: 84.8 over 84.3 is +0.6 %."""
    by_id = {v.id: v for v in verdicts}
    effect = by_id["linear-not-worse"].effect
    printed_of = {"DeiT-III": 0.0, "OpenCLIP": -0.1 / 78.2, "DINOv2": 0.5 / 84.3}
    assert effect.paper == pytest.approx(printed_of[effect.about])
    assert by_id["flops-of-sixteen"].effect.paper == pytest.approx(0.06)


@pytest.mark.parametrize(
    "asked, registers, expected",
    [
        ("linear top1 dinov2", 4, 0.848),
        ("linear top1 dinov2", 16, None),
        ("depth rmse openclip", 0, 0.702),
        ("zeroshot top1 openclip", 4, 0.601),
        ("discovery corloc deit3", 4, 0.271),
        ("position top1 dinov2 normal", 4, 0.658),
        ("token_class top1_main dinov2 reg0", 1, 0.711),
        ("norms share dinov2", 0, 0.0237),
        ("maps attention_peak dinov2", 0, None),
    ],
)
def test_the_papers_value_is_that_of_its_tables(asked, registers, expected):
    selector = dict(zip(("question", "metric", "method", "token"), asked.split()))
    value = printed.value(selector | {"registers": registers}, PRINTED)
    assert value == (expected and pytest.approx(expected))


def test_normal_patches_are_held_against_outliers_in_one_table_of_the_paper():
    sides = [
        dict(question="position", metric="top1", token=token, method="dinov2", registers=0)
        for token in ("outlier", "normal")
    ]
    assert printed.gap(*sides, False, PRINTED) == pytest.approx(0.228 - 0.417)  # Fig. 5b


# --- words and numbers ----------------------------------------------------------------------------


def test_claims_write_numbers_as_people_do():
    assert wording.number(0.4111, 0.4111, 0.4111, wording.SHARE) == "41.1 %"
    assert wording.number(0.013, -0.02, 0.046, wording.POINTS, True) == "+1.3 [-2.0, +4.6] points"
    assert wording.number(-4.591e-05, -0.02, 0.02, "", True) == "0.000 [-0.020, +0.020]"
    assert wording.number(672.3, 600, 740, "") == "672 [600, 740]"
    assert wording.number(3.8e-8, 3.8e-8, 3.8e-8, wording.SHARE) == "<0.001 %"
    assert wording.number(1.211, 0.038, 38.56, wording.TIMES) == "1.21 [0.0380, 38.6] times"
    assert wording.number(1.2, 4e-9, 3e8, wording.TIMES) == "1.20 [<0.001, >1000] times"


def test_claims_and_tables_have_one_unit(verdicts):
    linear = next(v for v in verdicts if v.id == "linear-not-worse")
    assert " % against " in linear.reason and "% of it" in linear.reason
    assert "e-0" not in " ".join([*(v.reason for v in verdicts), *linear.numbers])


def test_claims_name_models_as_the_figures_do():
    selector = dict(question="linear", metric="top1", method="dinov2", registers=4, data="coco")
    assert wording.named(selector) == "linear top-1 of DINOv2 with 4 registers, data coco"
    both = dict(
        question="norms", metric="second_mode", method=["deit3", "dinov2"], registers=[0, 4]
    )
    named = "second mode of DeiT-III and DINOv2 without registers and with 4 registers"
    assert wording.named(both) == named


def test_a_premise_that_is_absent_is_good_english(tmp_path):
    claim = next(claim for claim in CLAIMS if claim["id"] == "outliers-are-few")
    rows = planted.norms("dinov2-r0-s0", layers=2, images=20)
    one = verdict(claim, planted.frame(tmp_path, rows))
    assert one.reason == "the model asked has no second mode"
    rows += planted.norms("dinov2-r0-s1", layers=2, images=20)
    two = verdict(claim, planted.frame(tmp_path, rows))
    assert two.reason == "no second mode in any of the 2 models asked"


# --- tables, dark pages and the PDF ---------------------------------------------------------------


def test_a_printed_table_has_a_cell_of_several_lines():
    table = pd.DataFrame(
        {"model": ["DINOv2"], "top-1 (%)\nworld": ["54.0\n[52.0, 56.0]\npaper 84.8"]}
    )
    typeset = sections.typeset_table(table)
    assert typeset["head"] == [[""], ["top-1 (%)", "world"]]
    assert typeset["body"] == [[["DINOv2"], ["54.0", "[52.0, 56.0]", "paper 84.8"]]]


def test_a_figure_has_a_dark_twin_whose_pictures_keep_their_colours():
    figure = Figure(facecolor="white")
    ax = figure.subplots()
    ax.set_facecolor("white")
    (line,) = ax.plot([0, 1], color=style.INK)
    (data,) = ax.plot([1, 0], color=style.colour("dinov2"))
    photo = ax.imshow(np.full((2, 2, 3), 255, np.uint8))
    kept = ax.text(0, 0, "on a colour", color=style.INK, gid=style.ON_COLOUR)
    note = ax.text(
        0,
        0,
        "note",
        color=style.GREY,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )
    dark.darken(figure)
    paper = style.rgb(dark.PAPER)
    assert figure.get_facecolor()[:3] == ax.get_facecolor()[:3] == paper
    assert note.get_bbox_patch().get_facecolor() == (*paper, 0.8)
    assert note.get_bbox_patch().get_edgecolor()[3] == 0
    assert style.rgb(line.get_color()[:3]) == style.rgb("#e9e9ec")
    assert style.rgb(data.get_color()) == style.rgb(style.colour("dinov2"))
    assert photo.get_array().min() == 255 and kept.get_color() == style.INK


def test_true_boxes_stay_white_on_a_dark_page():
    ax = Figure().subplots()
    photos.boxes(ax, np.array([0, 0, 4, 4]), "white")
    dark.darken(ax.figure)
    assert ax.patches[0].get_edgecolor() == (1, 1, 1, 1)


@pytest.mark.parametrize("weight", ["normal", "bold"])
def test_no_line_of_the_pdf_leaves_its_page(tmp_path, weight):
    pdf = handout.Handout(tmp_path / "paper.pdf", "title")
    words = "Claims of the paper: 7 reproduced, 7 contradicted, 22 inconclusive and 30 not testable"
    pdf.paragraph(words, 12, weight=weight)
    (page,) = pdf.pages
    renderer = FigureCanvasAgg(page).get_renderer()
    right = max(text.get_window_extent(renderer).x1 for text in page.texts)
    assert right <= page.bbox.x1 * (1 - handout.MARGIN / handout.WIDTH)


def test_the_pdf_begins_a_page_where_one_is_full(tmp_path):
    drawing = tmp_path / "drawing.pdf"
    Figure(figsize=(1.5, 1)).savefig(drawing)
    table = {"head": [[""], ["top-1 (%)", "world"]], "body": [[["DINOv2"], ["54.0", "paper 84.8"]]]}
    with handout.Handout(tmp_path / "paper.pdf", "title") as pdf:
        for number in range(12):
            pdf.heading(f"Figure {number}", below=2)
            pdf.picture(drawing)
            pdf.table(table)
            pdf.paragraph("words " * 60)
    pages = pdf.pages
    assert 3 <= len(pages) <= 6
    for page in pages:
        lowest = min(text.get_position()[1] for text in page.texts)
        assert lowest > 0.3 / handout.HEIGHT
        assert page.texts[-2].get_weight() != "bold"  # no heading is the last of a page
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError), handout.Handout(tmp_path / "torn.pdf", "title"):
        raise ValueError
    assert not (tmp_path / "torn.pdf").exists()


def test_a_long_heading_stays_with_its_figure(tmp_path):
    """A title of two lines with a figure that just does not fit below it begins a page."""
    drawing = tmp_path / "drawing.pdf"
    Figure(figsize=(6, 5)).savefig(drawing)
    title = "Figure 5. " + "words " * 20
    for lines in range(20, 40):
        pdf = handout.Handout(tmp_path / "paper.pdf", "title")
        for _ in range(lines):
            pdf.paragraph("a line")
        pdf.heading(title, below=handout.size_of(drawing)[1])
        before = len(pdf.pages)
        pdf.picture(drawing)
        assert len(pdf.pages) == before


def test_figures_of_the_pdf_are_drawings_that_fit_its_column(tmp_path):
    """Their words can be searched, large ones are made smaller, and the bytes stay the same."""
    drawing = tmp_path / "drawing.pdf"
    figure = Figure(figsize=(12, 3))
    figure.text(0, 0, "left")
    figure.text(1, 0, "right", ha="right")
    figure.savefig(drawing)
    assert handout.size_of(drawing) == pytest.approx((handout.COLUMN, handout.COLUMN / 4))
    for name in ("once", "again"):
        with handout.Handout(tmp_path / f"{name}.pdf", "title") as pdf:
            pdf.paragraph("a paragraph")
            pdf.picture(drawing)
    assert (tmp_path / "once.pdf").read_bytes() == (tmp_path / "again.pdf").read_bytes()

    places = {}

    def look(text, place, *rest):
        places[text.strip()] = place[4] * handout.POINT, place[5] * handout.POINT

    PdfReader(tmp_path / "once.pdf").pages[0].extract_text(visitor_text=look)
    assert places["left"][0] == pytest.approx(handout.MARGIN, abs=0.05)
    assert handout.WIDTH / 2 < places["right"][0] < handout.WIDTH - handout.MARGIN
    below = places["a paragraph"][1] - places["left"][1]
    assert below == pytest.approx(handout.COLUMN / 4, abs=0.2)
