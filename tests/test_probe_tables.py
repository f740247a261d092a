"""Fig. 5 and Tables 1, 4, 5 and 6 hold what was planted.

A kind of token that does not exist is a dash with its reason.
"""

import pandas as pd
import planted
import pytest

from registers import artifacts, reference
from registers.figures import fig05_local_information as fig05
from registers.tables import table1_token_classification as table1
from registers.tables import table4_aircraft_tokens as table4
from registers.tables import table5_local_information as table5
from registers.tables import table6_token_classification_spread as table6
from registers.vocabulary import TAIL

PRINTED = reference.read(artifacts.PAPER / "reference.yaml")
HIGH = (0.2, 3.0, 6.0)  # top1, distance, l2
LOW = (0.6, 0.5, 4.0)


def local(*args):
    """Arguments "position" and "reconstruction" of Fig. 5 and Table 5."""
    return planted.by_question(planted.frame(*args), "position", "reconstruction")


@pytest.fixture
def outliers(tmp_path):
    """One model's accuracies, with outliers at 75 % at the first label set."""
    return planted.frame(tmp_path, planted.token_class("dinov2-r0-s0", outlier=0.75))


# --- Tables 1 and 6


def test_table1_looks_like_the_papers_with_its_number_in_the_cell(outliers):
    table = table1.table(outliers, PRINTED)
    rows = table.set_index(["model", "token", "set"])
    assert rows.loc[("DINOv2", "[CLS]", "class"), ["ours", "low", "high"]].tolist() == [80, 75, 85]
    assert rows.loc[("DINOv2", "outlier", "fine"), "ours"] == 76
    assert rows.loc[("DINOv2", TAIL, "class"), "chance"] == 10
    # the paper's data sets are others than ours and stand in rows of their own
    kinds = ("[CLS]", "normal", "outlier")
    printed = [rows.loc[("the paper", kind, "Airc."), "paper"] for kind in kinds]
    assert printed == [87.3, 17.1, 79.1]

    shown = table1.shown(table).set_index("model")
    assert list(shown.columns) == ["[CLS]", "normal", "outlier", TAIL]
    assert shown.loc["DINOv2", "outlier"] == "76.0\n[73.5, 78.5]\npaper 86.0"
    assert shown.loc["chance"].tolist() == ["10.0"] * 4


def test_tokens_that_fewer_images_have_have_a_chance_of_their_own(tmp_path):
    names = ("dinov2-r0-s0", "deit3-r0-s0")
    tokens = planted.frame(tmp_path, *(planted.token_class(name) for name in names))
    for method, chance in (("dinov2", 0.25), ("deit3", 0.2)):
        tokens.loc[(tokens["token"] == TAIL) & (tokens["method"] == method), "chance"] = chance
    own = "% for the high-norm tail (2 %), which fewer images have"
    assert f"chance is 10.0 % and 20.0 to 25.0 {own}" in table1.caption(tokens, PRINTED)
    shown = table1.shown(table1.table(tokens, PRINTED)).set_index("model")
    assert shown.loc["chance", TAIL] == "20.0 to 25.0"
    one = tokens[tokens["method"] == "dinov2"]
    assert f"chance is 10.0 % and 25.0 {own}" in table4.caption(one, PRINTED)


def test_a_table_reads_the_same_from_its_file(tmp_path, outliers):
    """The page shows the CSV file, whose empty cells are numbers that do not exist."""
    for module in (table1, table6):
        table = module.table(outliers, PRINTED)
        table.to_csv(tmp_path / "table.csv", index=False)
        assert module.shown(pd.read_csv(tmp_path / "table.csv")).equals(module.shown(table))


def test_without_a_second_mode_there_is_a_dash_and_the_reason(tmp_path):
    tokens = planted.frame(tmp_path, planted.token_class("dinov2-r0-s0"))
    for module in (table1, table6):
        table = module.table(tokens, PRINTED)
        row = table.set_index(["model", "token", "set"]).loc[("DINOv2", "outlier", "fine")]
        assert pd.isna(row["ours"]) and "no second mode" in row["note"]
        cell = module.shown(table).set_index("model").loc["DINOv2", "outlier"]
        assert cell.startswith("–\npaper ")
        assert module.caption(tokens, PRINTED).count("no second mode") == 1
    bare = planted.frame(tmp_path, planted.token_class("dinov2-r0-s0", tail=None))
    caption = table1.caption(bare, PRINTED)
    assert "too few images for the high-norm tail" in caption and "–" not in caption


