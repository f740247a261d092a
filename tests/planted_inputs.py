"""Inputs of every figure and table with a planted truth, as the command line hands them over."""

from importlib import import_module

import pandas as pd
import planted
import planted_arrays

from registers import artifacts, reference

ARTIFACTS = artifacts.load()
METHODS = {"deit3": 40, "openclip": 12, "dinov2": 25}  # method: planted median norm
SIZES = ("tiny", "small", "base", "large", "huge", "giant")
STEPS = (0, 25, 50, 100)  # per cent of training
COUNTS = (0, 1, 2, 4, 8, 16)  # of registers
SHARE = 0.024  # of outliers, where they are planted
PRINTED = reference.read(artifacts.PAPER / "reference.yaml")
PLAIN = [f"{method}-r0-s0" for method in METHODS]
ENDS = [f"{method}-r{r}-s0" for method in METHODS for r in (0, 4)]


def module(artifact: str):
    """The module of a figure or table."""
    return import_module(ARTIFACTS[artifact].python)


def registers_of(backbone: str) -> int:
    return int(backbone.split("-r")[1].split("-")[0])


def inputs(folder, share: float) -> dict[str, dict]:
    """Arguments of every artifact, by its id.

    share: of outliers, planted in models without registers, late and large; 0 for none anywhere.
    """
    return (
        _of_maps(share) | _of_norms(folder, share) | _of_probes(folder, share) | _of_tasks(folder)
    )


def _maps(share, *backbones):
    """Arrays with peaks of attention and of norms where there are no registers, but for DINO."""
    plain_peaks = (9.0, 8 if share else 1.2)
    return {
        name: planted_arrays.maps(
            name, *(plain_peaks if "-r0" in name and "dino-" not in name else (2.0, 1.1))
        )
        for name in backbones
    }


def _of_maps(share):
    def lost(*backbones):
        return {name: planted_arrays.lost(name) for name in backbones}

    with_dino = _maps(share, *PLAIN, "dino-r0-s0")
    ends = _maps(share, *ENDS)
    return {
        "fig01": {"maps": ends},
        "fig02": {"maps": with_dino},
        "fig06": {},
        "fig09": {"maps": _maps(share, "dinov2-r16-s0")},
        "fig13": {"lost": lost(*ENDS)},
        "fig14": {"lost": lost("openclip-r0-s0", "openclip-r4-s0")},
        "fig17": {"maps": _maps(share, "mae-r0-s0")},
        "fig18": {"maps": with_dino},
        **{figure: {"maps": ends} for figure in ("fig19", "fig20", "fig21")},
    }


def _of_norms(folder, share):
    def norms(backbone, median, outliers, **shape):
        registers = registers_of(backbone)
        return planted.norms(backbone, median, outliers, registers=registers, **shape)

    ends = [
        norms(name, METHODS[name.split("-")[0]], 0 if registers_of(name) else share, layers=3)
        for name in ENDS
    ]
    steps = [
        norms(f"dinov2-r0-s0-at{p:03d}" if p < 100 else "dinov2-r0-s0", 5 + p / 5, late * share)
        for p, late in zip(STEPS, (False, False, True, True))
    ]
    sizes = [
        norms(f"dinov2-{size}-r0-s0", 10 + i, share if i > 2 else 0, layers=2)
        for i, size in enumerate(SIZES)
    ]
    weights = [
        {"backbone": f"dinov2-{size}-r0-s0", "width": 32 * i, "parameters": 50_000 * i}
        for i, size in enumerate(SIZES, start=1)
    ]
    ends = planted.frame(folder, *ends)
    positions = [
        planted.positions(f"dinov2-r0-s0{ending}", bool(share), stripes=ending == "-noaa")
        for ending in ("", "-noaa")
    ]
    average = planted.positions("dinov2-r4-s0", bool(share))
    return {
        "fig03": {"norms": ends, "maps": _maps(share, *PLAIN, "dino-r0-s0")},
        "fig04": {
            "steps": planted.frame(folder, *steps),
            "sizes": planted.frame(folder, *sizes),
            "weights": pd.DataFrame(weights),
        },
        "fig07": {"norms": ends},
        "fig10": {
            "positions": planted.frame(folder, *positions),
            "interpolation": planted.frame(folder, planted.interpolation()),
        },
        "fig15": {"norms": ends},
        "fig16": {"positions": planted.frame(folder, average)},
    }


def _of_probes(folder, share):
    def local(*rows):
        frame = planted.frame(folder, *rows)
        return planted.by_question(frame, "position", "reconstruction")

    outlier = 0.75 if share else None
    tokens = planted.frame(folder, *(planted.token_class(name, outlier) for name in PLAIN))
    with_one = planted.frame(
        folder,
        planted.token_class("dinov2-r0-s0", outlier),
        planted.token_class("dinov2-r1-s0", registers=1),
    )
    similar = 0.9 if share else None
    neighbours = [planted.neighbours(name, outlier=similar) for name in PLAIN]
    scores = (0.2, 3.0, 6.0) if share else None
    places = local(*(planted.local(name, outlier=scores) for name in PLAIN))
    focus = local(*(planted.local(f"dinov2-r{r}-s0") for r in (0, 4)))
    printed = {"reference": PRINTED}
    return {
        "fig05": {"neighbours": planted.frame(folder, *neighbours), **places, **printed},
        "table1": {"tokens": tokens, **printed},
        "table4": {"tokens": with_one, **printed},
        "table5": {**focus, **printed},
        "table6": {"tokens": tokens, **printed},
    }


def _of_tasks(folder):
    def accuracies(question, backbones, first, step):
        rows = [
            planted.accuracy(question, name, first + step * registers_of(name))
            for name in backbones
        ]
        return planted.frame(folder, rows)

    pairs = [
        planted.dense(name, 0.2 + registers_of(name) / 100, 1.5 - registers_of(name) / 10)
        for name in ENDS
    ]
    segmentation = planted.frame(folder, *(rows for rows, _ in pairs))
    depth = planted.frame(folder, *(rows for _, rows in pairs))
    dense = {"segmentation": segmentation, "depth": depth}
    discovery = [
        planted.discovery(name, 0.3 + registers_of(name) / 20, 0.5 + registers_of(name) / 1000)
        for name in ENDS
    ]
    ablation = [f"dinov2-r{r}-s0" for r in COUNTS]
    openclip = ["openclip-r0-s0", "openclip-r4-s0"]
    return {
        "fig08": {
            "maps": _maps(0, *ablation),
            "linear": accuracies("linear", ablation, 0.5, 0.01),
            **dense,
        },
        "fig11": {"interpolation": planted.frame(folder, planted.interpolation())},
        "fig12": {"cost": planted.frame(folder, planted.cost())},
        "table2": {
            "linear": accuracies("linear", ENDS, 0.5, 0.01),
            "zeroshot": accuracies("zeroshot", openclip, 0.4, -0.001),
            **dense,
            "reference": PRINTED,
        },
        "table3": {"discovery": planted.frame(folder, *discovery), "reference": PRINTED},
    }


def grid(rows, **where):
    """The values of one map of a table, (rows, columns)."""
    for column, value in where.items():
        rows = rows[rows[column] == value]
    side = rows["row"].max() + 1
    assert len(rows) == side**2, "one value per patch"
    return rows.sort_values(["row", "column"])["value"].to_numpy().reshape(side, side)
