"""Several seeds: means, standard deviations and error bars of Fig. 8 and Tables 2 and 3 are those of planted rows."""

import numpy as np
import planted
import planted_arrays
import pytest

from registers import artifacts, reference
from registers.figures import fig08_number_of_registers as fig08
from registers.tables import table2_downstream as table2
from registers.tables import table3_object_discovery as table3

COUNTS, METHODS = (0, 1, 2, 4, 8, 16), ("deit3", "openclip", "dinov2")
OFF = (-0.02, 0.0, 0.05)  # of seeds 0, 1 and 2: mean 0.01, standard deviation 0.03606 (n - 1)
MEAN, STD = np.mean(OFF), np.std(OFF, ddof=1)
PRINTED = reference.read(artifacts.PAPER / "reference.yaml")


def names(seeds=3, counts=COUNTS):
    return [(f"{m}-r{r}-s{s}", r, OFF[s]) for m in METHODS for r in counts for s in range(seeds)]


def tasks(folder, seeds=3, counts=COUNTS):
    """Rows of the three tasks."""
    linear = [
        planted.accuracy("linear", name, 0.5 + r / 100 + off)
        for name, r, off in names(seeds, counts)
    ]
    both = [
        planted.dense(name, 0.2 + off, 1.5 - r / 100 + off) for name, r, off in names(seeds, counts)
    ]
    return {
        "linear": planted.frame(folder, linear),
        **dict(zip(("segmentation", "depth"), (planted.frame(folder, *x) for x in zip(*both)))),
    }


@pytest.fixture
def maps():
    return {f"dinov2-r{r}-s0": planted_arrays.maps(f"dinov2-r{r}-s0", images=1) for r in COUNTS}


def bars(ax):
    """(middle, low, high) of every error bar of a panel, method by method."""
    found = []
    for container in ax.containers:
        line, _, (segments,) = container
        found += [(y, *sorted(s[:, 1])) for y, s in zip(line.get_ydata(), segments.get_segments())]
    return np.array(found)


def test_fig08_has_three_panels_with_bars_of_one_deviation_over_seeds(tmp_path, maps):
    given = tasks(tmp_path)
    panels = [ax for ax in fig08.draw(maps, **given).axes if ax.containers]
    assert [ax.get_title().split(",")[0] for ax in panels] == [
        "classification",
        "segmentation",
        "depth",
    ]
    for ax, middle, factor in zip(
        panels, (lambda r: 0.5 + r / 100, lambda r: 0.2, lambda r: 1.5 - r / 100), (100, 100, 1)
    ):
        assert [label.get_text() for label in ax.get_xticklabels()] == [str(r) for r in COUNTS]
        expected = [factor * (middle(r) + MEAN) for _ in METHODS for r in COUNTS]
        value, low, high = bars(ax).T
        assert (
            np.allclose(value, expected)
            and np.allclose(value - low, factor * STD)
            and np.allclose(high - value, factor * STD)
        )
        seeds = [
            line
            for line in ax.lines
            if line.get_linestyle() == "None" and len(line.get_ydata()) == 3 * len(COUNTS)
        ]
        assert len(seeds) == len(METHODS)  # each seed is a point of its own
    caption = fig08.caption(maps, **given)
    assert caption.endswith("bars are standard deviations over 3 seeds around their mean.")
    assert (
        "DINOv2 51.0 with 0 and 67.0 with 16, where 16 is best, beyond the standard deviations"
        in caption
    )
    rows = fig08.table(maps, **given)
    assert (
        rows[rows["panel"] != "attention"]
        .groupby(["panel", "method", "registers"])["seed"]
        .nunique()
        == 3
    ).all()


def test_fig08_of_one_seed_has_its_interval(tmp_path, maps):
    given = tasks(tmp_path, seeds=1)
    panels = [ax for ax in fig08.draw(maps, **given).axes if ax.containers]
    value, low, high = bars(panels[0]).T
    assert np.allclose(value - low, 2) and np.allclose(high - value, 2)
    assert fig08.caption(maps, **given).endswith(
        "bars are 95 % intervals over images, of one seed."
    )


