"""What the runs of the study say together: results.csv with every run, the figures and emergence.md. Reads files only; no torch."""

import json
import re
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import style
from registers.outliers import MIN_RATIO
from registers.study.regime import CONDITIONS, Regime, Study

TEMPLATE = Path(__file__).with_name("emergence.md.j2")
RUN_COLUMNS = ("variant", "registers", "seed", "status", "steps", "seconds")
SURELY = 0.9
SEEDS = 3  # a regime counts as found when all conditions hold in so many
VARIED = (
    "summary",
    "background",
    "task",
    "width",
    "depth",
    "heads",
    "ffn",
    "bias",
    "layer_scale",
    "gain",
    "optimizer",
    "lr",
    "weight_decay",
)
CHARTED = 4  # variants whose course is drawn


def load(runs: Path, study: Study) -> pd.DataFrame:
    """One row a run, from runs/*/run.json: settings, how it ended, its numbers, conditions 1 to 4 (the fourth where there are registers).

    Columns "start_ratio" and "ratio": largest over median patch norm after the last block before the first and after the last step;
    "any_layer": the largest of any layer; "sink": the largest mean share of attention that one patch takes, over layers;
    "redundant_sink": the same over layers where the most attended patch is redundant in over 90 % of scenes, "redundant_sink_norm": its
    norm over the median.
    """
    rows = []
    for file in sorted(runs.glob("*/run.json")):
        run = json.loads(file.read_text())
        numbers, signs, last = (
            run.get("numbers", {}),
            run.get("signs", {}),
            f"layer{run['regime']['depth']}",
        )
        history = pd.read_csv(file.with_name("history.csv"))
        variant = study.variants.get(run["variant"])
        row = {
            "run": file.parent.name,
            "hypothesis": variant.hypothesis if variant else "",
            **{k: run[k] for k in RUN_COLUMNS},
        }
        row |= {k: signs.get(k) for k in ("accuracy", "local", "triggered", "masked", "texture")}
        if not run["regime"]["image_loss"]:
            row["accuracy"] = None  # the label's head was never trained
        row |= {
            "start_ratio": history[f"{last}/max_over_median"].iloc[0],
            "ratio": numbers.get(f"{last}/max_over_median"),
        }
        row["any_layer"] = max(
            (v for k, v in numbers.items() if k.endswith("/max_over_median")), default=None
        )
        row |= {k: signs.get(f"{last}/{k}") for k in ("kurtosis", "share_above_3x_median")}
        row["sink"] = max(
            (v for k, v in signs.items() if k.endswith("attention_on_a_patch")), default=None
        )
        at = [
            k.split("/")[0]
            for k, v in signs.items()
            if k.endswith("/sink_redundant") and v > SURELY
        ]
        best = max(at, key=lambda layer: signs[f"{layer}/attention_on_a_patch"], default=None)
        row["redundant_sink"] = signs[f"{best}/attention_on_a_patch"] if best else None
        row["redundant_sink_norm"] = signs[f"{best}/sink_over_median"] if best else None
        row["attention_on_registers"] = max(
            (v for k, v in signs.items() if k.endswith("attention_on_registers")), default=None
        )
        row |= {
            k: numbers.get(k)
            for k in ("cutoff", "share", "redundant/all", "class/chance", "class/cls")
        }
        for key in ("redundant", "neighbours", "class", "position/top1", "reconstruction/l2"):
            row |= {
                f"{key}/{kind}": numbers.get(f"{key}/{kind}")
                for kind in ("normal", "outlier", "tail", "redundant", "other")
            }
        row |= {
            f"hidden/{what}": numbers.get(f"hidden/{what}")
            for what in ("all", "redundant", "other")
        }
        if "class/other" not in numbers:  # there are no such patches to hide
            row["hidden/other"] = None
        earlier = [
            k.split("/")[0]
            for k, v in numbers.items()
            if k.startswith("layer") and k.endswith("/second_mode") and v
        ]
        row["layers_with_second_mode"] = len(earlier)
        row["most_redundant_layer"] = max(
            (
                numbers[f"{k}/redundant_outlier"]
                for k in earlier
                if f"{k}/redundant_outlier" in numbers
            ),
            default=None,
        )
        row |= {k: numbers.get(k) for k in ("objects/outlier", "second_mode_of_redundant")}
        row["scenes"] = run["steps"] * run["regime"]["batch"]
        row["class/register"] = max(
            (v for k, v in numbers.items() if k.startswith("class/reg")), default=None
        )
        row |= {c: run.get("conditions", {}).get(c) for c in (*CONDITIONS[:3], "stored")}
        row["intervals"] = run.get("intervals", {})
        row["why"] = run.get("notes", {}).get("second_mode", "the loss was no number")
        row |= {
            f"regime.{k}": str(v) for k, v in {**Regime().model_dump(), **run["regime"]}.items()
        }
        rows.append(row)
    frame = pd.DataFrame(rows)
    every = frame.to_dict("records")
    frame.insert(
        frame.columns.get_loc("why"),
        CONDITIONS[3],
        [_taken_over(frame, row, CONDITIONS[:3], "normal") for row in every],
    )
    frame.insert(
        frame.columns.get_loc("why"),
        "store_taken_over",
        [_taken_over(frame, row, ("stored",), "redundant") for row in every],
    )
    return frame.drop(columns="intervals")


