"""Figures of maps draw, table and tell what was planted."""

import io

import numpy as np
import planted
import planted_arrays
import pytest
from planted_inputs import grid, module

from registers.figures.paint import image_maps

PEAK = {"deit3": 9.0, "openclip": 7.0, "dinov2": 20.0}


def ends(without=PEAK, with_registers=2.0, **kwargs):
    """Maps of three methods without registers (peaks by method) and with four (one peak)."""
    peaks = {f"{method}-r0-s0": peak for method, peak in without.items()}
    peaks |= {f"{method}-r4-s0": with_registers for method in without}
    return {name: planted_arrays.maps(name, peak, **kwargs) for name, peak in peaks.items()}


# --- all methods without and with registers


@pytest.mark.parametrize(
    "artifact, key",
    [("fig01", "attention"), ("fig19", "attention"), ("fig21", "norms"), ("fig20", "components")],
)
def test_tables_hold_the_planted_maps(artifact, key):
    maps = ends(norm_peak=5, component=2.5)
    rng = np.random.default_rng(3)
    for arrays in maps.values():
        arrays[key] *= rng.uniform(0.5, 1.5, arrays[key].shape).astype(np.float32)
    rows = module(artifact).table(maps)
    images = 3 if artifact == "fig01" else 4
    assert set(rows["backbone"]) == set(maps)
    assert set(rows["image"]) == {f"val/{i}" for i in range(images)}
    for backbone, arrays in maps.items():
        for i in range(images):
            expected = arrays[key][i] if key == "norms" else arrays[key][i, 0]
            values = grid(rows, backbone=backbone, image=f"val/{i}")
            np.testing.assert_allclose(values, expected, rtol=6e-4)


def test_pictures_show_what_the_table_holds():
    """Columns of Fig. 1: input, methods in the paper's order without registers, then with."""
    maps = ends()
    maps["dinov2-r4-s0"]["attention"][1, 0, 5, 6] *= 3
    figure = module("fig01").draw(maps)
    rows = module("fig01").table(maps)
    painted = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    order = [f"{m}-r{r}-s0" for r in (0, 4) for m in ("deit3", "openclip", "dinov2")]
    assert len(painted) == 3 * 7
    for i in range(3):
        np.testing.assert_array_equal(painted[7 * i], maps["deit3-r0-s0"]["rgb"][i])
        for column, backbone in enumerate(order, start=1):
            expected = grid(rows, backbone=backbone, image=f"val/{i}")
            over_even = expected / expected.mean()
            np.testing.assert_allclose(painted[7 * i + column], over_even, rtol=6e-4)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["Input", *["DeiT-III", "OpenCLIP", "DINOv2"] * 2]


def test_captions_of_attention_tell_the_direction():
    for artifact in ("fig01", "fig19"):
        text = module(artifact).caption(ends())
        # planted: 9 at one of 64 patches, 1 at the others, is 64 * 9 / 72 over an even attention
        assert "8.0 and 2.0 in DeiT-III, 6.4 and 2.0 in OpenCLIP and 15.4 and 2.0 in DINOv2" in text
        assert text.endswith("clearly smaller for all 3 methods, as in the paper.")
        # OpenCLIP's hardly changes
        text = module(artifact).caption(ends({"deit3": 9.0, "openclip": 2.05, "dinov2": 1.5}))
        verdict = "smaller for DeiT-III (in the paper: for all) and clearly larger for DINOv2."
        assert text.endswith(verdict)
    # as printed: 1.2 and 1.1, whatever the next digits are
    text = module("fig01").caption(ends({"dinov2": 1.249}, with_registers=1.06))
    assert "1.2 and 1.1 in DINOv2" in text and "clearly smaller for none" in text
    text = module("fig21").caption(ends(norm_peak=6))
    assert "6.0 and 6.0 in DeiT-III" in text
    assert "smaller for none of the 3 methods (in the paper: for all)" in text
    assert "is at 2.5 and 2.5 in DeiT-III" in module("fig20").caption(ends(component=2.5))


