"""Measurements with a planted truth, in the shape that the stages write: made of numbers drawn here, read back from real CSV files."""

import numpy as np
import pandas as pd

from registers import measurements
from registers.measurements import Measurement
from registers.settings.backbone_id import BackboneId
from registers.vocabulary import BINS_PER_DECADE, TAIL


def norms(
    backbone,
    median=20.0,
    outliers=0.0,
    ratio=8.0,
    layers=4,
    registers=0,
    images=50,
    run="smoke/norms/x",
    seed=0,
):
    """Rows of question "norms" for one backbone: log-normal norms, of which a share `outliers` sits at `ratio` times the median."""
    rng = np.random.default_rng(seed)
    rows = []
    tokens = {"patch": images * 64, "cls": images} | {f"reg{r}": images for r in range(registers)}
    for layer in range(1, layers + 1):
        for kind, n in tokens.items():
            if kind != "patch" and layer < layers:
                continue
            values = median * layer / layers * np.exp(0.15 * rng.standard_normal(n))
            if kind == "patch" and layer > layers / 2:
                high = round(outliers * n)
                values[:high] = median * ratio * np.exp(0.05 * rng.standard_normal(high))
            elif kind.startswith("reg"):
                values *= 3 + int(kind[3:])
            common = dict(
                question="norms",
                backbone=backbone,
                data="planted val",
                token=kind,
                layer=layer,
                n=n,
                run=run,
            )
            bins, counts = np.unique(
                np.floor(np.log10(values) * BINS_PER_DECADE), return_counts=True
            )
            for b, count in zip(bins, counts):
                middle = float(10 ** ((b + 0.5) / BINS_PER_DECADE))
                where = dict(coordinate="norm", at=middle)
                rows.append(Measurement(metric="count", value=int(count), **where, **common))
            for q in (0, 5, 25, 50, 75, 95, 99, 100):
                rows.append(
                    Measurement(metric=f"q{q}", value=float(np.percentile(values, q)), **common)
                )
            if kind == "patch":
                largest = float(values.max() / np.median(values))
    common = dict(
        question="norms",
        backbone=backbone,
        data="planted val",
        token="patch",
        layer=layers,
        n=images,
        run=run,
    )
    rows.append(
        Measurement(metric="second_mode", value=int(outliers > 0), note="planted", **common)
    )
    if outliers:
        rows.append(Measurement(metric="cutoff", value=median * ratio / 2, note="valley", **common))
        rows.append(
            Measurement(
                metric="share", value=outliers, low=outliers * 0.8, high=outliers * 1.2, **common
            )
        )
    else:
        rows += [
            Measurement(metric=m, value=None, note="no second mode: planted", **common)
            for m in ("cutoff", "share")
        ]
    rows.append(
        Measurement(
            metric="max_over_median", value=largest, low=largest * 0.9, high=largest, **common
        )
    )
    return rows


def accuracy(question, backbone, value, n=1000, half=0.02, chance=0.1, metric="top1"):
    where = dict(
        data="planted val", token="cls", n=n, chance=chance, run=f"smoke/{question}/{backbone}"
    )
    return Measurement(
        question, metric, backbone, value, low=value - half, high=value + half, **where
    )


def cost(models=("ViT-L/14@224", "ViT-B/16@224", "base/4@32"), slope=0.004):
    """A model's FLOPs grow by `slope`, its parameters by a thousandth of that, a register."""
    rows = []
    for i, model in enumerate(models):
        for r in (0, 1, 2, 4, 8, 16):
            for metric, plain, each in (
                ("macs", 1e9, slope * (1 + i)),
                ("params", 1e6, slope * (1 + i) / 1000),
            ):
                common = dict(question="cost", backbone="", data=model, run="smoke/cost/exact")
                common |= dict(coordinate="registers", at=r)
                rows += [Measurement(metric=metric, value=plain * (1 + each * r), **common)]
                rows += [Measurement(metric=f"{metric}_increase", value=each * r, **common)]
    return rows