def _taken_over(frame: pd.DataFrame, row: dict, before: tuple[str, ...], patch: str) -> bool | None:
    """Did registers take over? Asked of a run with registers, against the same variant and seed without. None without either.

    before: what must hold without registers and (its first) no longer hold with them. A register must surely (95 % intervals that do not
    touch) tell the label better than one patch of the kind `patch`.
    """
    other = frame[
        (frame.variant == row["variant"]) & (frame.seed == row["seed"]) & (frame.registers == 0)
    ]
    if not row["registers"] or other.empty or row["status"] == "diverged":
        return None
    partner, intervals = other.iloc[0], row["intervals"]
    held = [
        intervals[f"class/reg{r}"][0]
        for r in range(row["registers"])
        if f"class/reg{r}" in intervals
    ]
    better = f"class/{patch}" in intervals and max(held, default=0) > intervals[f"class/{patch}"][1]
    return (
        all(partner[c] is not None and bool(partner[c]) for c in before)
        and not row[before[0]]
        and better
    )


def landscape(frame: pd.DataFrame) -> Figure:
    """Every run without registers: how far its largest norm is above the median, and whether its highest norms lie in redundant patches."""
    figure, axes = style.canvas(1, 2, 3.0)
    where, before = axes[0]
    known = frame[(frame.registers == 0) & frame.ratio.notna()]
    found = known.second_mode.astype(bool)
    for ax, x, y in (
        (where, known.ratio, known["redundant/tail"] / known["redundant/all"]),
        (before, known.start_ratio, known.ratio),
    ):
        ax.scatter(x[~found], y[~found], s=14, color=style.GREY, label="one mode of norms")
        ax.scatter(x[found], y[found], s=18, color=style.CUTOFF, label="second mode")
    where.axhline(1, color=style.INK, lw=0.6)
    where.axvline(MIN_RATIO, color=style.INK, lw=0.6, ls=":")
    where.set(
        xlabel="largest patch norm / median",
        ylabel="highest 2 % of norms:\nshare in redundant patches / chance",
    )
    where.legend(loc="center right")
    ends = [1, 1.05 * known.ratio.max()]
    before.plot(ends, ends, color=style.INK, lw=0.6)
    before.set(xlabel="largest norm / median before training", ylabel="after training")
    return figure


