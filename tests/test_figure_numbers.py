"""What figures and tables draw, print and say are the numbers that were planted."""

from itertools import pairwise

import numpy as np
import planted
import planted_arrays
import planted_inputs
import pytest
from planted_inputs import METHODS, PRINTED, SHARE, SIZES, module

from registers.figures.paint import distributions

NAMES = ("DeiT-III", "OpenCLIP", "DINOv2")


@pytest.fixture(scope="module", params=[SHARE, 0.0], ids=["second mode", "one mode"])
def planted_share(request, tmp_path_factory):
    """The share of outliers, and the inputs of every artifact."""
    return request.param, planted_inputs.inputs(tmp_path_factory.mktemp("rows"), request.param)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return planted_inputs.inputs(tmp_path_factory.mktemp("rows"), SHARE)


# --- norms


def test_histograms_hold_every_token(planted_share):
    share, inputs = planted_share
    rows = module("fig07").table(**inputs["fig07"])
    for (method, registers), bins in rows.groupby(["method", "registers"]):
        median = METHODS[method]
        assert bins["count"].sum() == 50 * 64 and bins["share"].sum() == pytest.approx(1)
        # no gap between bins, empty ones included
        assert np.allclose(bins["high"].to_numpy()[:-1], bins["low"].to_numpy()[1:])
        middles = (bins["low"] * bins["high"]) ** 0.5
        middle = np.average(middles, weights=bins["share"] * (bins["high"] < 3 * median))
        assert middle == pytest.approx(median, rel=0.06)  # one bin is 6 % wide
        above = bins.loc[bins["low"] >= 4 * median * 0.95, "share"].sum()
        assert above == pytest.approx(0 if registers else share, abs=1e-3)


def test_verdicts_are_the_planted_ones(planted_share):
    share, inputs = planted_share
    fig04 = module("fig04").table(**inputs["fig04"])
    late = fig04[fig04["panel"] == "b"].set_index("at")["second_mode"]
    assert late.to_dict() == {p: bool(share) and p > 30 for p in planted_inputs.STEPS}
    sizes = fig04[fig04["panel"] == "c"].set_index("at")["second_mode"]
    assert sizes.to_dict() == {s: bool(share) and i > 2 for i, s in enumerate(SIZES)}
    medians = fig04[fig04["panel"] == "a"].set_index("at")["q50"]
    assert medians.index.tolist() == [1, 2, 3, 4]
    assert medians[[2, 4]].tolist() == pytest.approx([12.5, 25], rel=0.05)

    fig03 = module("fig03").table(**inputs["fig03"])
    assert set(fig03["backbone"]) == {"dinov2-r0-s0"}
    bins = fig03[fig03["panel"] == "histogram"]
    if share:
        assert bins["share_above"].unique().tolist() == [SHARE]
        assert bins["cutoff"].unique().tolist() == [100]
    else:
        assert bins["share_above"].isna().all() and bins["cutoff"].isna().all()


def test_captions_follow_the_numbers(planted_share):
    share, inputs = planted_share
    captions = {
        figure: module(figure).caption(**inputs[figure])
        for figure in ("fig03", "fig04", "fig07", "fig08", "fig15")
    }
    if share:
        above = "2.40 % of the tokens (1.92 % to 2.88 %) lie above the cut-off 100"
        assert above in captions["fig03"]
        assert "2 of 4 checkpoints (50 % and 100 %)" in captions["fig04"]
        assert "3 of 6 sizes (large, huge and giant)" in captions["fig04"]
        affected = "DeiT-III (2.40 %), OpenCLIP (2.40 %) and DINOv2 (2.40 %) have"
        assert f"Without registers {affected}" in captions["fig07"]
        assert captions["fig07"].endswith("with 4 registers no model has high-norm outliers.")
    else:
        for figure in ("fig03", "fig04", "fig07"):
            assert "no second mode" in captions[figure] and "outlier" not in captions[figure]
    assert "reg3 6." in captions["fig15"]  # planted: register r has 3 + r times the norm of a patch
    assert "16 is best" in captions["fig08"] and captions["fig08"].count("one seed: not") == 1


