"""`python -m registers.study`: the runs of the emergence study and their summary, one verb per rule of workflow/rules/study.smk."""

import argparse
import json
import re
import sys
from pathlib import Path

from registers import tracking
from registers.settings.errors import ConfigError
from registers.settings.load import read_yaml
from registers.study.regime import Study, study

ROOT = Path("results/emergence")
SCALE = Path(__file__).resolve().parents[3] / "workflow" / "scales" / "emergence.yaml"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m registers.study", description=__doc__)
    parser.add_argument(
        "--scale", default=SCALE, help="the sweep (default: workflow/scales/emergence.yaml)"
    )
    parser.add_argument("--mlflow-uri", default="sqlite:///mlflow.db")
    verbs = parser.add_subparsers(required=True, metavar="verb")
    one = verbs.add_parser("run", help="train and examine one run, e.g. base-r0-s0")
    one.add_argument("name")
    one.add_argument("--threads", type=int, default=1)
    one.set_defaults(verb=run)
    listed = verbs.add_parser("list", help="names of all runs of the sweep")
    listed.set_defaults(
        verb=lambda found, options: print("\n".join(f"{v}-r{r}-s{s}" for v, r, s in found.runs()))
    )
    anew = verbs.add_parser(
        "examine", help="examine finished runs once more, after a change of the probes"
    )
    anew.add_argument("names", nargs="+")
    anew.set_defaults(verb=examine)
    told = verbs.add_parser("summary", help="results.csv, figures and emergence.md from all runs")
    told.add_argument("--out", type=Path, default=Path("reports"))
    told.set_defaults(verb=summary)
    options = parser.parse_args(arguments)
    try:
        options.verb(study(read_yaml(Path(options.scale))["study"]), options)
    except (ConfigError, ValueError, OSError) as error:
        print(f"registers.study: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def parse(name: str) -> tuple[str, int, int]:
    """(variant, registers, seed) of a run's name. Raises ConfigError."""
    found = re.fullmatch(r"(.+)-r(\d+)-s(\d+)", name)
    if not found:
        raise ConfigError(f'run = "{name}": allowed are names like base-r0-s0')
    return found[1], int(found[2]), int(found[3])


def run(found: Study, options: argparse.Namespace) -> None:
    """Train and examine one run; its numbers go to MLflow."""
    import torch

    from registers.models.device import choose_device
    from registers.study.run import run as train

    variant, registers, seed = parse(options.name)
    torch.set_num_threads(options.threads)
    regime, out = found.regime(variant), ROOT / "runs" / options.name
    tags = dict(
        variant=variant,
        registers=registers,
        seed=seed,
        hypothesis=found.variants[variant].hypothesis,
    )
    resume = (out / "unfinished" / "state.pt").is_file()
    params = {"registers": registers, "seed": seed, **regime.__dict__}
    with tracking.run(ROOT, "study", options.name, tags, params, resume=resume) as record:
        result = train(
            found, variant, registers, seed, out, torch.device(choose_device("auto")), record
        )
        record.artifact(out / "run.json")
        record.artifact(out / "history.csv")
    tracking.deliver(ROOT.parent, options.mlflow_uri, wait=30)
    print(
        json.dumps({k: result.get(k) for k in ("status", "seconds", "conditions")}),
        result.get("notes", {}).get("second_mode", ""),
    )


def examine(found: Study, options: argparse.Namespace) -> None:
    import torch

    from registers.study.run import again

    torch.set_num_threads(1)
    for name in options.names:
        again(found, ROOT / "runs" / name, torch.device("cpu"))


def summary(found: Study, options: argparse.Namespace) -> None:
    from registers.study.summary import write

    frame = write(found, ROOT / "runs", options.out)
    print(f"{len(frame)} runs in {options.out / 'emergence' / 'results.csv'}")


if __name__ == "__main__":
    sys.exit(main())
