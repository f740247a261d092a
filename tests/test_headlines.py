"""The paper's own quantities have names of their own, whatever layer or coordinate they carry."""

import pytest

from registers import headlines
from registers.measurements import Measurement


def row(question, metric, value, **columns):
    return Measurement(question, metric, "dinov2-r4-s0", value, **columns)


def test_norms_have_metrics_at_the_last_layer():
    at = dict(data="world", token="patch")
    rows = [
        row("norms", "share", 0.02, layer=12, **at),
        row("norms", "cutoff", 150.0, layer=12, **at),
        row("norms", "max_over_median", 9.0, layer=6, **at),
        row("norms", "max_over_median", 12.0, layer=12, **at),
        row("norms", "q50", 40.0, layer=12, **at),
        row("norms", "count", 7, layer=12, coordinate="norm", at=3.0, **at),
    ]
    assert headlines.metrics(rows) == {
        ("norms/share", 0): 0.02,
        ("norms/cutoff", 0): 150.0,
        ("norms/max_over_median", 0): 12.0,
    }


def test_discovery_names_what_tells_its_rows_apart():
    rows = [
        row("discovery", "corloc", 0.3, data="voc2007", variant="k", layer=12),
        row("discovery", "corloc", 0.2, data="coco20k", variant="k", layer=12),
        row("discovery", "corloc_choice", 0.1, data="voc2007", layer=12, coordinate="x", at=1.0),
    ]
    assert headlines.metrics(rows) == {
        ("discovery/corloc voc2007", 0): 0.3,
        ("discovery/corloc coco20k", 0): 0.2,
    }


def test_a_count_of_registers_is_the_step():
    rows = [
        Measurement("cost", "macs_increase", "", value, data="ViT-B", coordinate="registers", at=at)
        for at, value in ((0, 0.0), (4, 0.02))
    ]
    assert headlines.metrics(rows) == {
        ("cost/macs_increase", 0): 0.0,
        ("cost/macs_increase", 4): 0.02,
    }


@pytest.mark.parametrize(
    "name, expected",
    [
        ("high-norm tail (2 %)", "high-norm tail 2 percent"),
        ("ViT-B/16@224", "ViT-B/16 224"),
        ("linear/top1", "linear/top1"),
    ],
)
def test_names_are_words(name, expected):
    assert headlines.clean(name) == expected


def test_headlines_are_known_by_their_names():
    assert headlines.is_headline("discovery/corloc voc2007")
    assert not headlines.is_headline("norms/q50") and not headlines.is_headline("loss")
