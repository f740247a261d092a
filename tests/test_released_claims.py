"""Claims, headlines and the giant's printed numbers where the models are published ones."""

from importlib import import_module
from pathlib import Path

import planted
import pytest

from registers import inputs, report
from registers.claims.loading import load
from registers.claims.verdicts import (
    INCONCLUSIVE,
    NOT_TESTABLE,
    REPRODUCED,
    VERDICTS,
    judged,
)
from registers.measurements import Measurement, write
from registers.page import opening
from registers.settings.load import load_settings

CLAIMS = load(Path(__file__).parents[1] / "paper" / "claims.yaml")
GIANT = ["dinov2-giant-r0-s0", "dinov2-giant-r4-s0"]
CLIP = ["openclip-base-r0-s0", "openclip-base-r4-s0-tt"]


def rows_of(settings, folder, first_layer=0.375, **outliers):
    """Rows of norms of all models of a run; outliers: share by method, without registers."""
    paths = []
    for name in settings.models:
        share = outliers.get(name.partition("-")[0], 0.0) if "-r0-" in name else 0.0
        layers = Measurement("norms", "first_layer", name, first_layer if share else None)
        norms = [*planted.norms(name, outliers=share, layers=8, images=20), layers]
        linear = [planted.accuracy("linear", name, 0.8)]
        for question, some in (("norms", norms), ("linear", linear)):
            paths.append(folder / f"{question}-{name}.csv")
            write(paths[-1], some, run="released/x/y")
    return inputs.rows(settings, [str(path) for path in paths])


def settings_of(models):
    return load_settings({"scale": "released", "models": models})


@pytest.mark.parametrize("models", ["default", GIANT, CLIP, ["mae-base-r0-s0"]], ids=str)
def test_every_claim_is_judged_and_says_of_which_models(tmp_path, models):
    settings = settings_of(models)
    measured = rows_of(settings, tmp_path, dinov2=0.024, openclip=0.02)
    verdicts = judged(CLAIMS, measured, settings.scale, inputs.printed())
    assert {v.verdict for v in verdicts} <= set(VERDICTS)
    for claim, v in zip(CLAIMS, verdicts):
        assert set(v.models) <= set(settings.models)
        if claim["unit"] == "exact" or v.verdict == NOT_TESTABLE:
            continue
        assert "published models" in v.samples and v.models
        assert all(name in v.samples for name in v.models)
        assert ("added at test time" in v.samples) == any(n.endswith("-tt") for n in v.models)
        if claim["unit"] == "training":
            assert v.verdict == INCONCLUSIVE, "one training each decides nothing"
    numbers = report.metrics(settings, measured, verdicts)
    assert set(numbers["claims"]) == set(VERDICTS) and numbers["segmentation"] == {}
    first, second = opening.conclusion(verdicts, measured)
    assert first.startswith("Of the paper's") and second


def test_what_dvc_compares_names_test_time_registers(tmp_path):
    settings = settings_of(CLIP)
    numbers = report.metrics(settings, rows_of(settings, tmp_path, openclip=0.02), [])
    assert (
        set(numbers["linear"]["openclip"]) == set(numbers["norms"]["openclip"]) == {"r0", "r4-tt"}
    )
    only = settings_of(["mae-base-r0-s0"])
    assert report.metrics(only, rows_of(only, tmp_path), [])["norms"] == {}


def test_the_papers_numbers_of_the_giant_stand_beside_ours(tmp_path):
    settings = settings_of(GIANT)
    measured = rows_of(settings, tmp_path, dinov2=0.024)
    verdicts = {v.id: v for v in judged(CLAIMS, measured, settings.scale, inputs.printed())}
    few, layers = verdicts["outliers-are-few"], verdicts["outliers-from-middle-layers"]
    assert few.verdict == REPRODUCED and few.effect.paper == pytest.approx(0.0237)
    assert few.models == GIANT[:1] and GIANT[0] in few.samples
    assert layers.effect.paper == 0.375 and layers.effect.value == 0.375

    norms = measured[measured["backbone"] == GIANT[0]]
    fig04 = import_module("registers.figures.fig04_when_outliers_appear")
    assert fig04._first_layer(norms, 40) == 15
    fig03 = import_module("registers.figures.fig03_norm_histogram")
    assert "% above the paper's 150" in fig03._finding(norms)
    printed = inputs.printed()
    for artifact, column, value in (("fig03", "share above", 2.37), ("fig04", "layer", 15)):
        cells = printed[(printed["artifact"] == artifact) & (printed["column"] == column)]
        assert cells["value"].tolist() == [value]


def test_a_model_in_which_nothing_was_moved_is_no_evidence(tmp_path, monkeypatch):
    settings = settings_of("default")
    measured = rows_of(settings, tmp_path, dinov2=0.024, openclip=0.02)

    def names():
        rows = report.evidence(settings, measured)
        return {name for v in judged(CLAIMS, rows, settings.scale) for name in v.models}

    assert CLIP[1] in names()
    monkeypatch.setattr(report.published, "unmoved", lambda settings: {CLIP[1]: "no outliers"})
    assert CLIP[1] not in names()