def course(runs: Path, frame: pd.DataFrame, variants: list[str]) -> Figure:
    """Largest over median norm after the last block along training; one panel a variant, without and with registers, all seeds."""
    figure, axes = style.canvas(1, len(variants), 2.3, sharey=True)
    for ax, variant in zip(axes[0], variants):
        for row in frame[frame.variant == variant].sort_values("registers").itertuples():
            history, last = (
                pd.read_csv(runs / row.run / "history.csv"),
                f"layer{_depth(runs / row.run)}",
            )
            colour = style.COLOURS["deit3"] if not row.registers else style.COLOURS["dinov2"]
            label = (
                style.registers_label(row.registers)
                if row.seed == frame[frame.variant == variant].seed.min()
                else None
            )
            ax.plot(
                history.step, history[f"{last}/max_over_median"], color=colour, lw=1.1, label=label
            )
        ax.axhline(MIN_RATIO, color=style.INK, lw=0.6, ls=":")
        ax.set(title=variant, xlabel="step")
        ax.legend(loc="upper right")
    axes[0, 0].set_ylabel("largest patch norm / median")
    return figure


def maps(runs: Path, names: list[str], scenes: int = 4) -> Figure:
    """Scenes and their patch norms after the last block over the median, a row a run; a frame marks patches above the cut-off."""
    figure, axes = style.canvas(len(names), 2 * scenes, 0.95 * len(names) + 0.3)
    for row, name in zip(axes, names):
        found = np.load(runs / name / "maps.npz")
        numbers = json.loads((runs / name / "run.json").read_text())["numbers"]
        norms, median = found["norms"][-1], np.median(found["all_norms"])
        grid = int(norms.shape[1] ** 0.5)
        for i in range(scenes):
            picture = np.clip(found["images"][i].transpose(1, 2, 0) / 2.4 + 0.5, 0, 1)
            row[2 * i].imshow(picture, interpolation="nearest")
            shown = row[2 * i + 1].imshow(
                norms[i].reshape(grid, grid) / median, vmin=0, vmax=4, cmap="magma"
            )
            if numbers["cutoff"]:
                for cell in np.flatnonzero(norms[i] > numbers["cutoff"]):
                    y, x = divmod(cell, grid)
                    row[2 * i + 1].add_patch(
                        style.matplotlib.patches.Rectangle(
                            (x - 0.5, y - 0.5), 1, 1, fill=False, ec="white", lw=0.8
                        )
                    )
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        row[0].set_ylabel(name, fontsize=5)
    figure.colorbar(shown, ax=axes, shrink=0.7, label="norm / median")
    return figure


def _depth(run: Path) -> int:
    return json.loads((run / "run.json").read_text())["regime"]["depth"]


def write(study: Study, runs: Path, out: Path) -> pd.DataFrame:
    """reports/emergence.md, emergence/results.csv and the figures beside it. out: the folder of reports."""
    frame, folder = load(runs, study), out / "emergence"
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "results.csv", index=False, float_format="%.5g")
    paired = [v for v in study.shown if (frame.variant == v).any()][:CHARTED]
    style.save(landscape(frame), folder / "landscape")
    style.save(course(runs, frame, paired), folder / "course")
    names = [
        name
        for v in paired
        for name in frame[(frame.variant == v) & (frame.seed == frame.seed.min())]
        .sort_values("registers")
        .run
    ]
    style.save(maps(runs, names), folder / "maps")
    planned = {
        name: sum(study.variants[v].hypothesis == name for v, _, _ in study.runs())
        for name in study.hypotheses
    }
    template = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(TEMPLATE.read_text())
    facts = dict(
        study=study,
        frame=frame,
        rows=frame.to_dict("records"),
        f=_format,
        one=lambda run, key: _cell(frame, run, key),
    )
    facts["over"] = lambda variant, count, key, digits=2: style.listing(
        _format(v, digits)
        for v in frame[(frame.variant == variant) & (frame.registers == count)].sort_values("seed")[
            key
        ]
    )
    (out / "emergence.md").write_text(
        template.render(
            **facts, **_doses(study), **_totals(frame, planned), recipes=recipes(runs.parent)
        )
    )
    return frame


