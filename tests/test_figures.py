"""Figures and tables draw what was planted, say so in one sentence, agree with the numbers, and need no torch."""

import subprocess
import sys
from importlib import import_module

import numpy as np
import planted
import planted_arrays
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from registers import artifacts, reference
from registers.figures.paint import distributions, style

ARTIFACTS = artifacts.load()
METHODS = {"deit3": 40, "openclip": 12, "dinov2": 25}  # method: planted median norm
SIZES = ("tiny", "small", "base", "large", "huge", "giant")
SHARE = 0.024


def module(artifact):
    return import_module(f"registers.{ARTIFACTS[artifact].kind}.{ARTIFACTS[artifact].module}")


@pytest.fixture(scope="module", params=[SHARE, 0.0], ids=["second mode", "one mode"])
def inputs(request, tmp_path_factory):
    """Inputs of every artifact by its id; outliers are planted in models without registers, late and large, or nowhere."""
    share = request.param

    def frame(*rows):
        return planted.frame(tmp_path_factory.mktemp("rows"), *rows)

    def local(*rows):
        return planted.by_question(frame(*rows), "position", "reconstruction")

    ends = [
        planted.norms(f"{m}-r{r}-s0", median, share if r == 0 else 0, registers=r, layers=3)
        for m, median in METHODS.items()
        for r in (0, 4)
    ]
    steps = [
        planted.norms(
            f"dinov2-r0-s0-at{p:03d}" if p < 100 else "dinov2-r0-s0",
            5 + p / 5,
            share if p > 30 else 0,
        )
        for p in (0, 25, 50, 100)
    ]
    sizes = [
        planted.norms(f"dinov2-{s}-r0-s0", 10 + i, share if i > 2 else 0, layers=2)
        for i, s in enumerate(SIZES)
    ]
    linear = [
        planted.accuracy("linear", f"{m}-r{r}-s0", 0.5 + r / 100) for m in METHODS for r in (0, 4)
    ]
    ablation = [
        planted.accuracy("linear", f"dinov2-r{r}-s0", 0.5 + r / 100) for r in (0, 1, 2, 4, 8, 16)
    ]
    zeroshot = [planted.accuracy("zeroshot", f"openclip-r{r}-s0", 0.4 - r / 1000) for r in (0, 4)]
    both = [
        planted.dense(f"{m}-r{r}-s0", 0.2 + r / 100, 1.5 - r / 10) for m in METHODS for r in (0, 4)
    ]
    segmentation, depth = frame(*(s for s, _ in both)), frame(*(d for _, d in both))
    found = [
        planted.discovery(f"{m}-r{r}-s0", 0.3 + r / 20, 0.5 + r / 1000)
        for m in METHODS
        for r in (0, 4)
    ]
    outlier = 0.75 if share else None
    single = [planted.token_class(f"{m}-r0-s0", outlier) for m in METHODS]
    with_one = [
        planted.token_class("dinov2-r0-s0", outlier),
        planted.token_class("dinov2-r1-s0", registers=1),
    ]
    beside = [planted.neighbours(f"{m}-r0-s0", outlier=0.9 if share else None) for m in METHODS]
    place = [
        planted.local(f"{m}-r0-s0", outlier=(0.2, 3.0, 6.0) if share else None) for m in METHODS
    ]
    printed = reference.read(artifacts.PAPER / "reference.yaml")
    norm_peak = 8 if share else 1.2

    def maps(*names):
        plain = (9.0, norm_peak)
        return {
            n: planted_arrays.maps(n, *(plain if "-r0" in n and "dino-" not in n else (2.0, 1.1)))
            for n in names
        }

    maps_of_ends = maps(*(f"{m}-r{r}-s0" for m in METHODS for r in (0, 4)))
    maps_of_plain = maps(*(f"{m}-r0-s0" for m in METHODS), "dino-r0-s0")
    positions = [
        planted.positions(f"dinov2-r0-s0{a}", bool(share), stripes=a == "-noaa")
        for a in ("", "-noaa")
    ]
    return share, {
        "fig01": {"maps": maps_of_ends},
        "fig02": {"maps": maps_of_plain},
        "fig03": {"norms": frame(*ends), "maps": maps_of_plain},
        "fig04": {"steps": frame(*steps), "sizes": frame(*sizes)},
        "fig06": {},
        "fig07": {"norms": frame(*ends)},
        "fig08": {
            "maps": maps(*(f"dinov2-r{r}-s0" for r in (0, 1, 2, 4, 8, 16))),
            "linear": frame(*ablation),
            "segmentation": segmentation,
            "depth": depth,
        },
        "fig09": {"maps": maps("dinov2-r16-s0")},
        "fig10": {"positions": frame(*positions)},
        "fig11": {"interpolation": frame(planted.interpolation())},
        "fig12": {"cost": frame(planted.cost())},
        "fig13": {
            "lost": {f"{m}-r{r}-s0": planted_arrays.lost(f"{m}-r{r}-s0") for m in METHODS for r in (0, 4)}
        },
        "fig14": {"lost": {f"openclip-r{r}-s0": planted_arrays.lost(f"openclip-r{r}-s0") for r in (0, 4)}},
        "fig15": {"norms": frame(*ends)},
        "fig16": {"positions": frame(planted.positions("dinov2-r4-s0", bool(share)))},
        "fig17": {"maps": maps("mae-r0-s0")},
        "fig18": {"maps": maps_of_plain},
        **{f: {"maps": maps_of_ends} for f in ("fig19", "fig20", "fig21")},
        "table2": {
            "linear": frame(*linear),
            "segmentation": segmentation,
            "depth": depth,
            "zeroshot": frame(*zeroshot),
            "reference": printed,
        },
        "table3": {"discovery": frame(*found), "reference": printed},
        "fig05": {"neighbours": frame(*beside), **local(*place), "reference": printed},
        "table1": {"tokens": frame(*single), "reference": printed},
        "table4": {"tokens": frame(*with_one), "reference": printed},
        "table5": {
            **local(*(planted.local(f"dinov2-r{r}-s0") for r in (0, 4))),
            "reference": printed,
        },
        "table6": {"tokens": frame(*single), "reference": printed},
    }


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_every_artifact_takes_its_declared_inputs_and_says_one_sentence(inputs, artifact):
    given = inputs[1][artifact]
    assert set(given) == set(ARTIFACTS[artifact].inputs)
    made = module(artifact)
    wanted = {"table", "caption"} | ({"draw"} if artifact.startswith("fig") else set())
    assert {
        n
        for n, f in vars(made).items()
        if callable(f) and not n.startswith("_") and f.__module__ == made.__name__
    } == wanted
    caption = made.caption(**given)
    assert (
        caption.endswith(".")
        and "\n" not in caption
        and "nan" not in caption
        and ". " not in caption
    )
    assert len(made.table(**given))


