"""Fig. 5 and Tables 1, 4, 5 and 6 say what was planted; a kind of token that does not exist is a dash with its reason."""

import planted
import pytest

from registers import artifacts, claims, reference
from registers.figures import fig05_local_information as fig05
from registers.tables import table1_token_classification as table1
from registers.tables import table4_aircraft_tokens as table4
from registers.tables import table5_local_information as table5
from registers.tables import table6_token_classification_spread as table6

PRINTED = reference.read(artifacts.PAPER / "reference.yaml")
CLAIMS = {claim["id"]: claim for claim in claims.load(artifacts.PAPER / "claims.yaml")}
HIGH, LOW = (0.2, 3.0, 6.0), (0.6, 0.5, 4.0)  # top1, distance, l2


def local(*args):
    """Arguments "position" and "reconstruction" of Fig. 5 and Table 5."""
    return planted.by_question(planted.frame(*args), "position", "reconstruction")


# --- Tables 1 and 6 ------------------------------------------------------------------------------------------------------


def test_table1_has_a_row_per_kind_and_the_papers_rows(tmp_path):
    rows = table1.table(
        planted.frame(tmp_path, planted.token_class("dinov2-r0-s0", outlier=0.75)), PRINTED
    ).set_index(["model", "token"])
    assert rows.loc[("DINOv2", "[CLS]"), "class"] == "80.0 [75.0, 85.0]"
    assert rows.loc[("DINOv2", "outlier"), ["mean", "fine"]].tolist() == [
        "76.0 [73.5, 78.5]",
        "76.0 [71.0, 81.0]",
    ]
    assert rows.loc[("DINOv2", "high-norm tail (2 %)"), "class"] == "40.0 [35.0, 45.0]"
    assert rows.loc[("DINOv2", "chance"), ["mean", "colour"]].tolist() == ["10.0", "10.0"]
    names = rows.loc[("the paper", "its data sets:")]
    aircraft = names.index[names == "Airc."].item()
    assert (
        rows.loc[("the paper", "[CLS]"), aircraft] == "87.3"
        and rows.loc[("the paper", "normal"), aircraft] == "17.1"
    )
    assert rows.loc[("the paper", "outlier"), aircraft] == "79.1"


def test_without_a_second_mode_there_is_a_dash_and_the_reason(tmp_path):
    given = planted.frame(tmp_path, planted.token_class("dinov2-r0-s0"))
    for module in (table1, table6):
        row = module.table(given, PRINTED).set_index(["model", "token"]).loc[("DINOv2", "outlier")]
        assert (
            set(row[["mean", "class", "fine", "colour"]]) == {"–"}
            and "no second mode" in row["note"]
        )
    assert "no second mode and hence no outliers" in table1.caption(given, PRINTED)
    bare = planted.frame(tmp_path, planted.token_class("dinov2-r0-s0", tail=None))
    assert "too few images for the high-norm tail" in table1.caption(
        bare, PRINTED
    ) and "–" not in table1.caption(bare, PRINTED)


@pytest.mark.parametrize(
    "outlier, words",
    [(0.75, "above normal ones"), (0.05, "below normal ones"), (0.2, "not apart from normal ones")],
)
def test_table1_says_which_way_it_went(tmp_path, outlier, words):
    assert words in table1.caption(
        planted.frame(tmp_path, planted.token_class("dinov2-r0-s0", outlier)), PRINTED
    )


def test_data_without_attributes_have_one_label_set(tmp_path):
    given = planted.frame(tmp_path, planted.token_class("dinov2-r0-s0", 0.75, sets=("label",)))
    rows = table1.table(given, PRINTED).set_index(["model", "token"])
    assert (
        rows.loc[("DINOv2", "normal"), "label"] == "20.0 [15.0, 25.0]"
        and rows.loc[("the paper", "[CLS]"), "set 14"] == "89.1"
    )
    assert "label sets" not in table1.caption(given, PRINTED)
    one = table4.table(given, PRINTED)
    assert one["data"].tolist() == ["label", "Aircraft", "Aircraft"] and table4.caption(
        given, PRINTED
    ).startswith('On "label"')