def test_fig04_says_what_its_sizes_are(inputs):
    """Names of sizes are those of published models, which may be a thousand times as large."""
    sizes = module("fig04").draw(**inputs["fig04"]).axes[2]
    labels = [label.get_text().split("\n") for label in sizes.get_xticklabels()]
    assert [name for name, *_ in labels] == list(SIZES)
    assert labels[0] == ["tiny", "32", "0.050"] and labels[-1] == ["giant", "192", "0.30"]
    assert sizes.get_xlabel() == "name, width, million parameters"
    caption = module("fig04").caption(**inputs["fig04"])
    smallest = "sizes are those of this run, tiny (width 32, 50,000 parameters) to giant (width 192"
    assert smallest in caption and "0.30 million parameters" in caption
    rows = module("fig04").table(**inputs["fig04"])
    assert rows.loc[rows["panel"] == "c", "width"].tolist() == [32 * i for i in range(1, 7)]
    assert rows.loc[rows["panel"] != "c", ["width", "parameters"]].isna().all(axis=None)


def test_fig15_gives_every_register_a_strip_of_its_own(inputs):
    _, _, plain, strips = module("fig15").draw(**inputs["fig15"]).axes
    assert [text.get_text() for text in plain.get_yticklabels()] == [
        "[CLS]",
        *(f"reg{r}" for r in range(4)),
    ]
    extents = [mesh.get_datalim(strips.transData) for mesh in strips.collections]
    assert len(extents) == 5 and len(plain.collections) == 1
    for upper, lower in pairwise(extents):
        assert upper.y1 < lower.y0  # none hides another


def test_fig13_speaks_of_the_image_that_it_shows(inputs):
    lost = {name: dict(arrays) for name, arrays in inputs["fig13"]["lost"].items()}
    before = module("fig13").caption(lost)
    for arrays in lost.values():  # another box in the second image
        for facet in "kqv":
            arrays[f"1_{facet}_box"] = np.array([0, 0, 1, 1])
    assert module("fig13").caption(lost) == before


def test_registers_that_do_not_help_are_said_not_to(tmp_path):
    norms = [
        planted.norms(f"dinov2-r{r}-s0", outliers=share, layers=2)
        for r, share in ((0, 0.02), (4, 0.03))
    ]
    caption = module("fig07").caption(norms=planted.frame(tmp_path, *norms))
    assert caption.endswith("with 4 registers DINOv2 (3.00 %) has high-norm outliers.")

    maps = {f"dinov2-r{r}-s0": planted_arrays.maps(f"dinov2-r{r}-s0") for r in (0, 4)}
    for counts, step, words in (
        ((0, 1, 4), -0.01, "50.0 with 0, which no higher count improves on"),
        ((0, 4), 0.001, "4 is best (one seed: not decided)"),
        ((0, 4), 0.00001, "50.0 with 0, which no higher count improves on"),  # as printed
    ):
        rows = [planted.accuracy("linear", f"dinov2-r{r}-s0", 0.5 + step * r) for r in counts]
        assert words in module("fig08").caption(maps=maps, linear=planted.frame(tmp_path, rows))


def test_fig07_counts_the_models_of_all_seeds(tmp_path):
    norms = [
        planted.norms(f"dinov2-r{r}-s{seed}", outliers=share * (1 - r), layers=2)
        for seed, share in ((3, 0.0), (0, 0.02), (1, 0.02))
        for r in (0, 1)
    ]
    frame = planted.frame(tmp_path, *norms)
    caption = module("fig07").caption(norms=frame)
    assert caption.startswith("Norms have no second mode in any of these 2 models")
    assert caption.endswith("; over all 3 seeds, 2 of 6 models have a second mode.")
    assert set(module("fig07").table(norms=frame)["backbone"]) == {"dinov2-r0-s3", "dinov2-r1-s3"}


def test_a_single_model_without_a_second_mode_is_named(tmp_path):
    norms = planted.frame(tmp_path, planted.norms("dinov2-r0-s0", layers=2))
    caption = module("fig07").caption(norms=norms)
    assert caption.startswith("Norms have no second mode in DINOv2 without registers: ")


def test_a_hand_picked_cutoff_does_not_make_outliers(tmp_path):
    rows = planted.norms("dinov2-r0-s0", layers=2)
    rows = [row for row in rows if row.metric not in ("cutoff", "share")]
    where = dict(n=50, token="patch", layer=2)
    for metric, value in (("cutoff", 30.0), ("share", 0.01)):
        cell = dict(value=value, low=value, high=value)
        rows.append(planted.Measurement("norms", metric, backbone="dinov2-r0-s0", **cell, **where))
    norms = planted.frame(tmp_path, rows)
    maps = {"dinov2-r0-s0": planted_arrays.maps("dinov2-r0-s0")}
    caption = module("fig03").caption(norms=norms, maps=maps)
    assert "no second mode" in caption and "outlier" not in caption
    assert "1.00 % above 30.0, chosen by hand" in distributions.mode_summary(norms).words