@pytest.mark.parametrize(
    "outlier, words",
    [(0.75, "above normal ones"), (0.05, "below normal ones"), (0.2, "not apart from normal ones")],
)
def test_table1_tells_which_way_it_went(tmp_path, outlier, words):
    tokens = planted.frame(tmp_path, planted.token_class("dinov2-r0-s0", outlier))
    assert words in table1.caption(tokens, PRINTED)


def test_data_without_attributes_have_one_label_set(tmp_path):
    rows = planted.token_class("dinov2-r0-s0", 0.75, sets=("label",))
    tokens = planted.frame(tmp_path, rows)
    first = table1.table(tokens, PRINTED).set_index(["model", "token", "set"])
    assert first.loc[("DINOv2", "normal", "label"), "ours"] == 20
    assert "label sets" not in table1.caption(tokens, PRINTED)
    assert set(table4.table(tokens, PRINTED)["data"]) == {"label", "Aircraft"}
    assert table4.caption(tokens, PRINTED).startswith('On "label"')


def test_table6_has_the_deviation_over_draws(outliers):
    table = table6.table(outliers, PRINTED)
    rows = table.set_index(["model", "token", "set"])
    assert rows.loc[("DINOv2", "normal", "class"), ["ours", "std"]].tolist() == [20, 1.3]
    assert rows.loc[("DINOv2", "[CLS]", "class"), "ours"] == 80
    assert rows.loc[("the paper", "outlier", "CF100"), ["paper", "paper_std"]].tolist() == [
        93.7,
        0.3,
    ]
    shown = table6.shown(table).set_index("model")
    assert list(shown.columns) == ["normal", "outlier", TAIL]
    assert shown.loc["DINOv2", "normal"] == "± 1.3\n1.3 to 1.3\npaper ± 0.5, 0.1 to 1.3"
    assert "1.3 points for normal patches" in table6.caption(outliers, PRINTED)


def test_seeds_are_averaged_and_their_intervals_joined(tmp_path):
    groups = [planted.token_class(f"dinov2-r0-s{s}", outlier=0.5 + 0.2 * s) for s in (0, 1)]
    rows = table1.table(planted.frame(tmp_path, *groups), PRINTED)
    outlier = rows.set_index(["model", "token", "set"]).loc[("DINOv2", "outlier", "class")]
    assert outlier[["ours", "low", "high"]].tolist() == [60, 45, 75]


# --- Tables 4 and 5


def test_table4_has_the_papers_columns(tmp_path):
    plain = planted.token_class("dinov2-r0-s0", outlier=0.75)
    with_one = planted.token_class("dinov2-r1-s0", registers=1)
    shown = table4.shown(table4.table(planted.frame(tmp_path, plain, with_one), PRINTED))
    shown = shown.set_index("registers")
    assert list(shown.columns) == ["[CLS]", "normal patch", "outlier patch", TAIL, "register"]
    plain = shown.loc["without registers"]
    assert plain["[CLS]"] == "81.0\n[76.0, 86.0]\npaper 84.6"
    assert plain["outlier patch"] == "76.0\n[71.0, 81.0]\npaper 73.3"
    assert plain["register"] == "–"
    with_one = shown.loc["1 register"]
    assert with_one["outlier patch"] == "–"
    assert with_one["register"] == "71.0\n[66.0, 76.0]\npaper 71.1"
    assert shown.loc["chance", "[CLS]"] == "10.0"


def test_table4_keeps_the_papers_numbers_for_another_count(tmp_path):
    """Four registers are ours alone, one is the paper's alone; registers share a cell."""
    groups = [planted.token_class(f"dinov2-r{r}-s0", registers=r) for r in (0, 4)]
    shown = table4.shown(table4.table(planted.frame(tmp_path, *groups), PRINTED))
    shown = shown.set_index("registers")
    assert list(shown.index) == ["without registers", "1 register", "4 registers", "chance"]
    assert shown.loc["1 register", "register"] == "–\npaper 71.1"
    assert shown.loc["4 registers", "register"] == "71.0\n[66.0, 76.0]"


