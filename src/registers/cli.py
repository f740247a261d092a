"""The thin shell: one verb per rule. `registers --help` lists them; Snakemake calls them, and so may a person.

Files are opened, devices chosen and runs recorded here; the science is in the modules, which are imported late so that a
verb pays only for what it uses.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from registers import artifacts, tracking
from registers.measurements import Measurement, code_version, write
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings
from registers.settings.paths import check_paths
from registers.settings.run import Settings

STARTED = time.time()  # of this job, for its run's duration
METHODS = {
    "deit3": "Deit3",
    "openclip": "OpenClip",
    "dinov2": "Dinov2",
    "dino": "Dino",
    "mae": "Mae",
}


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(_params(options.params))
        if getattr(options, "threads", None):
            import torch

            torch.set_num_threads(options.threads)
        options.verb(settings, options)
    except BrokenPipeError:  # whoever read our output has left
        return 1
    except (ConfigError, ValueError, RuntimeError, OSError) as error:
        if os.environ.get("REGISTERS_TRACEBACK"):
            raise
        print(f"registers: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "registers: stopped; a training goes on from its last saved step when it is started again",
            file=sys.stderr,
        )
        return 130
    return 0


def _params(given: str | None) -> dict | str:
    """Settings of this call: --params FILE, else what Snakemake passes on, else params.yaml here."""
    if given:
        return given
    passed = os.environ.get("REGISTERS_PARAMS")
    return json.loads(passed) if passed else "params.yaml"


# --- verbs --------------------------------------------------------------------------------------------------------------


def check(settings: Settings, options: argparse.Namespace) -> None:
    """Check the settings and say in short what they ask for."""
    from registers.readers.catalogue import check_words

    check_paths(settings)
    check_words(settings)
    trained = artifacts.trained(settings)
    print(
        f"scale {settings.scale}: {len(trained)} backbones to train, {len(artifacts.available(settings))} figures and tables"
    )
    for backbone in trained:
        recipe = settings.recipes[backbone.method]
        print(
            f"  {backbone!s:24} {recipe.steps} steps of {recipe.batch}, size {backbone.size or recipe.size}"
        )


def world(settings: Settings, options: argparse.Namespace) -> None:
    """Draw one split of the embedded world."""
    from registers.readers.catalogue import draw_world

    draw_world(settings, options.split)


def data(settings: Settings, options: argparse.Namespace) -> None:
    """List the data set that plays a role (labels, text, images, eval) and write its manifest."""
    from registers.readers import catalogue

    check_paths(settings)
    catalogue.prepare(settings, options.role)


def download(settings: Settings, options: argparse.Namespace) -> None:
    """Download a public data set, checked and unpacked below data.root."""
    from registers.readers.download import fetch

    fetch(options.name, Path(settings.data_root).expanduser())


def train(settings: Settings, options: argparse.Namespace) -> None:
    """Train one backbone; a killed run goes on where it was."""
    import torch

    from registers.data.transforms import evaluation
    from registers.readers.catalogue import open_dataset
    from registers.train import train as run

    backbone = BackboneId.parse(options.backbone)
    if backbone.method not in settings.recipes:
        raise ConfigError(f"recipes.{backbone.method} is missing in scale {settings.scale}")
    recipe = getattr(
        import_module(f"registers.methods.{backbone.method}"), METHODS[backbone.method]
    )
    samples = open_dataset(settings, recipe.role, "train")
    torch.manual_seed(backbone.seed)
    method = recipe(settings, backbone, samples)
    look = evaluation(settings.image_size, normalization=method.normalization)
    probe = torch.stack(
        [look(samples[i].image) for i in range(min(16, len(samples)))]
    )  # for the norms in the log
    out = settings.results / "checkpoints" / str(backbone)
    last = run(method, samples, settings, out, probe)
    print(json.dumps({k: round(v, 5) for k, v in last.items()}))


def tokens(settings: Settings, options: argparse.Namespace) -> None:
    """One forward pass over the evaluation images: the token bank of one backbone."""
    from registers.readers.catalogue import open_dataset
    from registers.tokens import write_bank

    backbone, facts, device = _load(settings, options.backbone)
    mean, std = facts["normalization"]
    write_bank(
        settings.results / "banks" / options.backbone,
        backbone,
        open_dataset(settings, "eval", "val"),
        data=data_label(settings),
        images=settings.bank.images,
        sample=settings.bank.sample,
        batch=settings.bank.batch,
        size=settings.image_size,
        mean=mean,
        std=std,
        device=device,
    )


def maps(settings: Settings, options: argparse.Namespace) -> None:
    """Small arrays for the images shown: attention, norms and components of one backbone, at higher than training resolution."""
    from registers.evals.maps import image_maps, save_maps
    from registers.readers.catalogue import open_dataset

    backbone, facts, device = _load(settings, options.backbone)
    shown = open_dataset(settings, "eval", "val")
    samples = [shown[i] for i in range(min(settings.maps.images, len(shown)))]
    mean, std = facts["normalization"]
    arrays = image_maps(
        backbone.to(device),
        [s.image for s in samples],
        mean,
        std,
        settings.maps.size,
        names=[s.name for s in samples],
    )
    save_maps(settings.results / "maps" / f"{options.backbone}.npz", arrays)


def norms(settings: Settings, options: argparse.Namespace) -> None:
    """Norm distributions, the cut-off and the share of outliers of one backbone."""
    from registers.bank import TokenBank
    from registers.probes.norms import norm_rows

    bank = TokenBank(settings.results / "banks" / options.backbone)
    rows = norm_rows(bank, fixed=settings.cutoff.get(BackboneId.parse(options.backbone).method))
    _record(settings, "norms", options.backbone, rows, {})


def positions(settings: Settings, options: argparse.Namespace) -> None:
    """Where in the grid high norms lie and where attention goes on average, of one backbone."""
    from registers.bank import TokenBank
    from registers.probes.by_position import position_rows

    bank = TokenBank(settings.results / "banks" / options.backbone)
    rows = position_rows(bank, fixed=settings.cutoff.get(BackboneId.parse(options.backbone).method))
    _record(settings, "positions", options.backbone, rows, {})


def token_class(settings: Settings, options: argparse.Namespace) -> None:
    """Classification from one token of each kind, of one backbone."""
    from dataclasses import asdict

    from registers.probes.token_class import token_class as probe

    bank, fixed = _bank(settings, options.backbone)
    rows = probe(bank, fixed=fixed, draws=settings.probes.draws, only=settings.probes.labels)
    _record(settings, "token_class", options.backbone, rows, asdict(settings.probes))


def neighbours(settings: Settings, options: argparse.Namespace) -> None:
    """Cosine similarity of patches to their neighbours at the input, by kind of token, of one backbone."""
    from registers.probes.neighbours import neighbours as probe

    bank, fixed = _bank(settings, options.backbone)
    _record(settings, "neighbours", options.backbone, probe(bank, fixed=fixed), {})


def local(settings: Settings, options: argparse.Namespace) -> None:
    """What patch tokens hold of their own place: position and pixels, of one backbone."""
    from registers.probes.position import position
    from registers.probes.reconstruction import pixels, reconstruction
    from registers.readers.catalogue import open_dataset

    bank, fixed = _bank(settings, options.backbone)
    seen = pixels(bank, open_dataset(settings, "eval", "val"))
    _record(
        settings,
        "local",
        options.backbone,
        position(bank, fixed=fixed) + reconstruction(bank, seen, fixed=fixed),
        {},
    )


def linear(settings: Settings, options: argparse.Namespace) -> None:
    """Linear classification on frozen features."""
    from dataclasses import asdict

    from registers.evals.linear import linear as evaluate
    from registers.readers.catalogue import open_dataset

    backbone, facts, device = _load(settings, options.backbone)
    train, val = open_dataset(settings, "eval", "train"), open_dataset(settings, "eval", "val")
    mean, std = facts["normalization"]
    rows = evaluate(
        backbone,
        train,
        val,
        settings.linear,
        size=settings.image_size,
        mean=mean,
        std=std,
        device=device,
        data=data_label(settings),
    )
    _record(settings, "linear", options.backbone, rows, asdict(settings.linear))


def zeroshot(settings: Settings, options: argparse.Namespace) -> None:
    """Zero-shot classification with OpenCLIP's text tower."""
    from dataclasses import asdict

    from registers.data import prompts
    from registers.evals.zeroshot import evaluate
    from registers.models.checkpoint import load_extras
    from registers.readers.catalogue import open_dataset

    backbone, facts, device = _load(settings, options.backbone)
    extras = load_extras(_checkpoint(settings, options.backbone))
    val, chosen = open_dataset(settings, "eval", "val"), settings.zeroshot
    common = dict(
        count=settings.linear.val_images,
        size=settings.image_size,
        device=device,
        data=data_label(settings),
    )
    names = prompts.class_names(chosen.classes, val.classes, getattr(val, "folders", val.classes))
    rows = evaluate(
        backbone,
        extras,
        facts,
        val,
        classes=names,
        prompts=prompts.templates(chosen.templates),
        **common,
    )
    _record(settings, "zeroshot", options.backbone, rows, asdict(chosen))


