"""The paper's own quantities: which of a question's numbers stand for it, under which names.

MLflow shows them (tracking.py) and `dvc metrics` compares them (the report's metrics/). The other
rows of a question (histograms, sweeps, layers) are for figures, and too many to compare by name.
"""

import re
from collections.abc import Iterable, Mapping

from registers.measurements import Measurement
from registers.settings.backbone_id import BackboneId

# By question, the paper's number first. They may carry a layer or a coordinate.
HEADLINES = {
    "norms": ("max_over_median", "share", "cutoff", "second_mode"),  # Figs. 3, 4, 7
    "by_position": ("border_share", "inner_share", "border_tail", "inner_tail"),  # Fig. 10
    "neighbours": ("mean",),  # Fig. 5a
    "position": ("top1", "distance"),  # Fig. 5b
    "reconstruction": ("l2",),  # Fig. 5b
    "token_class": ("top1_main", "top1_mean"),  # Table 1
    "linear": ("top1",),  # Table 2a, Fig. 8
    "zeroshot": ("top1",),  # Table 2b
    "segmentation": ("miou",),  # Table 2a
    "depth": ("rmse",),  # Table 2a
    "discovery": ("corloc", "corloc_tuned"),  # Table 3
    "maps": ("attention_over_uniform", "norm_peak", "map_correlation"),  # Figs. 1, 2, 9
    "cost": ("params_increase", "macs_increase"),  # Fig. 12
}
COMPARED = ("norms", "linear", "zeroshot", "segmentation", "depth", "discovery")  # by `dvc metrics`


def metrics(rows: Iterable[Measurement]) -> dict[tuple[str, int], float]:
    """By (name, step), the rows of one question that stand for it.

    These are its headlines at the last layer, and what has neither a layer nor a coordinate. A name
    is "segmentation/miou", with the words that tell such rows apart behind it, "segmentation/iou
    disc". A count of registers is the step; it is 0 elsewhere.
    """
    chosen = [row for row in rows if row.value is not None and _is_chosen(row)]
    last: dict[str, int] = {}
    by_metric: dict[str, list[Measurement]] = {}
    for row in chosen:
        last[row.metric] = max(last.get(row.metric, 0), row.layer or 0)
        by_metric.setdefault(row.metric, []).append(row)
    return {
        (_name(row, by_metric[row.metric]), _step(row)): float(row.value)
        for row in chosen
        if (row.layer or 0) == last[row.metric]
    }


def is_headline(name: str) -> bool:
    """Whether a metric's name, "discovery/corloc VOC 2007", is that of a paper's own quantity."""
    question, _, rest = name.partition("/")
    return rest.partition(" ")[0] in HEADLINES.get(question, ())


def clean(name: str) -> str:
    """A name with the signs that MLflow allows: "high-norm tail (2 %)", "high-norm tail 2 percent".

    Allowed are letters, digits, blanks and _ - . / (`mlflow.utils.validation`).
    """
    return " ".join(re.sub(r"[^\w\-./ ]", " ", name.replace("%", " percent")).split())


def by_method(
    measured: Iterable[Mapping], registers: tuple[int, ...]
) -> dict[str, dict[str, dict[str, float]]]:
    """What `dvc metrics` compares: by question, method and "r4" ("r4-tt"), a mean over seeds.

    The mean is of the question's first headline. measured: rows with the columns of
    `measurements.read`. registers: the counts to show. Backbones are of the method's own size, at
    the end of training. Several data sets stay apart, "r4 on voc2007".
    """
    values: dict[tuple[str, str, int, bool, str], list[float]] = {}
    for row in measured:
        question = row["question"]
        first = HEADLINES.get(question, ("",))[0]
        is_number = row["value"] is not None and row["value"] == row["value"]
        if row["metric"] != first or not is_number or not row["backbone"]:
            continue
        id = BackboneId.parse(row["backbone"])  # rows name the default size, ids leave it out
        own_size = not id.size or row.get("own_size", False)  # published ones always say it
        usual = id.percent == 100 and own_size and not id.noaa
        if usual and id.registers in registers:
            key = question, row["method"], int(row["registers"]), id.test_time, row["data"]
            values.setdefault(key, []).append(float(row["value"]))
    data: dict[str, set[str]] = {}
    for question, *_, name in values:
        data.setdefault(question, set()).add(name)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for (question, method, count, test_time, name), several in sorted(values.items()):
        label = f"r{count}-tt" if test_time else f"r{count}"
        label += "" if len(data[question]) == 1 else f" on {name}"
        mean = round(sum(several) / len(several), 6)
        table.setdefault(question, {}).setdefault(method, {})[label] = mean
    return table


def _is_chosen(row: Measurement) -> bool:
    listed = row.metric in HEADLINES.get(row.question, ())
    return listed or (row.at is None and row.layer is None)


def _name(row: Measurement, alike: list[Measurement]) -> str:
    """The shortest name that tells a row from the others of its metric."""
    words = [f"{row.question}/{row.metric}"]
    for column in ("token", "variant", "data"):
        value = getattr(row, column)
        if value and len({getattr(other, column) for other in alike}) > 1:
            words.append(value.replace("/", "-"))
    return clean(" ".join(words))


def _step(row: Measurement) -> int:
    return int(row.at) if row.coordinate == "registers" and row.at is not None else 0