def test_rows_of_several_backbones_are_refused(tmp_path):
    pair = [planted.norms(f"dinov2-r{r}-s0", layers=2) for r in (0, 4)]
    with pytest.raises(ValueError, match="2 rows of second_mode; must be 1"):
        distributions.mode_summary(planted.frame(tmp_path, *pair))


# --- performance


def test_fig08_is_in_per_cent_with_intervals(inputs):
    rows = module("fig08").table(**inputs["fig08"])
    linear = rows[rows["panel"] == "linear"].set_index("registers")
    assert linear["value"].round(6).to_dict() == {0: 50, 1: 51, 2: 52, 4: 54, 8: 58, 16: 66}
    assert np.allclose(linear["high"] - linear["value"], 2) and (linear["chance"] == 10).all()
    last = rows[rows["registers"] == 4].set_index(["panel", "method"])["value"]
    assert last["segmentation", "deit3"] == pytest.approx(24)
    assert last["depth", "deit3"] == pytest.approx(1.1)


def test_table2_is_in_per_cent_with_intervals(inputs):
    table = module("table2").table(**inputs["table2"])
    rows = table.set_index(["task", "model"])
    assert len(rows) == 4 * 6 + 2 and (rows["part"] == "b").sum() == 2
    columns = ["ours", "low", "high", "paper"]
    linear = rows.loc[("linear top-1", "DINOv2+reg"), [*columns, "n"]]
    assert linear.tolist() == [54, 52, 56, 84.8, 1000]
    segmentation = rows.loc[("segmentation mIoU", "DINOv2+reg"), columns]
    assert segmentation.tolist() == [24, 23, 25, 47.9]
    assert rows.loc[("depth rmse", "OpenCLIP"), columns].tolist() == [1.5, 1.49, 1.51, 0.702]
    of_images = rows.loc[("depth rmse, mean of images", "OpenCLIP"), ["ours", "paper"]]
    assert of_images.tolist() == [1.4, 0.702]
    assert rows.loc[("zero-shot top-1", "OpenCLIP"), ["ours", "paper"]].tolist() == [40, 59.9]

    caption = module("table2").caption(**inputs["table2"])
    assert "+4.0 points for DINOv2; segmentation" in caption
    assert "zero-shot top-1 changes by -0.4 points for OpenCLIP (in each case one seed" in caption
    assert "depth rmse (lower is better) changes by -0.400 for DeiT-III" in caption
    assert caption.count("one seed: not decided") == 1

    shown = module("table2").shown(table).set_index("model")
    heads = [column.split("\n") for column in shown.columns]
    tasks = ["linear top-1 (%)", "segmentation mIoU (%)", "depth rmse", "zero-shot top-1 (%)"]
    assert [head for head, _ in heads] == tasks
    assert heads[1][1] == "planted val; paper: ADE20k"
    assert list(shown.index) == [*(f"{m}{r}" for m in NAMES for r in ("", "+reg")), "chance"]
    assert shown.loc["DINOv2+reg"].iloc[0] == "54.0\n[52.0, 56.0]\npaper 84.8"
    assert shown.loc["OpenCLIP"].iloc[2] == "1.500\n[1.490, 1.510]\npaper 0.702"
    assert shown.loc["DeiT-III"].iloc[3] == "–" and shown.loc["chance"].iloc[0] == "10.0"


def test_a_cell_that_was_not_run_says_why(inputs, tmp_path):
    names = ("deit3-r0-s0", "dinov2-r4-s0")
    linear = planted.frame(tmp_path, [planted.accuracy("linear", name, 0.5) for name in names])
    rows = module("table2").table(**inputs["table2"] | {"linear": linear})
    missing = rows.set_index(["task", "model"]).loc[("linear top-1", "DeiT-III+reg")]
    assert np.isnan(missing["ours"]) and missing["note"] == "no such model in this run"


# --- discovery


