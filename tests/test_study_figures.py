"""Figures of the study show the numbers of their own run, reader, layer and token."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from registers.study.figures import READERS, headline, withdrawal
from registers.study.label_figures import carriers
from registers.study.summary import first_found

RNG = np.random.default_rng(0)


def write(runs: Path, name: str, registers: int, **maps: np.ndarray) -> dict[str, np.ndarray]:
    """A run of 3 scenes of 2 x 2 patches with a [CLS], whose last patch is blank."""
    (runs / name).mkdir()
    tokens = 1 + registers + 4
    blank = np.tile([False, False, False, True], (3, 1))
    maps = dict(
        images=RNG.random((3, 4, 4)),
        redundant=blank,
        marked=np.tile([True, False, False, False], (3, 1)),
        norms=1 + RNG.random((2, 3, 4)),
        all_norms=1 + RNG.random((20, 4)),
        all_redundant=np.tile(blank[0], (20, 1)),
        cls=RNG.random((3, tokens)),
        attention=RNG.random((3, tokens)),
        pool=RNG.random((3, tokens - 1)),
    ) | dict(maps)
    np.savez(runs / name / "maps.npz", **maps)
    regime = dict(appearance="glyphs", depth=2, local_from=100)
    run = dict(registers=registers, regime=regime, numbers={"cutoff": None})
    (runs / name / "run.json").write_text(json.dumps(run))
    return maps


def shown(figure: Figure, row: int, column: int, columns: int) -> np.ndarray:
    return figure.axes[row * columns + column].images[0].get_array()


@pytest.mark.parametrize("reader", READERS)
def test_the_attention_that_is_drawn_is_the_reader_s_with_registers_in_a_column(tmp_path, reader):
    names = {"v-r0-s0": 0, "v-r2-s0": 2}
    maps = [write(tmp_path, name, registers) for name, registers in names.items()]
    figure = headline(tmp_path, list(names), reader, scene=1)
    assert figure.axes[2].get_title() == READERS[reader]
    for row, (arrays, registers) in enumerate(zip(maps, names.values(), strict=True)):
        weights = arrays[reader][1]
        drawn = shown(figure, row, 2, 4)
        assert np.allclose(drawn[:2, :2].ravel(), weights[-4:])
        if registers:
            assert np.allclose(drawn[:2, -1], weights[-6:-4])
        assert np.ma.count(np.ma.masked_invalid(drawn)) == 4 + registers
        norms = arrays["norms"][-1, 1] / np.median(arrays["all_norms"])
        assert np.allclose(shown(figure, row, 1, 4).ravel(), norms)


def test_of_each_run_and_layer_is_drawn_who_tells_which_label(tmp_path):
    told = RNG.random((2, 4, 3, 5))  # runs; carriers, layers, labels
    told[0, 3] = np.nan  # a run without registers
    names = {"v-r0-s0": 0, "v-r4-s0": 4}
    for (name, registers), of_run in zip(names.items(), told, strict=True):
        write(tmp_path, name, registers, told=of_run)
    figure = carriers(tmp_path, list(names))
    for row, kinds in enumerate((3, 4)):
        for layer in range(3):
            ax = figure.axes[3 * row + layer]
            assert np.allclose(ax.images[0].get_array(), told[row, :kinds, layer])
            words = {text.get_position(): text.get_text() for text in ax.texts}
            assert words == {
                (label, kind): f"{told[row, kind, layer, label]:.2f}"
                for kind in range(kinds)
                for label in range(5)
            }
            assert [text.get_text() for text in ax.get_xticklabels()] == list("12345")
    first = [ax.get_yticklabels() for ax in (figure.axes[0], figure.axes[3])]
    first = [[text.get_text() for text in labels] for labels in first]
    without = ["[CLS]", "one wall patch", "another patch"]
    assert first == [without, [*without, "best register\nfor each label"]]
    assert [figure.axes[layer].get_title() for layer in range(3)] == [
        f"after block {number}" for number in (1, 2, 3)
    ]


def test_along_training_each_panel_draws_its_own_run_and_sign(tmp_path):
    columns = ["told_by_redundant", "told_by_others", "pool_on_redundant", "pool_on_registers"]
    columns += ["layer1/redundant_over_others", "layer2/redundant_over_others"]
    names = [[f"v-r{registers}-s{seed}" for registers in (0, 4)] for seed in (0, 1)]
    histories = {}
    for name in (name for both in names for name in both):
        write(tmp_path, name, 0)
        histories[name] = pd.DataFrame(RNG.random((3, 6)), columns=columns).assign(step=[0, 1, 2])
        histories[name].to_csv(tmp_path / name / "history.csv", index=False)
    panels = withdrawal(tmp_path, names).axes
    drawn = [("told_by_redundant", 0), ("told_by_others", 0)], [("pool_on_redundant", 0)]
    drawn += ([("pool_on_redundant", 1), ("pool_on_registers", 1)],)
    drawn += ([("layer2/redundant_over_others", 0), ("layer2/redundant_over_others", 1)],)
    for ax, expected in zip(panels, drawn, strict=True):
        lines = [line.get_ydata() for line in ax.lines[:-1]]  # the last is the dotted one
        wanted = [histories[both[run]][column] for both in names for column, run in expected]
        assert np.allclose(lines, wanted)
        assert list(ax.lines[-1].get_xdata()) == [100, 100]


HELD = dict(registers=0, second_mode=True, redundant=True, global_not_local=True)


@pytest.mark.parametrize(
    "change",
    [
        *({name: held} for name in list(HELD)[1:] for held in (False, None)),
        dict(registers=4),
        dict(variant="w"),
    ],
)
def test_the_first_seed_is_shown_in_which_conditions_1_to_3_hold_without_registers(change):
    rows = [dict(variant="v", seed=seed, **HELD) for seed in (4, 2, 0)]
    rows[2] |= change
    frame = pd.DataFrame(rows).astype({name: object for name in list(HELD)[1:]})
    assert first_found(frame, "v") == 2
    assert first_found(frame, "x") is None