def test_fig08_averages_the_sets_of_a_task(tmp_path, maps):
    """Segmentation on two sets: the mean over sets first, then over seeds; the deviation is that of the seeds alone."""
    rows = [
        planted.accuracy("segmentation", n, v + off, metric="miou")
        for n, _, off in names()
        for v in (0.2, 0.4)
    ]
    frame = planted.frame(tmp_path, rows)
    frame["data"] = ["first", "second"] * (len(frame) // 2)
    given = {"linear": tasks(tmp_path)["linear"], "segmentation": frame}
    panel = next(
        ax for ax in fig08.draw(maps, **given).axes if ax.get_title().startswith("segmentation")
    )
    value, low, high = bars(panel).T
    assert (
        panel.get_title() == "segmentation, mean of 2 sets"
        and np.allclose(value, 100 * (0.3 + MEAN))
        and np.allclose(high - low, 200 * STD)
    )
    assert "averaged over first and second" in fig08.caption(maps, **given)


def test_the_level_of_guessing_does_not_squeeze_a_panel(tmp_path, maps):
    """Depth is better when lower: guessing (planted 2.0) lies far above 1.5 and is left to the table."""
    given = tasks(tmp_path)
    top = {
        ax.get_title().split(",")[0]: ax.get_ylim()[1]
        for ax in fig08.draw(maps, **given).axes
        if ax.containers
    }
    assert top["depth"] < 1.7


def test_table2_prints_mean_and_deviation(tmp_path):
    given = tasks(tmp_path, counts=(0, 4))
    zeroshot = planted.frame(
        tmp_path,
        [
            planted.accuracy("zeroshot", n, 0.4 + off)
            for n, r, off in names(counts=(0, 4))
            if "openclip" in n
        ],
    )
    rows = table2.table(
        given["linear"], zeroshot, PRINTED, given["segmentation"], given["depth"]
    ).set_index(["task", "model"])
    assert rows.loc[
        ("linear top-1", "DINOv2+reg"), ["seeds", "ours", "std", "low", "high"]
    ].tolist() == [3, 55, 3.61, 50, 61]
    assert rows.loc[("depth rmse", "DeiT-III"), ["seeds", "ours", "std"]].tolist() == [
        3,
        1.51,
        0.036,
    ]
    assert rows.loc[("zero-shot top-1", "OpenCLIP"), ["ours", "std"]].tolist() == [41, 3.61]
    one = table2.table(tasks(tmp_path, 1)["linear"], zeroshot.iloc[:0], PRINTED).set_index(
        ["task", "model"]
    )
    assert np.isnan(one.loc[("linear top-1", "DINOv2"), "std"]) and one["seeds"].max() == 1


def test_table3_has_three_sets_untuned_and_tuned_with_deviations(tmp_path):
    sets = ("VOC 2007", "VOC 2012", "COCO 20k")
    groups = [
        planted.discovery(n, 0.3 + off, 0.5 + off, data=data)
        for data in sets
        for n, _, off in names(counts=(0, 4))
    ]
    rows = table3.table(planted.frame(tmp_path, *groups), PRINTED)
    assert len(rows) == 3 * 4 * 6 and tuple(dict.fromkeys(rows["data"])) == sets
    assert set(rows["procedure"]) == {
        "LOST, as published",
        "LOST, tuned",
        "DINO-seg, best head",
        "largest box, best head",
    }
    rows = rows.set_index(["data", "procedure", "model"])
    lost = rows.loc[("VOC 2012", "LOST, tuned", "DINOv2+reg")]
    assert lost[["seeds", "corloc", "std", "paper VOC 2012"]].tolist() == [3, 51, 3.6, 60.0]
    assert np.isnan(lost["paper VOC 2007"]) and np.isnan(
        lost["paper COCO 20k"]
    )  # the paper's number stands by its own set
    assert rows.loc[
        ("COCO 20k", "LOST, as published", "DeiT-III"), ["corloc", "paper COCO 20k"]
    ].tolist() == [31, 10.7]