def test_table3_is_the_planted_one(inputs):
    table = module("table3").table(**inputs["table3"])
    rows = table[table["procedure"] != "LOST, in the paper"].set_index(["procedure", "model"])
    assert len(rows) == 4 * 6  # the tuning grid is no row
    columns = ["ours", "low", "high"]
    assert rows.loc[("LOST, as published", "DINOv2+reg"), columns].tolist() == [50, 47, 53]
    assert rows.loc[("LOST, tuned", "OpenCLIP"), columns].tolist() == [50, 47, 53]
    assert rows.loc[("DINO-seg, best head", "DeiT-III"), "ours"] == 20

    shown = module("table3").shown(table).set_index("model")
    assert shown.columns[0] == "LOST, as published (%)\nplanted val"
    assert shown.columns[-1] == "the paper (%)\nVOC 2007 · VOC 2012 · COCO 20k"
    assert shown.loc["DINOv2+reg"].iloc[0] == "50.0\n[47.0, 53.0]"
    assert shown.loc["DINOv2+reg"].iloc[-1] == "55.4 · 60.0 · 42.0"

    caption = module("table3").caption(**inputs["table3"])
    about = "on planted val (n = 200)"
    assert f"LOST, as published {about}, by +20.0 points for DeiT-III" in caption
    assert f"LOST, tuned {about}, by +0.4 points for DeiT-III" in caption
    assert caption.count("one seed") == 1


def test_the_steps_of_lost_are_the_planted_ones(inputs):
    lost = inputs["fig13"]["lost"]
    steps = module("fig13").table(lost)
    box = steps[(steps["backbone"] == "deit3-r0-s0") & steps["panel"].str.startswith("box")]
    assert box["value"].tolist() == [0, 0, 16, 16]
    caption = module("fig13").caption(lost)
    assert "in the image shown: DeiT-III 1.00 without registers and 1.00 with 4 reg" in caption

    facets = "-1.00 (keys), 1.00 (queries) and 1.00 (values) without registers"  # planted
    assert facets in module("fig14").caption(**inputs["fig14"])
    worse = {
        "openclip-r0-s0": planted_arrays.lost("openclip-r0-s0", expansion=0.0),
        "openclip-r4-s0": planted_arrays.lost("openclip-r4-s0"),
    }
    assert "smoother for none of the three" in module("fig14").caption(worse)


# --- exact answers


def test_fig11_and_fig12_are_exact(inputs):
    rows = module("fig12").table(**inputs["fig12"]).set_index(["model", "registers"])
    assert rows.loc[("ViT-L/14@224", 4), "flops"] == pytest.approx(1.6)
    assert rows.loc[("base/4@32", 16), "flops"] == pytest.approx(19.2)
    assert rows.loc[("ViT-L/14@224", 16), "parameters"] == pytest.approx(0.0064)
    assert "1.60 % (ViT-L/14@224)" in module("fig12").caption(**inputs["fig12"])

    rows = module("fig11").table(**inputs["fig11"]).set_index(["mode", "row", "column"])
    assert rows.loc[("size", 0, 1), "gradient"] == pytest.approx(0, abs=1e-12)  # off the stripes
    assert "from 0.00 to 0.64 in stripes" in module("fig11").caption(**inputs["fig11"])


def test_fig12_draws_the_papers_models_apart(inputs):
    paper, run, _ = module("fig12").draw(**inputs["fig12"]).axes
    assert [line.get_label() for line in paper.lines] == ["ViT-L/14@224", "ViT-B/16@224"]
    assert [line.get_label() for line in run.lines] == ["base/4@32"]


def test_fig06_agrees_with_where_tokens_go():
    rows = module("fig06").table().set_index("token")
    assert not rows.loc["register", "used_at_output"] and not rows.loc["register", "position_added"]
    assert rows["enters_blocks"].all() and rows.loc[["cls", "patch"], "used_at_output"].all()


def test_the_papers_numbers_are_complete():
    counts = PRINTED.groupby(["artifact", "part"]).size()
    assert counts["table1", ""] == counts["table6", ""] == 42
    assert counts["table2", "a"] == counts["table3", ""] == 18
    assert counts["table4", ""] == 8 and counts["table5", ""] == 4 and counts["fig05", "b"] == 6
    cells = PRINTED.set_index(["row", "column"])
    one = cells.loc[cells["artifact"] == "table1", "value"]
    six = cells.loc[cells["artifact"] == "table6"]
    assert one.sort_index().equals(six["value"].sort_index())  # Table 6 is Table 1 in detail
    assert six["deviation"].notna().sum() == 28
    assert set(PRINTED.loc[PRINTED["value"].isna(), "note"]) == {"N/A"}