def dense(settings: Settings, options: argparse.Namespace) -> None:
    """Linear segmentation and depth on frozen features."""
    from dataclasses import asdict

    from registers.evals.depth import estimate_depth
    from registers.evals.maps import save_maps
    from registers.evals.segmentation import segment
    from registers.readers.catalogue import open_truths

    backbone, facts, device = _load(settings, options.backbone)
    mean, std = facts["normalization"]
    for question, evaluate, chosen in (
        ("segmentation", segment, settings.segmentation),
        ("depth", estimate_depth, settings.depth),
    ):
        val = open_truths(settings, question, "val")
        rows, pictures = [], {}
        for name, train in open_truths(settings, question, "train").items():
            measured, arrays = evaluate(
                backbone, train, val[name], chosen, mean=mean, std=std, device=device, data=name
            )
            rows += measured
            pictures = pictures or arrays
        save_maps(settings.results / "pictures" / question / f"{options.backbone}.npz", pictures)
        _record(settings, question, options.backbone, rows, asdict(chosen), role=question)


def discovery(settings: Settings, options: argparse.Namespace) -> None:
    """Unsupervised object discovery with LOST, and its steps for the figures."""
    from dataclasses import asdict

    from registers.evals.discovery import discover
    from registers.evals.maps import save_maps
    from registers.readers.catalogue import open_truths

    backbone, facts, device = _load(settings, options.backbone)
    mean, std = facts["normalization"]
    tune_on = open_truths(settings, "discovery", "train")
    rows, steps, chosen = [], {}, settings.discovery
    for name, images in open_truths(settings, "discovery", "val").items():
        found, arrays = discover(
            backbone,
            images,
            chosen,
            mean=mean,
            std=std,
            device=device,
            tune_on=tune_on[name],
            data=name,
        )
        rows += found
        steps = steps or arrays  # the figures show the first set
    save_maps(settings.results / "pictures" / "discovery" / f"{options.backbone}.npz", steps)
    _record(settings, "discovery", options.backbone, rows, asdict(chosen), role="discovery")