def test_table6_has_the_deviation_over_draws(tmp_path):
    rows = table6.table(
        planted.frame(tmp_path, planted.token_class("dinov2-r0-s0", 0.75)), PRINTED
    ).set_index(["model", "token"])
    assert (
        rows.loc[("DINOv2", "normal"), "class"] == "20.0 ± 1.3"
        and rows.loc[("DINOv2", "[CLS]"), "class"] == "80.0"
    )
    assert (
        rows.loc[("the paper", "outlier"), "colour"] == "93.7 ± 0.3"
    )  # CF100, the third of Table 6's columns


def test_seeds_are_averaged_and_their_intervals_joined(tmp_path):
    groups = [planted.token_class(f"dinov2-r0-s{s}", outlier=0.5 + 0.2 * s) for s in (0, 1)]
    rows = table1.table(planted.frame(tmp_path, *groups), PRINTED).set_index(["model", "token"])
    assert rows.loc[("DINOv2", "outlier"), "class"] == "60.0 [45.0, 75.0]"


# --- Tables 4 and 5 ------------------------------------------------------------------------------------------------------


def test_table4_has_the_papers_columns(tmp_path):
    before = planted.token_class("dinov2-r0-s0", outlier=0.75)
    rows = table4.table(
        planted.frame(tmp_path, before, planted.token_class("dinov2-r1-s0", registers=1)), PRINTED
    )
    shown = rows.set_index(["model", "#registers"])[
        ["[CLS]", "normal patch", "outlier patch", "register"]
    ]
    assert shown.loc[("DINOv2", 0)].tolist() == [
        "81.0 [76.0, 86.0]",
        "21.0 [16.0, 26.0]",
        "76.0 [71.0, 81.0]",
        "N/A",
    ]
    assert shown.loc[("DINOv2", 1)].tolist() == [
        "81.0 [76.0, 86.0]",
        "21.0 [16.0, 26.0]",
        "–",
        "71.0 [66.0, 76.0]",
    ]
    assert shown.loc[("the paper", 0)].tolist() == ["84.6", "15.5", "73.3", "N/A"]
    assert shown.loc[("the paper", 1)].tolist() == ["85.2", "14.5", "N/A", "71.1"]
    assert (
        rows["data"] == ["fine", "fine", "Aircraft", "Aircraft"]
    ).all() and "no second mode" in rows["note"][1]


def test_table5_looks_at_patches_that_are_no_outliers(tmp_path):
    given = local(
        tmp_path,
        planted.local("dinov2-r0-s0", outlier=HIGH),
        planted.local("dinov2-r4-s0", normal=(0.7, 0.5, 4.01)),
    )
    rows = table5.table(**given, reference=PRINTED).set_index(["model", "#registers", "patches"])
    assert rows.loc[("DINOv2", "0", "non-outliers")].tolist() == [
        "60.0 [58.0, 62.0]",
        "0.50 [0.48, 0.52]",
        "4.00 [3.98, 4.02]",
    ]
    assert rows.loc[("DINOv2", "4", "all: no second mode"), "position top-1"] == "70.0 [68.0, 72.0]"
    assert rows.loc[("DINOv2", "4", "chance")].tolist() == ["1.6", "4.10", "6.90"]
    assert rows.loc[
        ("the paper", "4", "non-outliers (all)"), ["position top-1", "reconstruction L2"]
    ].tolist() == ["65.8", "16.0"]
    assert table5.caption(**given, reference=PRINTED).endswith(
        "by the intervals top-1 is higher and the error the same with 4 registers."
    )


# --- Fig. 5 --------------------------------------------------------------------------------------------------------------