def interpolation(source=16):
    rows = []
    for mode, depth in (("offset", 0.9), ("size", 1.0), ("size+aa", 0.1)):
        profile = 0.4 + 0.4 * depth * np.cos(np.pi * np.arange(source))
        values = enumerate(np.outer(profile, profile).ravel())
        rows += [
            Measurement(
                "interpolation",
                "gradient",
                "",
                float(v),
                variant=mode,
                coordinate="position",
                at=i,
                run="smoke/interpolation/exact",
            )
            for i, v in values
        ]
    return rows


NO_MODE = "no second mode: planted"


def token_class(
    backbone,
    outlier=None,
    normal=0.2,
    cls=0.8,
    registers=0,
    register=0.7,
    tail=0.4,
    sets=("class", "fine", "colour"),
    half=0.05,
):
    """Rows of question "token_class": the planted accuracy at the first label set, a point more at each further."""
    kinds = {
        "cls": cls,
        **{f"reg{r}": register for r in range(registers)},
        "normal": normal,
        "outlier": outlier,
        TAIL: tail,
    }
    rows = []
    for token, value in kinds.items():
        common = dict(
            question="token_class",
            backbone=backbone,
            token=token,
            run=f"smoke/token_class/{backbone}",
        )
        if value is None:
            rows += [
                Measurement(metric="top1", value=None, data=d, note=NO_MODE, **common) for d in sets
            ]
            rows.append(Measurement(metric="top1_mean", value=None, note=NO_MODE, **common))
            continue
        values = [value + i / 100 for i in range(len(sets))]
        for data, v in zip(sets, values):
            rows.append(
                Measurement(
                    metric="top1",
                    value=v,
                    low=v - half,
                    high=v + half,
                    n=64,
                    chance=0.1,
                    data=data,
                    **common,
                )
            )
            if token in ("normal", "outlier", TAIL):
                rows.append(Measurement(metric="top1_std", value=0.013, n=64, data=data, **common))
        mean = float(np.mean(values))
        rows.append(
            Measurement(
                metric="top1_mean",
                value=mean,
                low=mean - half / 2,
                high=mean + half / 2,
                n=64,
                chance=0.1,
                **common,
            )
        )
    return rows


def _by_kind(question, metric, backbone, kinds, half, chance):
    common = dict(
        question=question, metric=metric, backbone=backbone, run=f"smoke/{question}/{backbone}"
    )
    for token, value in kinds.items():
        if value is None:
            yield Measurement(value=None, token=token, note=NO_MODE, **common)
        else:
            yield Measurement(
                value=value,
                low=value - half,
                high=value + half,
                n=500,
                chance=chance,
                token=token,
                **common,
            )


def local(backbone, normal=(0.6, 0.5, 4.0), outlier=None, tail=(0.5, 0.9, 4.5), half=0.02):
    """Rows of questions "position" and "reconstruction": (top1, distance, l2) of each kind; outlier None: no such."""
    rows = []
    for i, (question, metric, chance) in enumerate(
        (("position", "top1", 1 / 64), ("position", "distance", 4.1), ("reconstruction", "l2", 6.9))
    ):
        kinds = {"normal": normal[i], "outlier": outlier and outlier[i], TAIL: tail[i]}
        rows += _by_kind(question, metric, backbone, kinds, half, chance)
    return rows


def neighbours(backbone, normal=0.65, outlier=None, tail=0.75, half=0.02):
    """Rows of question "neighbours": means, and densities of one bin that holds the mean."""
    kinds = {"normal": normal, "outlier": outlier, TAIL: tail}
    rows = list(_by_kind("neighbours", "mean", backbone, kinds, half, 0.1))
    centres = np.round(np.arange(-0.975, 1, 0.05), 6)
    for token, value in kinds.items():
        for x in centres if value is not None else ():
            height = 20.0 * (x == centres[np.abs(centres - value).argmin()])
            where = dict(token=token, coordinate="cosine", at=float(x))
            rows.append(
                Measurement("neighbours", "density", backbone, float(height), n=500, **where)
            )
    return rows


def by_question(rows: pd.DataFrame, *questions: str) -> dict[str, pd.DataFrame]:
    """The rows of each question, as arguments of a figure or table."""
    return {question: rows[rows["question"] == question] for question in questions}


