"""`python -m registers.study`: the verbs of workflow/study/Snakefile's rules, and a few by hand."""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from registers import tracking
from registers.settings.errors import ConfigError
from registers.study.sweep import SWEEP, Sweep, read_sweep

if TYPE_CHECKING:
    from registers.study.verify import Comparison

ROOT = Path("results/emergence")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m registers.study", description=__doc__)
    parser.add_argument("--sweep", type=Path, default=SWEEP, help=f"default: {SWEEP.name}")
    verbs = parser.add_subparsers(required=True, metavar="verb")
    one = verbs.add_parser("run", help="train and examine runs, e.g. base-r0-s0")
    one.add_argument("names", nargs="+")
    one.add_argument("--threads", type=int, default=1)
    one.set_defaults(verb=run)
    listing = verbs.add_parser("list", help="names of all runs of the sweep")
    listing.set_defaults(verb=lambda sweep, options: print("\n".join(sweep.names())))
    anew = verbs.add_parser("examine", help="examine finished runs again, with changed probes")
    anew.add_argument("names", nargs="+")
    anew.add_argument("--signs", action="store_true", help="the quick signs alone, not the probes")
    anew.set_defaults(verb=examine)
    check = verbs.add_parser("verify", help="train runs again and compare with results.csv")
    check.add_argument("names", nargs="+")
    check.add_argument("--rows", type=Path, default=Path("reports/emergence/results.csv"))
    check.set_defaults(verb=verify)
    page = verbs.add_parser("summary", help="results.csv, figures and emergence.md from all runs")
    page.add_argument("--out", type=Path, default=Path("reports"))
    page.set_defaults(verb=summary)
    first = verbs.add_parser("headline", help="the page's first figure, and its counts")
    first.add_argument("--out", type=Path, default=Path("reports"))
    first.set_defaults(verb=headline)
    images = verbs.add_parser("pictures", help="scenes of glyphs as image files with captions")
    images.add_argument("variant", help="one whose patches are glyphs, e.g. wall")
    images.add_argument("out", type=Path)
    images.add_argument("--train", type=int, default=20000, help="scenes; default: %(default)s")
    images.add_argument("--val", type=int, default=2000, help="scenes; default: %(default)s")
    images.set_defaults(verb=pictures)
    options = parser.parse_args(arguments)
    try:
        options.verb(read_sweep(options.sweep), options)
    except (ConfigError, ValueError, OSError) as error:
        print(f"registers.study: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def parse(name: str) -> tuple[str, int, int]:
    """(variant, registers, seed) of a run's name. Raises ConfigError."""
    parts = re.fullmatch(r"(.+)-r(\d+)-s(\d+)", name)
    if not parts:
        raise ConfigError(f"run: {name} is not allowed; must be a name such as base-r0-s0")
    return parts[1], int(parts[2]), int(parts[3])


def run(sweep: Sweep, options: argparse.Namespace) -> None:
    """Train and examine runs, one after the other; their numbers go to MLflow.

    The store is MLFLOW_TRACKING_URI of the environment: a run does not depend on it.
    """
    import torch

    from registers.models.device import choose_device
    from registers.study.run import run as train

    torch.set_num_threads(options.threads)
    device = torch.device(choose_device("auto"))
    store = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    for name in options.names:
        variant, registers, seed = parse(name)
        out = ROOT / "runs" / name
        params = {"registers": registers, "seed": seed, **sweep.regime(variant).model_dump()}
        tags = dict(variant=variant, registers=registers, seed=seed)
        tags["hypothesis"] = sweep.variants[variant].hypothesis
        resume = (out / "unfinished" / "state.pt").is_file()
        with tracking.run(ROOT, "study", name, tags, params, resume=resume) as record:
            result = train(sweep, variant, registers, seed, out, device, record)
            record.artifact(out / "run.json")
            record.artifact(out / "history.csv")
        tracking.deliver(ROOT.parent, store, wait=30)
        told = {key: result.get(key) for key in ("status", "seconds", "conditions")}
        print(name, json.dumps(told), result.get("notes", {}).get("second_mode", ""), flush=True)


def examine(sweep: Sweep, options: argparse.Namespace) -> None:
    import torch

    from registers.study.run import again

    torch.set_num_threads(1)
    for name in options.names:
        again(sweep, ROOT / "runs" / name, torch.device("cpu"), probes=not options.signs)


def verify(sweep: Sweep, options: argparse.Namespace) -> None:
    import torch

    from registers.study.verify import verify as retrain

    torch.set_num_threads(1)
    for name in options.names:
        told = retrain(sweep, name, parse(name), options.rows, torch.device("cpu"))
        print(f"{name}: {sentence(told)}")
        for column, (committed, now) in told.differing.items():
            print(f"  {column}: {committed or '-'} in {options.rows.name}, {now or '-'} now")


def sentence(told: "Comparison") -> str:
    """What a comparison says, in one line."""
    same = told.compared - len(told.differing)
    judged = f"OVERTURNED: {', '.join(told.overturned)}" if told.overturned else "the same"
    words = f"conditions {judged}; {same} of {told.compared} entries of its row to the last digit"
    if told.typical:
        words += f", the others by a median of {100 * told.typical:.2g} % apart"
    if told.differing:
        words += " (digits repeat on one machine and with one code, not on another processor)"
    return words + (f"; {len(told.new)} more are newer than the row" if told.new else "")


def summary(sweep: Sweep, options: argparse.Namespace) -> None:
    from registers.study.summary import write

    frame = write(sweep, ROOT / "runs", options.out)
    print(f"{len(frame)} runs in {options.out / 'emergence' / 'results.csv'}")


def headline(sweep: Sweep, options: argparse.Namespace) -> None:
    """Draw the first figure, and print what its runs show, seed by seed."""
    from registers.study.results import load
    from registers.study.summary import draw_headline

    draw_headline(sweep, ROOT / "runs", options.out / "emergence")
    frame = load(ROOT / "runs", sweep)
    mine = frame[frame.run.isin(sweep.headline_names())]
    columns = ["run", "redundant_over_others", "second_mode", "redundant", "global_not_local"]
    print(mine[[*columns, "registers_take_over"]].to_string(index=False))


def pictures(sweep: Sweep, options: argparse.Namespace) -> None:
    from registers.study.pictures import write_pictures

    counts = {"train": options.train, "val": options.val}
    write_pictures(sweep.regime(options.variant), options.out, counts)


if __name__ == "__main__":
    sys.exit(main())