def test_fig05_tells_outliers_from_the_tail(tmp_path):
    with_outliers = dict(
        neighbours=planted.frame(tmp_path, planted.neighbours("dinov2-r0-s0", outlier=0.9)),
        **local(tmp_path, planted.local("dinov2-r0-s0", outlier=HIGH)),
    )
    caption = fig05.caption(**with_outliers, reference=PRINTED)
    assert (
        "DINOv2 (outliers) similarity 0.90 > 0.65, position top-1 in % 20.0 < 60.0, L2 error of pixels 6.00 > 4.00"
        in caption
    )
    without = dict(
        neighbours=planted.frame(tmp_path, planted.neighbours("dinov2-r0-s0")),
        **local(tmp_path, planted.local("dinov2-r0-s0")),
    )
    caption = fig05.caption(**without, reference=PRINTED)
    assert (
        "outliers" not in caption
        and "(high-norm tail (2 %), as there is no second mode) similarity 0.75 > 0.65" in caption
    )
    legends = [
        [t.get_text() for t in fig05.draw(**g, reference=PRINTED).axes[0].get_legend().get_texts()]
        for g in (with_outliers, without)
    ]
    assert "outlier (mean 0.90)" in legends[0] and not any("tail" in t for t in legends[0])
    assert "high-norm tail (2 %) (mean 0.75)" in legends[1] and not any(
        t.startswith("outlier") for t in legends[1]
    )


def test_fig05_puts_the_papers_numbers_beside_ours(tmp_path):
    rows = fig05.table(
        planted.frame(tmp_path, planted.neighbours("dinov2-r0-s0", outlier=0.9)),
        **local(tmp_path, planted.local("dinov2-r0-s0")),
        reference=PRINTED,
    )
    paper = rows[rows["backbone"] == "the paper"].set_index(["token", "metric"])["value"]
    assert (
        paper["normal", "top1"] == pytest.approx(0.417)
        and paper["outlier", "l2"] == 25.23
        and paper["outlier", "distance"] == 5.09
    )
    heights = rows[(rows["metric"] == "density") & (rows["token"] == "outlier")].set_index("at")[
        "value"
    ]
    assert heights.idxmax() == pytest.approx(
        0.9, abs=0.026
    ) and heights.sum() * 0.05 == pytest.approx(1)


# --- claims --------------------------------------------------------------------------------------------------------------

ABOUT_OUTLIERS = {  # claim: rows in which it holds, and rows in which the contrary does
    "outliers-where-patches-repeat": [
        planted.neighbours("dinov2-r0-s0", 0.65, o) for o in (0.9, 0.3)
    ],
    "outliers-hold-less-position": [
        planted.local("dinov2-r0-s0", LOW, HIGH),
        planted.local("dinov2-r0-s0", HIGH, LOW),
    ],
    "outliers-hold-fewer-pixels": [
        planted.local("dinov2-r0-s0", LOW, HIGH),
        planted.local("dinov2-r0-s0", HIGH, LOW),
    ],
    "outliers-hold-global-information": [
        planted.token_class("dinov2-r0-s0", o) for o in (0.75, 0.05)
    ],
    "registers-take-over": [
        planted.token_class("dinov2-r1-s0", registers=1, register=r) for r in (0.7, 0.05)
    ],
}


@pytest.mark.parametrize("name", ABOUT_OUTLIERS)
def test_claims_about_what_outliers_hold(tmp_path, name):
    there = planted.norms("dinov2-r0-s0", outliers=0.024, layers=2)
    for rows, expected in zip(ABOUT_OUTLIERS[name], (claims.REPRODUCED, claims.CONTRADICTED)):
        assert (
            claims.verdict(CLAIMS[name], planted.frame(tmp_path, there, rows)).verdict == expected
        )
    absent = planted.norms("dinov2-r0-s0", layers=2)
    found = claims.verdict(CLAIMS[name], planted.frame(tmp_path, absent, ABOUT_OUTLIERS[name][0]))
    assert found.verdict == claims.NOT_TESTABLE and "no second mode" in found.reason


def test_claims_that_need_no_outliers(tmp_path):
    rows = [
        planted.token_class("dinov2-r1-s0", registers=1),
        planted.local("dinov2-r0-s0", half=0.005),
    ]
    same, other = (
        planted.local("dinov2-r4-s0", (top1, 0.5, 4.0), half=0.005) for top1 in (0.605, 0.7)
    )
    first = planted.frame(tmp_path, *rows, same)
    assert (
        claims.verdict(CLAIMS["registers-hold-global-information"], first).verdict
        == claims.REPRODUCED
    )
    assert claims.verdict(CLAIMS["local-information-unchanged"], first).verdict == claims.REPRODUCED
    assert (
        claims.verdict(
            CLAIMS["local-information-unchanged"], planted.frame(tmp_path, *rows, other)
        ).verdict
        == claims.CONTRADICTED
    )