def test_table5_is_about_patches_that_are_no_outliers(tmp_path):
    tokens = local(
        tmp_path,
        planted.local("dinov2-r0-s0", outlier=HIGH),
        planted.local("dinov2-r4-s0", normal=(0.7, 0.5, 4.01)),
    )
    table = table5.table(**tokens, reference=PRINTED)
    patches = table.groupby("registers")["patches"].unique()
    assert patches[0] == ["non-outliers"] and patches[4] == ["all: no second mode"]
    shown = table5.shown(table).set_index("registers")
    assert shown.loc["without registers"].tolist() == [
        "60.0\n[58.0, 62.0]\npaper 66.3",
        "0.50\n[0.48, 0.52]",
        "4.00\n[3.98, 4.02]\npaper 15.90",
    ]
    with_four = shown.loc["4 registers", "position top-1"]
    assert with_four == "70.0\n[68.0, 72.0]\npaper 65.8"
    assert shown.loc["chance"].tolist() == ["1.6", "4.10", "6.90"]
    caption = table5.caption(**tokens, reference=PRINTED)
    change = (
        "; with 4 registers top-1 changes by +10.0 points; the error by +0.01 (in each case one "
        "seed: not decided)."
    )
    assert caption.endswith(change)


# --- Fig. 5


def test_fig05_tells_outliers_from_the_tail(tmp_path):
    def inputs(similarity, scores):
        neighbours = planted.neighbours("dinov2-r0-s0", outlier=similarity)
        probed = local(tmp_path, planted.local("dinov2-r0-s0", outlier=scores))
        neighbours = planted.frame(tmp_path, neighbours)
        return {"neighbours": neighbours, **probed, "reference": PRINTED}

    def legend(arguments):
        ax = fig05.draw(**arguments).axes[0]
        return [text.get_text() for text in ax.get_legend().get_texts()]

    two_modes = inputs(0.9, HIGH)
    numbers = "position top-1 in % 20.0 < 60.0, L2 error of pixels 6.00 > 4.00"
    caption = fig05.caption(**two_modes)
    assert caption.startswith("Outliers against normal patches: DINOv2 similarity 0.90 > 0.65, ")
    assert numbers in caption
    assert "outlier, mean 0.90" in legend(two_modes)
    assert not any("tail" in text for text in legend(two_modes))

    one_mode = inputs(None, None)
    caption = fig05.caption(**one_mode)
    assert caption.startswith(f"As there is no second mode, the {TAIL} against normal patches: ")
    assert "DINOv2 similarity 0.75 > 0.65" in caption and "outlier" not in caption.lower()
    assert f"{TAIL}, mean 0.75" in legend(one_mode)
    assert not any(text.startswith("outlier") for text in legend(one_mode))


def test_fig05_hides_no_bars_behind_its_legend(tmp_path):
    arguments = local(tmp_path, planted.local("dinov2-r0-s0"))
    neighbours = planted.frame(tmp_path, planted.neighbours("dinov2-r0-s0"))
    figure = fig05.draw(neighbours, **arguments, reference=PRINTED)
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1


def test_fig05_puts_the_papers_numbers_beside_ours(tmp_path):
    neighbours = planted.frame(tmp_path, planted.neighbours("dinov2-r0-s0", outlier=0.9))
    probed = local(tmp_path, planted.local("dinov2-r0-s0"))
    rows = fig05.table(neighbours, **probed, reference=PRINTED)
    paper = rows[rows["backbone"] == "the paper"].set_index(["token", "metric"])["value"]
    assert paper["normal", "top1"] == pytest.approx(0.417)
    assert paper["outlier", "l2"] == 25.23 and paper["outlier", "distance"] == 5.09

    density = rows[(rows["metric"] == "density") & (rows["token"] == "outlier")]
    heights = density.set_index("at")["value"]
    assert heights.idxmax() == pytest.approx(0.9, abs=0.026)
    assert heights.sum() * 0.05 == pytest.approx(1)