def cost(settings: Settings, options: argparse.Namespace) -> None:
    """FLOPs and parameters against the number of registers (exact)."""
    from registers.exact.cost import cost_rows

    _record(settings, "cost", "", cost_rows(settings), {})


def interpolation(settings: Settings, options: argparse.Namespace) -> None:
    """Gradients through the bicubic resize of position embeddings (exact)."""
    from registers.exact.interpolation import interpolation_rows

    _record(settings, "interpolation", "", interpolation_rows(), {})


def draw(settings: Settings, options: argparse.Namespace) -> None:
    """Draw one figure or write one table from its measurements."""
    artifact = artifacts.load().get(options.artifact)
    if artifact is None:
        raise ConfigError(f"{options.artifact}: allowed are {', '.join(artifacts.load())}")
    module = import_module(f"registers.{artifact.kind}.{artifact.module}")
    inputs = {
        name: _read(settings, files) for name, files in artifacts.inputs(settings, artifact).items()
    }
    out = Path("reports") / artifact.kind / artifact.id
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = module.table(**inputs)
    rows.to_csv(out.with_suffix(".csv"), index=False)
    out.with_suffix(".txt").write_text(module.caption(**inputs) + "\n")
    with tracking.run(
        settings.results, "draw", artifact.id, {"artifact": artifact.title}, {}, began=STARTED
    ) as record:
        if artifact.kind == "figures":
            from registers.figures.paint import style

            style.save(module.draw(**inputs), out)
            record.artifact(out.with_suffix(".png"))
        else:
            from registers.report import markdown

            out.with_suffix(".md").write_text(markdown(rows))
        record.artifact(out.with_suffix(".csv"))


def picture(settings: Settings, options: argparse.Namespace) -> None:
    """Draw what segmentation, depth or discovery says of single images: reports/pictures/QUESTION-BACKBONE.png."""
    from registers.figures.paint import predictions, style

    chosen = artifacts.Picture(options.question, options.backbone)
    (arrays,) = _read(settings, [chosen.arrays(settings)]).values()
    out = Path(chosen.outputs[0]).with_suffix("")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tracking.run(
        settings.results, "draw", chosen.id, {"picture": chosen.id}, {}, began=STARTED
    ) as record:
        style.save(predictions.draw(chosen.question, arrays), out)
        out.with_suffix(".txt").write_text(predictions.caption(chosen.question, arrays) + "\n")
        record.artifact(out.with_suffix(".png"))


def report(settings: Settings, options: argparse.Namespace) -> None:
    """The regenerated paper: reports/paper.html, with claims.json and metrics.json."""
    from registers.report import build

    tracking.deliver(settings.results.parent, settings.mlflow_uri)
    build(settings, _read)


def deliver(settings: Settings, options: argparse.Namespace) -> None:
    """Hand MLflow the numbers it has not yet (also those kept while a server was away)."""
    done, waiting = tracking.deliver(settings.results.parent, settings.mlflow_uri)
    if done or waiting:
        print(f"MLflow at {settings.mlflow_uri}: {done} runs delivered, {waiting} waiting")