def test_captions_count_the_seeds_that_agree():
    """The maps and numbers shown are the first seed's, in the order of the settings."""
    maps = {}
    for seed, with_registers in ((2, 2.0), (0, 2.0), (1, 30.0)):
        peaks = {"deit3-r0": 9.0, "deit3-r4": 2.0, "dinov2-r0": 20.0, "dinov2-r4": with_registers}
        for name, peak in peaks.items():
            name = f"{name}-s{seed}"
            maps[name] = planted_arrays.maps(name, peak)
    assert set(module("fig01").table(maps)["backbone"]) == {
        f"{method}-r{r}-s2" for method in ("deit3", "dinov2") for r in (0, 4)
    }
    text = module("fig01").caption(maps)
    assert "8.0 and 2.0 in DeiT-III and 15.4 and 2.0 in DINOv2" in text
    smaller = "clearly smaller for DeiT-III (3 of 3 seeds) and DINOv2 (2 of 3 seeds)"
    assert smaller in text and text.endswith("and clearly larger for DINOv2 (1 of 3 seeds).")
    alike = {name: arrays for name, arrays in maps.items() if not name.endswith("s1")}
    assert "smaller for all 2 methods in all 2 seeds, as in" in module("fig19").caption(alike)


def test_a_single_method_is_named_in_the_verdict():
    text = module("fig01").caption(ends({"dinov2": 9.0}))
    assert text.endswith("with registers it is clearly smaller for DINOv2, as in the paper.")


@pytest.mark.parametrize("artifact", ["fig01", "fig02", "fig08", "fig09", "fig18", "fig19"])
def test_all_attention_maps_of_a_figure_share_a_scale_with_its_bar(artifact, tmp_path):
    """A peak of 1.09 stays in the middle of a scale of its own, and is dark beside one of 9."""

    def drawn(*peaks):
        methods = ("deit3", "openclip")[: len(peaks)]
        maps = ends(dict(zip(methods, peaks)), with_registers=1.0, heads=1)
        arguments = {"maps": maps}
        if artifact == "fig08":
            rows = [planted.accuracy("linear", name, 0.5) for name in maps]
            arguments["linear"] = planted.frame(tmp_path, rows)
        figure = module(artifact).draw(**arguments)
        cells = [ax for ax in figure.axes if ax.get_xlabel().startswith("max ")]
        bars = [ax for ax in figure.axes if "over an even one" in ax.get_xlabel()]
        return cells, bars

    cells, bars = drawn(1.09)
    assert len(bars) == 1 and len({ax.images[0].get_clim() for ax in cells}) == 1
    if artifact != "fig09":  # which shows the model with registers
        first = cells[0]
        assert first.get_xlabel() == "max 1.1×" and first.images[0].get_clim()[0] == 0
        scaled = first.images[0].norm(first.images[0].get_array())
        assert scaled.min() > 0.45 and scaled.max() < 0.56
    if artifact in ("fig01", "fig02", "fig19"):
        flat, peaky = [ax.images[0] for ax in drawn(1.09, 9.0)[0][:2]]
        assert flat.norm(flat.get_array()).max() < 0.25
        assert peaky.norm(peaky.get_array()).max() >= 1


def test_one_peak_darkens_no_other_map():
    """Beside a peak of 57 times an even attention one of 2.5 is still told from a flat one."""
    figure = module("fig01").draw(ends({"deit3": 600.0, "openclip": 5.4}))
    cells = [ax for ax in figure.axes if ax.get_xlabel().startswith("max ")]
    assert cells[0].get_xlabel() == "max 57.9×"
    assert cells[1].images[0].norm(2.5) == pytest.approx(0.5)
    (bar,) = [ax for ax in figure.axes if "over an even one" in ax.get_xlabel()]
    assert bar.get_xlim()[1] == pytest.approx(5)