@pytest.mark.parametrize("artifact", [a for a in ARTIFACTS if a.startswith("fig")])
def test_every_figure_is_drawn_inside_its_paper(inputs, artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "DPI", 60)  # saves time
    figure = module(artifact).draw(**inputs[1][artifact])
    style.save(figure, tmp_path / artifact)
    assert (tmp_path / f"{artifact}.png").read_bytes().startswith(b"\x89PNG")
    pdf = (tmp_path / f"{artifact}.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType, embedded
    renderer = FigureCanvasAgg(figure).get_renderer()
    page = figure.bbox
    for ax in figure.axes:
        box = ax.get_tightbbox(renderer)
        assert (
            box.x0 >= page.x0 - 1
            and box.x1 <= page.x1 + 1
            and box.y0 >= page.y0 - 1
            and box.y1 <= page.y1 + 1
        )


def test_histograms_hold_every_token(inputs):
    share, given = inputs
    rows = module("fig07").table(**given["fig07"])
    for (method, registers), one in rows.groupby(["method", "registers"]):
        assert one["count"].sum() == 50 * 64 and one["share"].sum() == pytest.approx(1)
        assert np.allclose(
            one["high"].to_numpy()[:-1], one["low"].to_numpy()[1:]
        )  # no gap between bins, empty ones included
        middle = np.average(
            (one["low"] * one["high"]) ** 0.5,
            weights=one["share"] * (one["high"] < 3 * METHODS[method]),
        )
        assert middle == pytest.approx(METHODS[method], rel=0.06)  # one bin is 6 % wide
        above = one.loc[one["low"] >= 4 * METHODS[method] * 0.95, "share"].sum()
        assert above == pytest.approx(share if registers == 0 else 0, abs=1e-3)


def test_verdicts_are_the_planted_ones(inputs):
    share, given = inputs
    fig04 = module("fig04").table(**given["fig04"])
    late = fig04[fig04["panel"] == "b"].set_index("at")["second_mode"]
    assert late.to_dict() == {p: bool(share) and p > 30 for p in (0, 25, 50, 100)}
    sizes = fig04[fig04["panel"] == "c"].set_index("at")["second_mode"]
    assert sizes.to_dict() == {s: bool(share) and i > 2 for i, s in enumerate(SIZES)}
    medians = fig04[fig04["panel"] == "a"].set_index("at")["q50"]
    assert (
        medians.index.tolist() == [1, 2, 3, 4]
        and medians[4] == pytest.approx(25, rel=0.05)
        and medians[2] == pytest.approx(12.5, rel=0.05)
    )
    fig03 = module("fig03").table(**given["fig03"])
    assert set(fig03["backbone"]) == {"dinov2-r0-s0"}
    fig03 = fig03[fig03["panel"] == "histogram"]
    if share:
        assert fig03["share_above"].unique().tolist() == [SHARE] and fig03[
            "cutoff"
        ].unique().tolist() == [100]
    else:
        assert fig03["share_above"].isna().all() and fig03["cutoff"].isna().all()


def test_captions_follow_the_numbers(inputs):
    share, given = inputs
    captions = {a: module(a).caption(**given[a]) for a in ARTIFACTS}
    if share:
        assert (
            "2.40 % of the tokens (1.92 % to 2.88 %) lie above the cut-off 100" in captions["fig03"]
        )
        assert (
            "2 of 4 (50 % and 100 %) checkpoints" in captions["fig04"]
            and "3 of 6 (large, huge and giant)" in captions["fig04"]
        )
        assert (
            "Without registers DeiT-III (2.40 %), OpenCLIP (2.40 %) and DINOv2 (2.40 %) have"
            in captions["fig07"]
        )
        assert captions["fig07"].endswith("with 4 registers no model has high-norm outliers.")
    else:
        for artifact in ("fig03", "fig04", "fig07"):
            assert (
                "no second mode" in captions[artifact].lower()
                and "outlier" not in captions[artifact]
            )
    assert "reg3 6." in captions["fig15"]  # planted: register r has 3 + r times the norm of a patch
    assert "16 is best, beyond the intervals" in captions["fig08"]


def test_registers_that_do_not_help_are_said_not_to(tmp_path):
    norms = [
        planted.norms(f"dinov2-r{r}-s0", outliers=o, layers=2) for r, o in ((0, 0.02), (4, 0.03))
    ]
    assert (
        module("fig07")
        .caption(norms=planted.frame(tmp_path, *norms))
        .endswith("with 4 registers DINOv2 (3.00 %) has high-norm outliers.")
    )
    linear = [planted.accuracy("linear", f"dinov2-r{r}-s0", 0.5 - r / 100) for r in (0, 1, 4)]
    maps = {f"dinov2-r{r}-s0": planted_arrays.maps(f"dinov2-r{r}-s0") for r in (0, 4)}
    assert "no higher count improves on 0" in module("fig08").caption(
        maps=maps, linear=planted.frame(tmp_path, linear)
    )
    within = [planted.accuracy("linear", f"dinov2-r{r}-s0", 0.5 + r / 1000) for r in (0, 4)]
    assert "4 is best, within the intervals" in module("fig08").caption(
        maps=maps, linear=planted.frame(tmp_path, within)
    )


@pytest.mark.parametrize(
    "method, counts", [("deit3", (0,)), ("dinov2", (4,)), ("openclip", (1, 4))]
)
def test_runs_with_other_methods_and_counts_are_drawn_too(tmp_path, method, counts):
    norms = [
        planted.norms(f"{method}-r{r}-s{s}", registers=r, layers=2) for r in counts for s in (0, 1)
    ]
    linear = [
        planted.accuracy("linear", f"{method}-r{r}-s{s}", 0.5) for r in counts for s in (0, 1)
    ]
    norms, linear = planted.frame(tmp_path, *norms), planted.frame(tmp_path, linear)
    first = norms[norms["registers"] == counts[0]]
    maps = {
        f"{method}-r{r}-s{s}": planted_arrays.maps(f"{method}-r{r}-s{s}") for r in counts for s in (0, 1)
    }
    some = {f"{method}-r{counts[0]}-s0": maps[f"{method}-r{counts[0]}-s0"]}
    positions = planted.frame(
        tmp_path,
        *(
            planted.positions(f"{method}-r{counts[0]}-s{s}{a}")
            for s in (0, 1)
            for a in ("", "-noaa")
        ),
    )
    given = {
        f: {"maps": maps} for f in ("fig01", "fig02", "fig09", "fig18", "fig19", "fig20", "fig21")
    }
    given |= {
        "fig10": {"positions": positions},
        "fig16": {"positions": positions[~positions["noaa"].astype(bool)]},
    }
    given |= {
        "fig03": {"norms": first, "maps": some},
        "fig04": {"steps": first, "sizes": first},
        "fig07": {"norms": norms},
        "fig15": {"norms": norms},
    }
    for artifact, frames in {**given, "fig08": {"maps": maps, "linear": linear}}.items():
        caption = module(artifact).caption(**frames)
        assert module(artifact).draw(**frames).axes and "nan" not in caption
        assert style.name(method) in caption or "any of these" in caption
        assert (
            "without registers" not in caption.replace("with or without registers", "")
            or 0 in counts
        )


def test_a_hand_picked_cutoff_does_not_make_outliers(tmp_path):
    rows = planted.norms("dinov2-r0-s0", layers=2)
    rows = [r for r in rows if r.metric not in ("cutoff", "share")]
    for metric, value in (("cutoff", 30.0), ("share", 0.01)):
        rows.append(
            planted.Measurement(
                "norms",
                metric,
                "dinov2-r0-s0",
                value,
                low=value,
                high=value,
                n=50,
                token="patch",
                layer=2,
            )
        )
    caption = module("fig03").caption(
        norms=planted.frame(tmp_path, rows), maps={"dinov2-r0-s0": planted_arrays.maps("dinov2-r0-s0")}
    )
    assert "no second mode" in caption and "outlier" not in caption
    assert (
        "1.00 % above the chosen 30.0" in distributions.verdict(planted.frame(tmp_path, rows)).words
    )


def test_fig08_and_table2_are_in_per_cent_with_intervals(inputs):
    _, given = inputs
    rows = module("fig08").table(**given["fig08"])
    rows = rows[rows["panel"] == "linear"].set_index("registers")
    assert rows["value"].round(6).to_dict() == {0: 50, 1: 51, 2: 52, 4: 54, 8: 58, 16: 66}
    assert np.allclose(rows["high"] - rows["value"], 2) and (rows["chance"] == 10).all()
    shown = module("fig08").table(**given["fig08"])
    last = shown[shown["registers"] == 4].set_index(["panel", "method"])["value"]
    assert last["segmentation", "deit3"] == pytest.approx(24) and last[
        "depth", "deit3"
    ] == pytest.approx(1.1)
    rows = module("table2").table(**given["table2"]).set_index(["task", "model"])
    assert len(rows) == 4 * 6 + 2 and (rows["part"] == "b").sum() == 2
    assert rows.loc[
        ("linear top-1", "DINOv2+reg"), ["ours", "low", "high", "paper", "n"]
    ].tolist() == [54, 52, 56, 84.8, 1000]
    assert rows.loc[
        ("segmentation mIoU", "DINOv2+reg"), ["ours", "low", "high", "paper"]
    ].tolist() == [24, 23, 25, 47.9]
    assert rows.loc[("depth rmse", "OpenCLIP"), ["ours", "low", "high", "paper"]].tolist() == [
        1.5,
        1.49,
        1.51,
        0.702,
    ]
    assert rows.loc[("depth rmse, mean of images", "OpenCLIP"), ["ours", "paper"]].tolist() == [
        1.4,
        0.702,
    ]
    assert rows.loc[("zero-shot top-1", "OpenCLIP"), ["ours", "paper"]].tolist() == [40, 59.9]
    caption = module("table2").caption(**given["table2"])
    assert (
        "+4.0 points for DINOv2 (within the intervals)" in caption
        and "zero-shot top-1 changes by -0.4 points for OpenCLIP (within" in caption
    )
    assert "depth rmse (lower is better) changes by -0.400 for DeiT-III (beyond" in caption


def test_a_cell_that_was_not_run_says_why(inputs, tmp_path):
    given = dict(
        inputs[1]["table2"],
        linear=planted.frame(
            tmp_path, [planted.accuracy("linear", n, 0.5) for n in ("deit3-r0-s0", "dinov2-r4-s0")]
        ),
    )
    rows = module("table2").table(**given).set_index(["task", "model"])
    missing = rows.loc[("linear top-1", "DeiT-III+reg")]
    assert np.isnan(missing["ours"]) and missing["note"] == "not trained in this run"


def test_table3_and_the_steps_of_lost_are_the_planted_ones(inputs, tmp_path):
    _, given = inputs
    rows = module("table3").table(**given["table3"]).set_index(["procedure", "model"])
    assert len(rows) == 4 * 6  # the tuning grid is no row
    wanted = ["corloc", "low", "high", "paper VOC 2007", "paper COCO 20k"]
    assert rows.loc[("LOST, as published", "DINOv2+reg"), wanted].tolist() == [
        50,
        47,
        53,
        55.4,
        42.0,
    ]
    assert rows.loc[("LOST, tuned", "OpenCLIP"), wanted].tolist() == [50, 47, 53, 38.8, 31.0]
    assert rows.loc[("DINO-seg, best head", "DeiT-III"), "corloc"] == 20
    caption = module("table3").caption(**given["table3"])
    assert (
        "LOST, as published on planted val (n = 200), +20.0 points for DeiT-III (beyond the intervals)"
        in caption
    )
    assert (
        "LOST, tuned on planted val (n = 200), +0.4 points for DeiT-III (within the intervals)"
        in caption
    )
    lost = given["fig13"]["lost"]
    steps = module("fig13").table(lost)
    box = steps[(steps["backbone"] == "deit3-r0-s0") & steps["panel"].str.startswith("box")][
        "value"
    ].tolist()
    assert box == [0, 0, 16, 16] and "DeiT-III 1.00 without registers and 1.00 with 4" in module(
        "fig13"
    ).caption(lost)
    assert "-1.00 (keys), 1.00 (queries) and 1.00 (values) without registers" in module(
        "fig14"
    ).caption(given["fig14"]["lost"])  # planted
    worse = {
        "openclip-r0-s0": planted_arrays.lost("openclip-r0-s0", expansion=0.0),
        "openclip-r4-s0": planted_arrays.lost("openclip-r4-s0"),
    }
    assert "smoother for none of the three" in module("fig14").caption(worse)


def test_fig12_and_fig11_are_exact(inputs):
    _, given = inputs
    rows = module("fig12").table(**given["fig12"]).set_index(["model", "registers"])
    assert rows.loc[("ViT-L/14@224", 4), "flops"] == pytest.approx(1.6) and rows.loc[
        ("base/4@32", 16), "flops"
    ] == pytest.approx(19.2)
    assert rows.loc[("ViT-L/14@224", 16), "parameters"] == pytest.approx(0.0064)
    assert "1.60 % (ViT-L/14@224)" in module("fig12").caption(**given["fig12"])
    rows = module("fig11").table(**given["fig11"])
    one = rows[(rows["mode"] == "size") & (rows["row"] == 0) & (rows["column"] == 1)]["gradient"]
    assert one.item() == pytest.approx(0, abs=1e-12)  # planted: 0.8 x 0 off the stripes
    assert "from 0.00 to 0.64 in stripes" in module("fig11").caption(**given["fig11"])


def test_fig06_agrees_with_where_tokens_go():
    rows = module("fig06").table().set_index("token")
    assert not rows.loc["register", "used_at_output"] and not rows.loc["register", "position_added"]
    assert rows["enters_blocks"].all() and rows.loc[["cls", "patch"], "used_at_output"].all()


def test_figures_and_report_need_no_torch():
    names = [f"registers.{a.kind}.{a.module}" for a in ARTIFACTS.values()] + [
        "registers.report",
        "registers.claims",
        "registers.figures.paint.predictions",
    ]
    code = f"import sys; [__import__(n) for n in {names}]; print(sorted({{'torch', 'timm', 'mlflow', 'torchvision'}} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_the_papers_numbers_are_complete():
    printed = reference.read(artifacts.PAPER / "reference.yaml")
    counts = printed.groupby(["artifact", "part"]).size()
    assert (
        counts[("table1", "")] == 42 == counts[("table6", "")]
        and counts[("table2", "a")] == 18
        and counts[("table3", "")] == 18
    )
    assert (
        counts[("table4", "")] == 8 and counts[("table5", "")] == 4 and counts[("fig05", "b")] == 6
    )
    one, six = (
        printed[printed["artifact"] == t].set_index(["row", "column"])["value"]
        for t in ("table1", "table6")
    )
    assert one.sort_index().equals(six.sort_index())  # Table 6 is Table 1 in detail
    assert printed[printed["artifact"] == "table6"]["deviation"].notna().sum() == 28
    assert set(printed.loc[printed["value"].isna(), "note"]) == {"N/A"}
