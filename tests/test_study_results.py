"""A row tells of a run what its files tell: at which look, of which layer, before or after."""

import json
from pathlib import Path

import pandas as pd
import pytest

from registers.study.results import load
from registers.study.sweep import read_sweep

SIGN = "redundant_over_others"


def write(folder: Path, course: list[float], end: float, steps: int = 200) -> None:
    """A run of the headline with four registers that was looked at every 100 steps."""
    folder.mkdir(parents=True)
    sweep = read_sweep()
    facts = dict(variant=sweep.headline, registers=4, seed=0, status="finished", steps=steps)
    regime = sweep.regime(sweep.headline).model_dump(mode="json")
    last = f"layer{regime['depth']}"
    numbers = {f"layer1/{SIGN}": 0.5, f"{last}/{SIGN}": end}
    parts = {"constant": 0.1, "of_scene": 0.6, "own": 0.3, "by_label": 0.8}
    signs = {f"redundant_{part}": value for part, value in parts.items()}
    run = facts | dict(seconds=1.0, regime=regime, numbers=numbers, signs=signs)
    (folder / "run.json").write_text(json.dumps(run))
    looks = {"step": [100 * k for k in range(len(course))], f"{last}/{SIGN}": course}
    looks[f"layer1/{SIGN}"] = [9.0] * len(course)  # of another layer
    looks[f"{last}/max_over_median"] = [1.5] * len(course)
    pd.DataFrame(looks).to_csv(folder / "history.csv", index=False)


@pytest.mark.parametrize(
    "course, end, half, most",
    [
        ([1.0, 2.0, 4.0], 3.8, 2.0, 4.0),
        ([1.0, 5.0, 4.0], 3.8, 5.0, 5.0),  # largest on the way
        ([1.0, 2.0, 3.7], 3.8, 2.0, 3.8),  # the end is examined on other pictures than the looks
    ],
)
def test_a_course_is_told_halfway_and_at_its_largest(tmp_path, course, end, half, most):
    write(tmp_path / "v-r4-s0", course, end)
    row = load(tmp_path, read_sweep()).iloc[0]
    assert row[f"half/{SIGN}"] == half
    assert row[f"peak/{SIGN}"] == most
    assert row[SIGN] == end and row["most_over_others"] == end


def test_a_run_without_a_look_halfway_tells_no_middle(tmp_path):
    write(tmp_path / "v-r4-s0", [1.0, 2.0, 4.0, 4.5], 4.4, steps=300)
    row = load(tmp_path, read_sweep()).iloc[0]
    assert pd.isna(row[f"half/{SIGN}"]) and row[f"peak/{SIGN}"] == 4.5


def test_what_blanks_are_made_of_is_told_under_its_own_name(tmp_path):
    write(tmp_path / "v-r4-s0", [1.0, 2.0], 1.0)
    row = load(tmp_path, read_sweep()).iloc[0]
    parts = ["redundant_constant", "redundant_of_scene", "redundant_own", "redundant_by_label"]
    assert row[parts].tolist() == [0.1, 0.6, 0.3, 0.8]
