"""What each verb of `registers` does. They open files, choose devices and record runs.

The science is in the modules that they call, which are imported late, so that a verb pays only for
what it uses.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

from registers import artifacts
from registers.arguments import SPLITS
from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError, one_of, refusal
from registers.settings.paths import check_paths
from registers.settings.run import Settings

BEGAN = time.time()  # of this job, for its run's duration


def check(settings: Settings, options: argparse.Namespace) -> None:
    """Check the settings, and say what a run of them would do and take before it begins.

    It lists the backbones, and says how many jobs there are, how long they take on this machine,
    what they write to disk and what data must be there or is downloaded. Nothing is run.

    registers check        registers check --ids
    """
    from registers import ahead, stale
    from registers.readers.catalogue import check_words

    if options.ids:
        print(*artifacts.trained(settings), sep="\n")
        return
    check_paths(settings)
    check_words(settings)
    if settings.models:
        from registers.released import start

        print(start.plan(settings))
        for id, reason in artifacts.absent(settings).items():
            print(f"  without {id}: {reason}")
        start.check(settings)
        return
    trained = artifacts.trained(settings)
    drawn = len(artifacts.available(settings))
    print(f"scale {settings.scale}: {len(trained)} backbones to train, {drawn} figures and tables")
    for id in trained:
        recipe = settings.recipes[id.method]
        size = id.size or recipe.size
        print(f"  {id!s:24} {recipe.steps} steps of {recipe.batch}, size {size}")
    print(ahead.summary(settings))
    if sentence := stale.sentence(settings):
        print(sentence)


def plan(settings: Settings, options: argparse.Namespace) -> None:
    """Say what a run would cost: jobs, hours, memory, disk and data, after a minute's measurement.

    It takes a few training steps of each method on random images, so it needs none of the data.

    registers plan --scale paper
    """
    if settings.models:
        from registers.released import start

        print(start.plan(settings))
        return
    from registers.plan import plan as plan_run

    print(plan_run(settings))


def world(settings: Settings, options: argparse.Namespace) -> None:
    """Draw one split of the built-in data set, and write it to results/RUN/data.

    registers world val
    """
    from registers.readers.catalogue import draw_world

    if options.split not in SPLITS:
        raise refusal("split", options.split, one_of(options.split, SPLITS))
    draw_world(settings, options.split)


def data(settings: Settings, options: argparse.Namespace) -> None:
    """List the data set of a role, fingerprint its files and write its manifest.

    Which data set plays a role is said by `data` in params.yaml.

    registers data eval
    """
    from registers.readers import catalogue

    check_paths(settings)
    catalogue.prepare(settings, options.role)


def download(settings: Settings, options: argparse.Namespace) -> None:
    """Download a public data set and unpack it below data.root, checked and resumable.

    Then `data: {use: "folder:cifar10"}` in params.yaml trains on it.

    registers download cifar10
    """
    from registers.readers.download import fetch

    fetch(options.name, Path(settings.data_root).expanduser())


def train(settings: Settings, options: argparse.Namespace) -> None:
    """Train one backbone; a training that was killed resumes from its last saved step.

    It writes results/RUN/checkpoints/ID: weights, their card and the losses. An id that the
    settings do not name, such as three registers, is trained as well, and a line says so. What is
    trained already stays as it is, unless --again asks for another training in its place.

    registers train dinov2-r4-s0
    """
    from registers.readers.catalogue import open_dataset
    from registers.train import train_backbone

    if settings.models:
        name = options.backbone
        raise ConfigError(f"{name}: scale {settings.scale} trains nothing; registers fetch {name}")
    id = artifacts.training(settings, options.backbone)
    card = settings.layout.training(id) / "last.json"
    if card.is_file() and not options.again:
        raise ConfigError(f"{id}: trained already ({card}); --again trains it anew in its place")
    if id not in artifacts.trained(settings):
        print(f"registers: {_unasked(settings, id)}; training it anyway", file=sys.stderr)
    samples = open_dataset(settings, METHODS[id.method].role, "train")
    last = train_backbone(settings, id, samples)
    print(json.dumps({name: round(value, 5) for name, value in last.items()}))


def _unasked(settings: Settings, id: BackboneId) -> str:
    """Why no figure needs a training, as far as params.yaml decides it."""
    for key, value in (("methods", id.method), ("registers", id.registers), ("seeds", id.seed)):
        chosen = getattr(settings, key)
        if value not in chosen:
            listed = ", ".join(map(str, chosen))
            return f"{id}: {value} is not among `{key}` ({listed}), so no figure shows it"
    return f"{id}: no figure of these settings shows it"


def fetch(settings: Settings, options: argparse.Namespace) -> None:
    """Fetch one published model (scale released); a download that was cut off resumes.

    One with test-time registers (ID-tt) is made of a model that was fetched.

    registers fetch dinov2-base-r4-s0
    """
    from registers.released.added import add_registers
    from registers.released.fetch import fetch as fetch_one

    id = BackboneId.parse(options.model)
    print((add_registers if id.test_time else fetch_one)(settings, options.model))


def pin(settings: Settings, options: argparse.Namespace) -> None:
    """Write down the commits and SHA-256 of the models that were fetched (scale released).

    Later runs fetch exactly these. Delete a model's lines to take what its repository has by then.

    registers pin
    """
    from registers.released.lock import pin as pin_fetched

    print(pin_fetched(settings))


def tokens(settings: Settings, options: argparse.Namespace) -> None:
    """Write the token bank of one backbone: one forward pass over the evaluation images.

    It is a folder, results/RUN/banks/ID, with norms, outputs, queries, keys and values; the
    questions about banks read it.

    registers tokens dinov2-r4-s0
    """
    from registers import tracking
    from registers.measure import identity_tags, load_backbone, size_of
    from registers.readers.catalogue import evaluation_sets
    from registers.tokens import write_bank

    backbone = load_backbone(settings, options.backbone)
    (evaluation,) = evaluation_sets(settings, "eval")
    what = dict(images=settings.bank.images, sample=settings.bank.sample, size=settings.image_size)
    tags = identity_tags(options.backbone) | {"data_hash": evaluation.val.fingerprint}
    params = {f"bank.{name}": value for name, value in what.items()}
    params["size"] = size_of(settings, options.backbone)
    bank = settings.layout.bank(options.backbone)
    with tracking.run(
        settings.results, "tokens", options.backbone, tags, params, began=BEGAN
    ) as record:
        more = dict(data=evaluation.name, batch=settings.bank.batch)
        write_bank(bank, backbone, evaluation.val, **more, **what)
        record.artifact(bank / "index.json")


def measure(settings: Settings, options: argparse.Namespace) -> None:
    """Ask one question of a backbone, or of none where its answer is exact.

    It writes results/RUN/measurements/QUESTION/ID.csv, one row for each number.

    registers measure norms dinov2-r4-s0        registers measure cost
    """
    from registers.measure import measure as ask

    ask(settings, options.question, options.backbone, began=BEGAN)


def draw(settings: Settings, options: argparse.Namespace) -> None:
    """Draw a figure, table or picture from what was measured, to reports/RUN.

    registers draw fig07        registers draw discovery-dinov2-r0-s0
    """
    from registers.draw import draw as draw_one

    draw_one(settings, options.id, began=BEGAN)


def report(settings: Settings, options: argparse.Namespace) -> None:
    """Write the regenerated paper to reports/RUN: paper.html, paper.pdf, claims and metrics/.

    Its figures and tables must be drawn; `snakemake --cores all` does both.

    registers report
    """
    from registers import tracking
    from registers.draw import draw_training
    from registers.report import build
    from registers.stage import is_temporary

    if not is_temporary(Path.cwd()):
        tracking.deliver(settings.results.parent, settings.mlflow_uri)
    with tracking.run(settings.results, "report", "paper", {}, {}, began=BEGAN) as record:
        build(settings)
        draw_training(settings)
        record.artifact(settings.layout.page)
        record.artifact(settings.layout.training_curves)
    reports = settings.layout.reports
    _point(reports.with_name("latest"), reports.name)


def _point(link: Path, target: str) -> None:
    """Make a symbolic link in the place of an older one, on file systems that have them."""
    beside = link.with_name(f"{link.name}.partial")
    beside.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        beside.symlink_to(target)
        os.replace(beside, link)


def deliver(settings: Settings, options: argparse.Namespace) -> None:
    """Hand MLflow the numbers that it does not have yet; name weights made by other code.

    A store that is empty, as in a fresh clone after `dvc pull`, is filled from the spools. Every
    run does this at its end.

    registers deliver
    """
    from registers import records, stale, tracking
    from registers.stage import is_temporary
    from registers.stores.words import masked

    records.save(settings.layout)
    if is_temporary(Path.cwd()):
        return
    done, waiting = tracking.deliver(settings.results.parent, settings.mlflow_uri)
    if done or waiting:
        store = masked(settings.mlflow_uri)
        print(f"MLflow at {store}: {done} runs delivered, {waiting} waiting")
    if sentence := stale.sentence(settings):
        print(sentence)


def ui(settings: Settings, options: argparse.Namespace) -> None:
    """Hand MLflow the numbers that it does not have yet, and open its UI on 127.0.0.1.

    registers ui --port 5001
    """
    from registers.tracking import TRAINING

    deliver(settings, options)
    address = f"http://127.0.0.1:{options.port}/#/experiments?{TRAINING}"
    print(f"MLflow UI: {address}  (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1"]
    command += ["--backend-store-uri", settings.mlflow_uri, "--port", str(options.port)]
    os.execv(sys.executable, command)