def test_flat_norms_look_flat(tmp_path):
    """In Figs. 3 and 21 the colours begin at 0 and reach twice the median at least."""
    maps = {name: planted_arrays.maps(name, norm_peak=1.05) for name in ends()}
    norms = planted.frame(tmp_path, planted.norms("dinov2-r0-s0", layers=2))
    for figure in (module("fig21").draw(maps), module("fig03").draw(norms, maps)):
        image = next(ax for ax in figure.axes if ax.images and ax.images[0].get_array().ndim == 2)
        image = image.images[0]
        assert image.get_clim() == pytest.approx((0, 20))
        assert np.ptp(image.norm(image.get_array())) < 0.03


def test_fig02_holds_every_method_against_dino():
    peaks = {"dinov2-r0-s0": 20, "dino-r0-s0": 3, "deit3-r0-s0": 9, "openclip-r0-s0": 2}
    maps = {name: planted_arrays.maps(name, peak) for name, peak in peaks.items()}
    text = module("fig02").caption(maps)
    assert "8.0 in DeiT-III, 2.0 in OpenCLIP, 2.9 in DINO and 15.4 in DINOv2" in text
    assert "clearly larger than in DINO for DeiT-III and DINOv2 (in the paper" in text
    titles = [ax.get_title() for ax in module("fig02").draw(maps).axes[:5]]
    assert titles == ["Input", "DeiT-III", "OpenCLIP", "DINO", "DINOv2"]


def test_fig21_shares_a_colour_scale_per_method():
    maps = ends(norm_peak=1.0)
    maps["openclip-r0-s0"]["norms"] *= 7
    limits = [ax.images[0].get_clim() for ax in module("fig21").draw(maps).axes[1:7]]
    assert limits[:3] == limits[3:]
    # twice the median, which of OpenCLIP lies between 10 and 70
    assert limits[0] == pytest.approx((0, 20)) and limits[1] == pytest.approx((0, 80))


# --- DINOv2 alone, and other models


def test_fig03_maps_the_models_of_its_histograms(tmp_path):
    shares = {"dino-r0-s0": 0, "dinov2-r0-s0": 0.02, "deit3-r0-s0": 0}
    rows = [planted.norms(name, outliers=share, layers=2) for name, share in shares.items()]
    norms = planted.frame(tmp_path, *rows)
    peaks = {"deit3-r0-s0": 1, "dino-r0-s0": 1, "dinov2-r0-s0": 9}
    maps = {name: planted_arrays.maps(name, norm_peak=peak) for name, peak in peaks.items()}

    rows = module("fig03").table(norms, maps)
    assert set(rows["backbone"]) == {"dino-r0-s0", "dinov2-r0-s0"}
    assert grid(rows, panel="norm", backbone="dinov2-r0-s0")[1, 2] == pytest.approx(90)
    bins = rows[(rows["panel"] == "histogram") & (rows["backbone"] == "dino-r0-s0")]
    assert not bins["second_mode"].any()
    titles = [ax.get_title() for ax in module("fig03").draw(norms, maps).axes if ax.get_title()]
    assert titles == ["Input", "DINO norms", "DINOv2 norms", "DINO", "DINOv2"]