def frame(tmp_path, *groups, size="base") -> pd.DataFrame:
    """The rows as the command line hands them to a figure: written, read, and the default size named."""
    files = []
    for i, rows in enumerate(groups):
        path = tmp_path / f"{i}.csv"
        measurements.write(path, [rows] if isinstance(rows, Measurement) else rows)
        files.append(path)
    found = measurements.read(files)
    found["size"] = [s or size if b else "" for s, b in zip(found["size"], found["backbone"])]
    return found


def maps(backbone, peak=1.0, norm_peak=1.0, images=4, side=8, heads=4, component=2.0, seed=0):
    """Arrays of registers.evals.maps for one backbone: flat attention and norms, but for patch (1, 2), which has `peak` times the median.

    Head h peaks at (1 + h) times `peak`, register r's attention at patch (2, r) (all 2), the centre patch's at itself. Component 1 is a
    step of +-1, with `component` at patch (1, 2).
    """
    registers = BackboneId.parse(backbone).registers
    queries = ["cls", *(f"reg{r}" for r in range(registers)), "patch"]
    flat = np.full((images, side, side), 1 / side**2, np.float32)
    attention = np.repeat(flat[:, None], len(queries), axis=1)
    attention[:, 0, 1, 2] *= peak
    for r in range(registers):
        attention[:, 1 + r, 2, r % side] *= 2
    attention[:, -1, side // 2, side // 2] *= 50
    by_head = np.repeat(flat[:, None], heads, axis=1)
    by_head[:, :, 1, 2] *= peak * (1 + np.arange(heads))
    norms = flat * 640
    norms[:, 1, 2] *= norm_peak
    components = np.ones((images, 3, side, side), np.float32)
    components[:, :, side // 2 :] = -1
    components[:, :, 1, 2] = component
    rgb = np.random.default_rng(seed).integers(
        0, 255, (images, 4 * side, 4 * side, 3), dtype=np.uint8
    )
    names = np.array([f"val/{i}" for i in range(images)])
    found = dict(
        rgb=rgb,
        names=names,
        queries=np.array(queries),
        attention=attention,
        heads=by_head,
        norms=norms,
        components=components,
    )
    return found | {
        "prefix_norms": np.ones((images, 1 + registers), np.float32),
        "backbone": np.array(backbone),
    }


def lost(backbone, expansion=1.0, images=2, side=8, across=None, data="planted val"):
    """Arrays of evals.discovery for one backbone: the object is a quarter of the image, found whole; the facet is keys for DINOv2, else
    values. The expansion of keys is `expansion` in a chequered pattern, of queries and values a smooth ramp. Photos of side x across
    patches of 4 pixels, the last ones half beyond the photo. DINO-seg's box is the whole photo, the tuned one the true one."""
    across = across or side
    inside = np.zeros((side, across), bool)
    inside[: side // 2, : across // 2] = True
    ramp = np.add.outer(np.arange(side), np.arange(across)).astype(np.float32)
    chequered = np.where(ramp % 2, expansion, -expansion).astype(np.float32)
    arrays = {
        "names": np.array([f"val/{i}" for i in range(images)]),
        "backbone": np.array(backbone),
        "facets": np.array(["k", "q", "v"]),
    }
    arrays |= {
        "facet": np.array("k" if backbone.startswith("dinov2") else "v"),
        "patch": np.array(4),
        "data": np.array(data),
    }
    truth = np.array([0, 0, 2 * across, 2 * side], np.float32)
    for i in range(images):
        arrays |= {
            f"{i}_rgb": np.full((4 * side - 2, 4 * across - 2, 3), 128, np.uint8),
            f"{i}_truths": truth[None],
            f"{i}_tuned_box": truth,
            f"{i}_dino_seg_box": np.array([0, 0, 4 * across - 2, 4 * side - 2]),
        }
        for facet in "kqv":
            maps = dict(
                score=-ramp,
                similarity=ramp,
                expansion=chequered if facet == "k" else ramp,
                component=inside,
                mask=inside,
            )
            arrays |= {f"{i}_{facet}_{step}": values for step, values in maps.items()}
            arrays |= {f"{i}_{facet}_seed": np.array([0, 0]), f"{i}_{facet}_box": truth.astype(int)}
    return arrays


def discovery(backbone, corloc, tuned, n=200, half=0.03, data="planted val"):
    """Rows of question "discovery"."""
    common = dict(
        question="discovery",
        backbone=backbone,
        data=data,
        n=n,
        chance=0.1,
        run=f"smoke/discovery/{backbone}",
    )
    values = {
        "corloc": corloc,
        "corloc_tuned": tuned,
        "corloc_dino_seg": 0.2,
        "corloc_largest_box": 0.15,
        "corloc_choice": 0.9,
    }
    return [
        Measurement(
            metric=m,
            value=v,
            low=v - half,
            high=v + half,
            variant="k",
            note=f"planted {m}",
            **common,
        )
        for m, v in values.items()
    ]


def predictions(backbone, images=2, shape=(12, 20), wrong=0, data="planted val"):
    """Arrays of evals.dense.picture_arrays, for segmentation and for depth: three classes in stripes, the first column not counted or
    unknown; predicted as they are but for `wrong` columns at the right end, where the class is another and the depth 2 too far."""
    stripes = np.broadcast_to(np.arange(shape[1]) % 3, shape)
    arrays = {
        "names": np.array([f"val/{i}" for i in range(images)]),
        "backbone": np.array(backbone),
        "data": np.array(data),
    }
    seg, deep = dict(arrays, classes=np.array(["red", "green", "blue"])), dict(arrays)
    for i in range(images):
        for found, truth, unknown, other in (
            (seg, stripes.astype(np.uint8), 255, 1),
            (deep, 1 + stripes.astype(np.float32), 0, 2),
        ):
            truth, predicted = truth.copy(), truth.copy()
            truth[:, 0] = unknown
            if wrong:
                predicted[:, -wrong:] = (predicted[:, -wrong:] + other) % (
                    3 if found is seg else 100
                )
            found |= {
                f"{i}_rgb": np.full((*shape, 3), 90, np.uint8),
                f"{i}_truth": truth,
                f"{i}_predicted": predicted,
            }
    return seg, deep


def dense(backbone, miou, rmse, n=100):
    """Rows of question "segmentation" and of question "depth"."""
    common = dict(backbone=backbone, data="planted val", n=n)
    seg = Measurement(
        "segmentation",
        "miou",
        value=miou,
        low=miou - 0.01,
        high=miou + 0.01,
        chance=0.07,
        run=f"smoke/segmentation/{backbone}",
        **common,
    )
    deep = [
        Measurement(
            "depth",
            m,
            value=v,
            low=v - 0.01,
            high=v + 0.01,
            chance=2.0,
            run=f"smoke/depth/{backbone}",
            **common,
        )
        for m, v in (("rmse", rmse), ("rmse_mean_image", rmse - 0.1))
    ]
    return [seg], deep


def positions(backbone, outliers=True, side=8, images=100, stripes=False):
    """Rows of question "by_position": border positions at 10 %, others at 2 % (with stripes: even columns 20 %, odd ones none); attention."""
    registers = BackboneId.parse(backbone).registers
    share = np.full((side, side), 0.02)
    share[[0, -1]] = share[:, [0, -1]] = 0.1
    if stripes:
        share[:, ::2], share[:, 1::2] = 0.2, 0.0
    common = dict(
        question="by_position",
        backbone=backbone,
        data="planted val",
        layer=4,
        n=images,
        run=f"smoke/by_position/{backbone}",
    )
    rows = [
        Measurement(
            metric="second_mode", value=int(outliers), token="patch", note="planted", **common
        )
    ]
    rows += [
        Measurement(
            metric="cutoff",
            value=150.0 if outliers else None,
            token="patch",
            note="planted",
            **common,
        )
    ]
    rows += [Measurement(metric="tail", value=90.0, token="patch", note="planted", **common)]
    for metric in ["share_tail"] + ["share_above"] * outliers:
        rows += [
            Measurement(
                metric=metric, value=float(v), coordinate="patch", at=i, token="patch", **common
            )
            for i, v in enumerate(share.ravel())
        ]
    for token in ["cls", *(f"reg{r}" for r in range(registers)), "patch"]:
        even = np.full(side**2, 0.01)
        even[side**2 // 2 + side // 2] = 1.0 if token == "patch" else 0.01
        rows += [
            Measurement(
                metric="attention", value=float(v), coordinate="patch", at=i, token=token, **common
            )
            for i, v in enumerate(even)
        ]
    return rows