def recipes(results: Path) -> list[dict]:
    """The paper's recipes at scale emergence, where they were trained and their norms measured: statistics of the patches' norms."""
    found = []
    for file in sorted(results.glob("measurements/norms/*.csv")):
        rows = pd.read_csv(file).query("question == 'outliers'").set_index("metric")
        steps = json.loads((results / "checkpoints" / file.stem / "last.json").read_text())["step"]
        row = dict(
            backbone=file.stem,
            steps=steps,
            ratio=rows.value["max_over_median"],
            kurtosis=rows.value["kurtosis"],
        )
        found.append(
            {**row, "second_mode": bool(rows.value["second_mode"]), "why": rows.note["second_mode"]}
        )
    return found


def _totals(frame: pd.DataFrame, planned: dict[str, int]) -> dict:
    first = [frame[c].fillna(False).astype(bool) for c in CONDITIONS]
    whole = frame[first[0] & first[1] & first[2]]
    seeds = (
        frame[first[3]].groupby("variant").seed.nunique()
    )  # condition 4 holds only where the same seed without registers meets 1 to 3
    complete = [v for v in seeds.index if seeds[v] >= SEEDS]
    widths = sorted(frame["regime.width"].astype(int).unique())
    both_kinds = (
        (frame.registers == 0) & frame["class/redundant"].notna() & frame["class/other"].notna()
    )
    return dict(
        complete=complete,
        seeds_needed=SEEDS,
        surely=SURELY,
        salient=int((frame["objects/outlier"] > 0.5).sum()),
        second=int(first[0].sum()),
        both=int((first[0] & first[1]).sum()),
        three=len(whole),
        earlier=int(((frame.layers_with_second_mode > 0) & ~first[0]).sum()),
        stores=frame[both_kinds],
        tried={
            k: style.listing(sorted(frame[f"regime.{k}"].unique(), key=_by_size)) for k in VARIED
        },
        lean=(frame["hidden/all"] - frame["hidden/redundant"])[frame.registers > 0].max(),
        taken=int(frame.store_taken_over.fillna(False).astype(bool).sum()),
        asked=int(frame.store_taken_over.notna().sum()),
        stored=int(frame.stored[both_kinds].astype(bool).sum()),
        table=[_hypothesis(frame, name, planned) for name, planned in planned.items()],
        most_tokens=int(frame["regime.grid"].astype(int).max() ** 2),
        widths=style.listing(map(str, widths)),
        depths=int(frame["regime.depth"].astype(int).max()),
    )


def _by_size(value: str) -> tuple:
    """Numbers by their size, words after them by the alphabet."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value


def _hypothesis(frame: pd.DataFrame, name: str, planned: int) -> dict:
    """What the runs of one hypothesis show, in counts."""
    mine = frame[frame.hypothesis == name]
    second, redundant = (mine[c].fillna(False).astype(bool) for c in ("second_mode", "redundant"))
    counts = dict(
        second=second.sum(),
        both=(second & redundant).sum(),
        stored=mine.stored.fillna(False).astype(bool).sum(),
    )
    return dict(
        name=name,
        planned=planned,
        done=len(mine),
        ratio=mine.ratio.max(),
        sinks=mine.redundant_sink.notna().sum(),
        **counts,
    )


def _doses(study: Study) -> dict:
    """The variants that differ from ask-narrow in the strength of the plain patches' pattern alone, weakest first."""
    tile = {
        v: study.regime(v).tile for v in study.variants if re.fullmatch(r"ask-narrow-tile\d*", v)
    }
    names = sorted(tile, key=tile.get)
    return dict(tiles=[tile[v] for v in names], tile_runs=[f"{v}-r0-s0" for v in names])


def _cell(frame: pd.DataFrame, run: str, key: str):
    """One number of one run, None where it has not been run."""
    found = frame[frame.run == run]
    return None if found.empty else found.iloc[0][key]


def _format(value, digits: int = 2) -> str:
    """A number for a table; a dash where there is none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    return (
        ("no", "yes")[int(value)] if isinstance(value, (bool, np.bool_)) else f"{value:.{digits}f}"
    )