def test_fig08_orders_counts_and_shows_all_methods(tmp_path):
    peaks = {f"dinov2-r{r}-s0": 1.5 if r else 30.0 for r in (16, 0, 4, 1, 8, 2)}
    maps = {name: planted_arrays.maps(name, peak) for name, peak in peaks.items()}
    linear = [
        planted.accuracy("linear", f"{method}-r{r}-s0", first + r / 100)
        for method, first in (("dinov2", 0.4), ("deit3", 0.6))
        for r in (0, 4)
    ]
    inputs = dict(maps=maps, linear=planted.frame(tmp_path, linear))

    figure = module("fig08").draw(**inputs)
    titles = [ax.get_title() for ax in figure.axes[1:7]]
    assert titles == [f"{r} [reg]" for r in (0, 1, 2, 4, 8, 16)]
    assert figure.axes[1].images[0].get_array()[1, 2] == pytest.approx(30 * 64 / 93)
    text = module("fig08").caption(**inputs)
    assert "20.6 with 0, 1.5 with 1" in text and "DINOv2 40.0" in text
    assert "DeiT-III 60.0 with 0 and 64.0 with 4, where 4 is best" in text
    rows = module("fig08").table(**inputs)
    assert grid(rows, panel="attention", registers=0)[1, 2] == pytest.approx(30 / 64, rel=1e-3)
    values = rows[rows["panel"] == "linear"].set_index("backbone")["value"]
    assert values["deit3-r4-s0"] == pytest.approx(64)


@pytest.mark.parametrize(
    "registers, panels",
    [(16, ["reg0", "reg6", "reg8", "reg12"]), (8, ["reg0", "reg2", "reg5", "reg7"]), (1, ["reg0"])],
)
def test_fig09_shows_the_papers_registers_or_spread_ones(registers, panels):
    name = f"dinov2-r{registers}-s0"
    maps = {name: planted_arrays.maps(name)}
    rows = module("fig09").table(maps)
    assert list(dict.fromkeys(rows["panel"])) == ["cls", *panels]
    for panel in panels:
        r = int(panel[3:])
        assert grid(rows, panel=panel, image="val/0")[2, r % 8] == pytest.approx(2 / 64, rel=1e-3)
    attention = maps[name]["attention"][:, 1:2]
    alike = maps[name] | {"attention": np.repeat(attention, registers + 2, axis=1)}
    assert "with that of [CLS] at 1.00" in module("fig09").caption({name: alike})


def test_fig17_stretches_components_to_colours():
    def maps(**peaks):
        return {"mae-r0-s0": planted_arrays.maps("mae-r0-s0", **peaks)}

    smooth = maps(norm_peak=1.3, component=3.0)
    red = grid(module("fig17").table(smooth), panel="components.red", image="val/0")
    assert red[1, 2] == 1 and red[-1, 0] == 0 and red[0, 0] == 0.5  # -1 to 3: 0 to 1
    text = module("fig17").caption(smooth)
    assert "no patch stands out by its norm, which sets it apart only from models" in text
    assert "1.3 times" in text and "than 3.0 standard" in text
    text = module("fig17").caption(maps(norm_peak=7))
    assert "some patches stand out (unlike in the paper)" in text


@pytest.mark.parametrize("heads, drawn", [(4, 3 * 5), (12, 1 + 12)])
def test_fig18_shows_every_head(heads, drawn):
    maps = {
        "deit3-r0-s0": planted_arrays.maps("deit3-r0-s0", 2.0, heads=heads),
        "dinov2-r0-s0": planted_arrays.maps("dinov2-r0-s0", 5.0, heads=heads),
    }
    rows = module("fig18").table(maps)
    assert set(rows["backbone"]) == {"dinov2-r0-s0"} and rows["panel"].nunique() == heads
    last = grid(rows, panel=f"head {heads}", image="val/0")
    assert last[1, 2] == pytest.approx(5 * heads / 64, rel=1e-3)
    text = module("fig18").caption(maps)
    least, most = (64 * peak / (63 + peak) for peak in (5, 5 * heads))
    assert f"{least:.1f} (head 1) to {most:.1f} (head {heads}) times an even one" in text
    panels = [ax for ax in module("fig18").draw(maps).axes if ax.get_visible() and ax.images]
    assert len(panels) == drawn