def ui(settings: Settings, options: argparse.Namespace) -> None:
    """Open the MLflow UI on 127.0.0.1."""
    deliver(settings, options)
    print(f"MLflow UI: http://127.0.0.1:{options.port}  (Ctrl-C ends it)")
    command = [
        "mlflow",
        "ui",
        "--backend-store-uri",
        settings.mlflow_uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(options.port),
    ]
    os.execv(sys.executable, [sys.executable, "-m", *command])


# --- what the verbs share -----------------------------------------------------------------------------------------------


def _checkpoint(settings: Settings, name: str) -> Path:
    backbone = BackboneId.parse(name)
    file = "last" if backbone.percent == 100 else f"at{backbone.percent:03d}"
    return settings.results / "checkpoints" / str(backbone.trained) / f"{file}.safetensors"


def data_label(settings: Settings) -> str:
    """How measurements name the evaluation set: "world" or the folder's name."""
    return Path(settings.data.eval.partition(":")[2]).name or settings.data.eval


def _bank(settings: Settings, name: str):
    """The token bank of a backbone, and the hand-picked cut-off of its method (None: there is none)."""
    from registers.bank import TokenBank

    return TokenBank(settings.results / "banks" / name), settings.cutoff.get(
        BackboneId.parse(name).method
    )


def _load(settings: Settings, name: str):
    """The backbone, the facts of its checkpoint and the device it was put on."""
    from registers.models import checkpoint
    from registers.models.device import choose_device

    path = _checkpoint(settings, name)
    device = choose_device(settings.device)
    backbone = checkpoint.load(path, device)
    backbone.name = name
    return backbone, checkpoint.facts(path), device


def _record(
    settings: Settings,
    question: str,
    name: str,
    rows: Iterable[Measurement],
    params: dict,
    role: str = "eval",
) -> None:
    """Write rows to measurements/<question>[/<backbone>].csv and record them as a run."""
    rows = list(rows)
    path = (
        settings.results / "measurements" / question / f"{name}.csv"
        if name
        else settings.results / "measurements" / f"{question}.csv"
    )
    tags = {"question": question, "data_hash": _data_hash(settings, role)}
    if name:
        backbone = BackboneId.parse(name)
        tags |= dict(
            method=backbone.method, registers=backbone.registers, seed=backbone.seed, backbone=name
        )
    with tracking.run(
        settings.results, question, name or "exact", tags, params, began=STARTED
    ) as record:
        write(path, rows, run=record.key)
        record.measurements(rows)
        record.artifact(path)


def _data_hash(settings: Settings, role: str) -> str:
    """Fingerprint of the images that were looked at (of several sets, one after the other); empty where a question needs none."""
    manifest = settings.results / "data" / f"{role}.json"
    described = json.loads(manifest.read_text()) if manifest.is_file() else {}
    return " ".join(
        about["fingerprint"]
        for split, about in described.items()
        if split == "val" or split.endswith(" val")
    )


def _read(settings: Settings, files: list[str]):
    """The content of one declared input: measurements, or the paper's own numbers. A backbone's default size gets its name."""
    from registers import measurements

    if files == artifacts.files(settings, "reference"):
        from registers.reference import read

        return read(files[0])
    if files and files[0].endswith(".npz"):  # maps: backbone id -> name -> array
        import numpy as np

        return {Path(file).stem: dict(np.load(file)) for file in files}
    frame = measurements.read(files)
    default = {m: r.size for m, r in settings.recipes.items()}
    frame["size"] = [
        size or default.get(method, "") for size, method in zip(frame["size"], frame["method"])
    ]
    return frame


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="registers", description=__doc__.splitlines()[0])
    parser.add_argument("--params", help="settings file (default: params.yaml)")
    parser.add_argument("--version", action="version", version=f"registers {code_version()}")
    verbs = parser.add_subparsers(required=True, metavar="verb")

    def verb(function, *positional: str, threads: bool = False) -> argparse.ArgumentParser:
        sub = verbs.add_parser(function.__name__, help=function.__doc__.splitlines()[0])
        for name in positional:
            sub.add_argument(name)
        if threads:
            sub.add_argument("--threads", type=int, help="CPU threads of this job")
        sub.set_defaults(verb=function)
        return sub

    verb(check)
    verb(world, "split")
    verb(data, "role", threads=True)
    verb(download, "name")
    for function in (train, tokens, maps, norms, local, linear, dense, discovery, zeroshot):
        verb(function, "backbone", threads=True)
    for function in (positions, token_class, neighbours):  # numpy alone
        verb(function, "backbone")
    verb(cost)
    verb(interpolation)
    verb(draw, "artifact")
    verb(picture, "question", "backbone")
    verb(report)
    verb(deliver)
    verb(ui).add_argument("--port", type=int, default=5000)
    return parser


if __name__ == "__main__":
    sys.exit(main())
