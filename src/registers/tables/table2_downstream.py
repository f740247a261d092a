"""Table 2: downstream performance without and with registers (paper, section 3.2).

Linear evaluation of frozen features (a), zero-shot classification (b).
"""

from dataclasses import dataclass

import pandas as pd

from registers.figures import selection
from registers.figures.paint import style
from registers.tables import changes, typeset


@dataclass(frozen=True)
class DownstreamTask:
    """One task of the table.

    part: of the table, a or b. metric: of our rows. scale: 100 for per cent.
    column: the paper's, whose data are ImageNet, ADE20k and NYUd.
    """

    part: str
    metric: str
    scale: int
    column: str
    higher_is_better: bool = True

    @property
    def digits(self) -> int:
        """After the point."""
        return 1 if self.scale == 100 else 3

    def written(self, change: float) -> str:
        """A change in words."""
        return changes.points(change) if self.scale == 100 else style.change(change, 3)


# The paper does not tell which of the two means of the depth's error it prints.
TASKS = {
    "linear top-1": DownstreamTask("a", "top1", 100, "ImageNet top-1"),
    "segmentation mIoU": DownstreamTask("a", "miou", 100, "ADE20k mIoU"),
    "depth rmse": DownstreamTask("a", "rmse", 1, "NYUd rmse", False),
    "depth rmse, mean of images": DownstreamTask("a", "rmse_mean_image", 1, "NYUd rmse", False),
    "zero-shot top-1": DownstreamTask("b", "top1", 100, "ImageNet top-1"),
}
ON_DEMAND = ("depth rmse, mean of images",)


def table(
    linear: pd.DataFrame,
    zeroshot: pd.DataFrame,
    reference: pd.DataFrame,
    segmentation: pd.DataFrame | None = None,
    depth: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """A row per part, task and model: ours with its 95 % interval, n, chance, data; the paper's.

    Top-1 and mIoU are in per cent, rmse in the data's unit (metres for NYUd). Several seeds: mean,
    standard deviation (std), and the span of their intervals. note: why a cell is empty.
    """
    cells = reference[reference["artifact"] == "table2"]
    printed = cells.set_index(["part", "row", "column"])["value"]
    frames = dict(zip(TASKS, (linear, segmentation, depth, depth, zeroshot)))
    rows = []
    for name, frame in frames.items():
        if frame is None:
            continue
        task = TASKS[name]
        frame = frame[frame["metric"] == task.metric]
        counts = sorted({int(count) for count in frame["registers"]})
        for method, of_method in selection.by_method(frame).items():
            for registers in counts:
                part = of_method[of_method["registers"] == registers]
                model = changes.label(method, registers, part)
                about = {"part": task.part, "task": name, "model": model, "registers": registers}
                paper = printed.get((task.part, model, task.column))
                numbers = {"seeds": part["seed"].nunique(), **_numbers(part, task.scale)}
                rows.append(about | numbers | {"paper": paper, "note": _reason(part)})
    return pd.DataFrame(rows)


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per model, a column per task, with our data and the paper's in its head."""
    rows = rows[~rows["task"].isin(ON_DEMAND)]
    heads = {task: _head(task, part) for task, part in rows.groupby("task")}

    def text(row: pd.Series) -> str:
        task = next(name for name, head in heads.items() if head == row["task"])
        return typeset.cell(row, TASKS[task].digits)

    return typeset.grid(rows.assign(task=rows["task"].map(heads)), "model", "task", text)


def _head(task: str, rows: pd.DataFrame) -> str:
    """linear top-1 (%), and in a line below it "world; paper: ImageNet"."""
    unit = " (%)" if TASKS[task].scale == 100 else ""
    ours = style.listing(dict.fromkeys(name for name in rows["data"].dropna() if name))
    return f"{task}{unit}\n{ours}; paper: {TASKS[task].column.split()[0]}"


def caption(
    linear: pd.DataFrame,
    zeroshot: pd.DataFrame,
    reference: pd.DataFrame,
    segmentation: pd.DataFrame | None = None,
    depth: pd.DataFrame | None = None,
) -> str:
    rows = table(linear, zeroshot, reference, segmentation, depth)
    frames = dict(zip(TASKS, (linear, segmentation, depth, depth, zeroshot)))
    findings = []
    for name, task in TASKS.items():
        if frames[name] is None or name in ON_DEMAND:
            continue
        of_task = rows[rows["task"] == name].dropna(subset=["ours"])
        seeds = changes.by_seed(frames[name][frames[name]["metric"] == task.metric])
        texts = changes.changes(of_task, task.written, seeds)
        if texts:
            lower = "" if task.higher_is_better else " (lower is better)"
            findings.append((f"{name}{lower} changes by", texts))
    if not findings:
        return changes.ONE_COUNT
    return f"With registers {style.remarked(findings)}."


def _numbers(rows: pd.DataFrame, scale: int) -> dict[str, float | int | str | None]:
    """ours, std, low, high, n, chance and data of one cell."""
    known = rows.dropna(subset=["value"])
    if known.empty:
        return dict.fromkeys(("ours", "std", "low", "high", "n", "chance")) | {"data": ""}
    digits = 2 if scale == 100 else 3
    values = {
        "ours": known["value"].mean(),
        "std": known.groupby("seed")["value"].mean().std(),
        "low": known["low"].min(),
        "high": known["high"].max(),
        "chance": known["chance"].mean(),
    }
    numbers = {name: round(scale * value, digits) for name, value in values.items()}
    chance = numbers.pop("chance")
    data = ", ".join(dict.fromkeys(known["data"]))
    return numbers | {"n": int(known["n"].min()), "chance": chance, "data": data}


def _reason(rows: pd.DataFrame) -> str:
    """Why there is no number; "" where there is one."""
    if rows.empty:
        return "no such model in this run"
    return "" if rows["value"].notna().any() else rows["note"].iloc[0]