def test_fig18_agrees_with_its_own_numbers():
    """The factor between 1.24 and 1.69 is that of what is printed, 1.2 and 1.7."""
    maps = planted_arrays.maps("dinov2-r0-s0", 1.0, heads=2)
    for head, peak in enumerate((1.24, 1.69)):
        maps["heads"][:, head, 1, 2] = peak / 64
    text = module("fig18").caption({"dinov2-r0-s0": maps})
    assert "1.2 (head 1) to 1.7 (head 2)" in text and text.endswith("by a factor of up to 1.4.")


def test_fig18_does_not_tell_equal_heads_apart():
    maps = planted_arrays.maps("dinov2-r0-s0", 5.0)
    maps["heads"][:] = maps["heads"][:, :1]
    assert "in each of the 4 heads" in module("fig18").caption({"dinov2-r0-s0": maps})


# --- positions


def test_fig10_tells_stripes_from_a_border_and_outliers_from_a_tail(tmp_path):
    fig10 = module("fig10")
    smooth = planted.positions("dinov2-r0-s0")
    striped = planted.positions("dinov2-r0-s0-noaa", stripes=True)
    frame = planted.frame(tmp_path, smooth, striped)
    resize = planted.frame(tmp_path, planted.interpolation())
    rows = fig10.table(frame, resize)
    assert list(dict.fromkeys(rows["noaa"])) == [True, False] and set(rows["cutoff"]) == {150}
    assert grid(rows, noaa=False)[0, 3] == 0.1 and grid(rows, noaa=False)[3, 3] == 0.02
    assert grid(rows, noaa=True)[3, 3] == 0
    text = fig10.caption(frame, resize)
    assert "with antialiasing, 2.0 % to 10.0 % of 100 images" in text
    assert "10.0 % at the border and 2.0 % inside" in text
    assert "above the cut-off 150" in text and "tail" not in text
    ratios = [float(part.split(" times")[0]) for part in text.split("alternate ")[1:]]
    assert ratios == [7.8, 1.0]
    assert "(8 to 4 patches) weighs positions 180.0 % of their mean apart and can make" in text
    even = resize.assign(value=0.0)
    assert "is so even that no stripes can come from it" in fig10.caption(frame, even)

    backbones = ("dinov2-r0-s0", "dinov2-r0-s0-noaa")
    none = planted.frame(tmp_path, *(planted.positions(b, outliers=False) for b in backbones))
    assert set(fig10.table(none, resize)["panel"]) == {"share_tail"}
    text = fig10.caption(none, resize)
    assert "high-norm tail (2 %, above 90.0)" in text
    assert "outlier" not in text and "cut-off" not in text


def test_fig16_measures_how_far_attention_spreads(tmp_path):
    fig16 = module("fig16")
    frame = planted.frame(tmp_path, planted.positions("dinov2-r4-s0"))
    panels = list(dict.fromkeys(fig16.table(frame)["panel"]))
    assert panels == ["cls", "reg0", "reg1", "reg2", "reg3", "patch"]
    text = fig16.caption(frame)
    assert "100 % from [CLS], 100 % from the registers and" in text
    assert "clearly the most focused, as in the paper" in text
    swapped = frame["token"].replace({"patch": "cls", "cls": "patch"})
    assert "not clearly the most focused" in fig16.caption(frame.assign(token=swapped))
    assert grid(fig16.table(frame), panel="patch")[4, 4] == 1


# --- tables


def test_tables_stay_small():
    """The largest grid of the paper scale (8 images of 448 pixels, 6 models) stays below 3 MB."""
    rng = np.random.default_rng(0)
    maps = ends(images=1, side=32)
    for arrays in maps.values():
        arrays["attention"] = rng.random(arrays["attention"].shape, dtype=np.float32) / 1024
    text = io.StringIO()
    module("fig19").table(maps).to_csv(text, index=False)
    assert 8 * len(text.getvalue()) < 3e6


def test_rounding_keeps_four_digits():
    values = image_maps.rounded(np.array([0.000123456, 98765.4, -1.00004, 0]))
    assert values.tolist() == [0.0001235, 98770.0, -1.0, 0.0]
