"""What a run would cost, before anything runs: jobs, hours, memory, disk, data.

`registers plan` measures this machine for about a minute, with a few training steps of each method
on random images (`speed`), and multiplies up by exact FLOPs (`exact.flops`). Where a job ran before
in this run's folder, its benchmark counts instead.
"""

import csv
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from registers import artifacts
from registers.exact import demands, flops
from registers.layout import checkpoint_name
from registers.questions import QUESTIONS
from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

STEP_SECONDS = 1.0  # a measured step may take so long at the speed of a matrix product
LIMIT = 6.0  # seconds of measured steps per method
GPU_BATCH = 64  # images per step measured on a GPU
A100 = 312e12  # FLOP/s in bfloat16, by its data sheet
A100_SHARE = 0.4  # assumed; DINOv2's own log is 43 % of it for ViT-L
HOUR = 3600

# GB of the published sets, as unpacked; by kind, or by the folder's name in workflow/scales
GIGABYTES = {
    "imagenet-22k": 1300,
    "imagenet-1k": 150,
    "imagenet": 150,
    "cifar10": 0.2,
    "image-text": 10000,  # 400 M pairs at 256 pixels
    "ade20k": 1.0,
    "nyud": 2.8,
    "voc2007": 0.9,
    "voc2012": 2.0,
    "coco20k": 13.5,
}


@dataclass(frozen=True)
class Job:
    """One job: its rule, what it is about, and the file by which one sees that it is done."""

    rule: str
    subject: str
    output: Path

    @property
    def is_done(self) -> bool:
        return self.output.exists()


# --- which jobs -----------------------------------------------------------------------------------


def jobs(settings: Settings) -> list[Job]:
    """All jobs behind the report, as the rules would make them."""
    layout = settings.layout
    trained = artifacts.trained(settings)
    asked = _asked(settings)
    banks = sorted({subject for question, subject in asked if _reads_bank(question)})
    roles = {METHODS[id.method].role for id in trained} | ({"eval"} if banks else set())
    roles |= {QUESTIONS[question].role for question, _ in asked} - {""}
    splits = ("train", "val", "test") if _uses_world(settings, roles) else ()
    drawn = artifacts.available(settings).values()
    pictures = artifacts.pictures(settings)
    return [
        *(Job("world", split, layout.world(split) / "world.json") for split in splits),
        *(Job("data", role, layout.manifest(role)) for role in sorted(roles)),
        *(Job("train", str(id), layout.training(id) / "last.safetensors") for id in trained),
        *(Job("tokens", name, layout.bank(name) / "index.json") for name in banks),
        *(Job(question, name, layout.measurement(question, name)) for question, name in asked),
        *(Job(item.kind, item.id, Path(item.outputs(layout)[0])) for item in drawn),
        *(Job("pictures", item.id, Path(item.outputs(layout)[0])) for item in pictures),
        Job("report", "", layout.page),
    ]


def _asked(settings: Settings) -> list[tuple[str, str]]:
    """(question, backbone) of every measurement; the backbone is "" for an exact answer."""
    files = [
        file
        for artifact in artifacts.available(settings).values()
        for several in artifacts.inputs(settings, artifact).values()
        for file in several
    ]
    files += artifacts.evidence(settings)
    files += [picture.arrays(settings) for picture in artifacts.pictures(settings)]
    asked = set()
    for file in map(Path, files):
        if file.parent.name in QUESTIONS:
            asked.add((file.parent.name, file.stem))
        elif file.stem in QUESTIONS:
            asked.add((file.stem, ""))
    return sorted(asked)


def _reads_bank(question: str) -> bool:
    return QUESTIONS[question].reads == "bank"


def _uses_world(settings: Settings, roles: Iterable[str]) -> bool:
    return any("world" in settings.data.specs(role) for role in roles)


# --- how long -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What a minute of measuring found.

    ceiling: FLOP/s of a matrix product. start: seconds until a job has imported what it needs.
    forward: FLOP/s of a backbone asked questions. trainings: by method.
    """

    device: str
    precision: str
    ceiling: float
    start: float
    forward: float
    trainings: dict
    measured: dict  # the smaller settings that were measured, by method
    seconds: float

    def training_seconds(self, settings: Settings, id: BackboneId) -> float:
        """Seconds of a training on this machine alone."""
        speed = self.trainings[id.method]
        recipe = settings.recipes[id.method]
        parameters = flops.trained_parameters(settings, id)
        known = flops.trained_parameters(self.measured[id.method], speed.id)
        work = recipe.batch * flops.training_flops(settings, id)
        step = work / speed.achieved_by_batch + speed.update * parameters / known
        examples = recipe.batch * speed.sample
        if settings.workers:
            step = max(step, examples / settings.workers)
        else:
            step += examples
        return self.start + recipe.steps * step

    def question_seconds(self, settings: Settings, id: BackboneId, question: str) -> float:
        return self.start + demands.question_flops(settings, id, question) / self.forward


def measure_machine(settings: Settings) -> Machine:
    """Measure this machine at the scale's sizes, or at smaller ones where a step takes long."""
    import torch

    from registers import speed
    from registers.models.device import choose_device

    began = time.perf_counter()
    device = torch.device(choose_device(settings.device))
    torch.set_num_threads(1)  # core-hours are counted; several threads are taken to share them
    is_half = settings.precision == "bf16-mixed" or (
        settings.precision == "auto" and device.type == "cuda"
    )
    ceiling = speed.matrix_product(device, is_half)
    memory = _memory_of(device) / 2
    trainings, measured = {}, {}
    for method in dict.fromkeys(id.method for id in artifacts.trained(settings)):
        id = BackboneId(method, max(settings.registers), settings.seeds[0])
        work = STEP_SECONDS * ceiling
        measured[method] = speed.that_fits(settings, id, work, memory)
        pixels = speed.photo_size(settings, id)
        trainings[method] = speed.measure_training(measured[method], id, pixels, limit=LIMIT)
    first = BackboneId(next(iter(trainings)), 0, settings.seeds[0])
    forward = speed.measure_forward(settings, first, STEP_SECONDS * ceiling)
    return Machine(
        device=_name_of(device),
        precision="bfloat16" if is_half else "float32",
        ceiling=ceiling,
        start=_seconds_of_start(),
        forward=forward,
        trainings=trainings,
        measured=measured,
        seconds=time.perf_counter() - began,
    )


def _seconds_of_start() -> float:
    """Seconds of one core until a fresh process has what a question needs."""
    code = "import time, registers.measure, timm; print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _memory_of(device) -> float:
    """MB that a process may use: the GPU's, or what the host has left."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 1e6
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (ValueError, OSError):  # not every system says
        return 8000.0


def _name_of(device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def earlier(settings: Settings, rule: str, subject: str) -> float | None:
    """Seconds that a job took when it last ran, by its benchmark; None where it did not."""
    path = settings.layout.benchmark(rule, subject)
    try:
        with open(path, newline="") as file:
            rows = [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    except (OSError, KeyError, ValueError):
        return None
    return sum(rows) / len(rows) if rows else None


def seconds_of(settings: Settings, machine: Machine, job: Job) -> tuple[float, bool]:
    """Seconds of a job, and whether they were measured when it ran before."""
    known = earlier(settings, job.rule, job.subject)
    if known is not None:
        return known, True
    if job.rule == "train":
        return machine.training_seconds(settings, BackboneId.parse(job.subject)), False
    if job.rule == "tokens" or (job.rule in QUESTIONS and job.subject):
        id = BackboneId.parse(job.subject)
        return machine.question_seconds(settings, id, job.rule), False
    return machine.start, False


# --- how much -------------------------------------------------------------------------------------


def memory_of(settings: Settings, job: Job, on_gpu: bool) -> float:
    """MB that the job asks for, of the GPU where it is a training on one."""
    if job.rule == "train":
        id = BackboneId.parse(job.subject)
        if on_gpu:
            return demands.training_memory(settings, id, on_gpu)
        return demands.train_mb(settings, id, on_gpu)
    if job.rule == "tokens" or (job.rule in QUESTIONS and job.subject):
        return demands.measure_mb(settings, BackboneId.parse(job.subject), on_gpu)
    return demands.PROCESS_MB


def disk(settings: Settings) -> dict[str, float]:
    """GB by kind of file: what stays, and what a training holds while it runs."""
    trained = artifacts.trained(settings)
    names = {"last", *(checkpoint_name(round(100 * share)) for share in settings.fractions)}
    weights = {id: 4 * flops.backbone_parameters(settings, id) for id in trained}
    states = [16 * flops.trained_parameters(settings, id) for id in trained]
    banks = [_bank_bytes(settings, job.subject) for job in jobs(settings) if job.rule == "tokens"]
    return {
        "checkpoints": len(names) * sum(weights.values()) / 1e9,
        "token banks": sum(banks) / 1e9,
        "the largest state of a training, until it ends": max(states) / 1e9,
    }


def _bank_bytes(settings: Settings, name: str) -> float:
    """Outputs, q, k, v and embeddings of the sampled images, in float16."""
    id = BackboneId.parse(name)
    patches = (settings.image_size // settings.recipes[id.method].patch) ** 2
    return 5 * 2 * settings.bank.sample * patches * flops.backbone_blocks(settings, id).width


def data_sizes(settings: Settings) -> dict[str, float | None]:
    """GB of each data set that the run reads; None where that is not known here."""
    sizes: dict[str, float | None] = {}
    for role in type(settings.data).model_fields:
        for spec in settings.data.specs(role):
            kind, _, place = spec.partition(":")
            folder = place.split("/")[0]
            sizes[spec] = 0.0 if spec == "world" else GIGABYTES.get(folder, GIGABYTES.get(kind))
    return sizes


# --- the table ------------------------------------------------------------------------------------


def plan(settings: Settings) -> str:
    """The whole plan, as text."""
    machine = measure_machine(settings)
    everything = jobs(settings)
    on_gpu = machine.device not in ("cpu", "mps")
    unit = "GPU-hours" if on_gpu else "core-hours"
    groups: dict[str, list[Job]] = {}
    for job in everything:
        groups.setdefault(_group(job), []).append(job)

    lines = _speeds(machine)
    lines += ["", f"{'jobs':28}{'all':>6}{'done':>6}{unit:>16}{'GB each':>10}  hours are"]
    total = 0.0
    for name, several in groups.items():
        times = [seconds_of(settings, machine, job) for job in several]
        hours = sum(seconds for seconds, _ in times) / HOUR
        total += hours
        memory = max(memory_of(settings, job, on_gpu) for job in several) / 1000
        basis = _basis(several, [known for _, known in times])
        done = sum(job.is_done for job in several)
        lines.append(f"{name:28}{len(several):6}{done:6}{hours:16,.2f}{memory:10,.1f}  {basis}")
    done = sum(job.is_done for job in everything)
    lines.append(f"{'total':28}{len(everything):6}{done:6}{total:16,.2f}")
    return "\n".join([*lines, "", *_gpu_hours(settings), *_room(settings), "", *NOTES])


NOTES = [
    "Estimated: FLOPs over the speeds above, one core or GPU alone. Not counted: the solvers of",
    "probes and linear heads, LOST's own arithmetic, reading and decoding for questions. Memory",
    "and disk are upper bounds.",
]


def _speeds(machine: Machine) -> list[str]:
    lines = [
        f"{machine.device}, {machine.precision}: a matrix product "
        f"reaches {machine.ceiling / 1e9:,.0f} GFLOP/s (measured in {machine.seconds:.0f} s)"
    ]
    for method, speed in machine.trainings.items():
        size = flops.backbone_blocks(machine.measured[method], speed.id)
        lines.append(
            f"  {method:9} {speed.achieved_by_batch / 1e9:8,.1f} GFLOP/s"
            f" ({speed.achieved_by_batch / machine.ceiling:.0%}) in steps of {speed.batch} images,"
            f" width {size.width}, {size.depth} blocks; {1000 * speed.sample:.1f} ms per example"
        )
    return lines


def _group(job: Job) -> str:
    if job.rule == "train":
        id = BackboneId.parse(job.subject)
        return f"train {id.method}{f' {id.size}' if id.size else ''}"
    if job.rule in QUESTIONS:
        return "probes of token banks" if _reads_bank(job.rule) else f"measure {job.rule}"
    return job.rule


def _basis(several: list[Job], known: list[bool]) -> str:
    """Where the hours of these jobs come from."""
    if all(known):
        return "measured, when they ran"
    counted = Counter(known)
    estimate = "estimated" if several[0].rule in ("train", "tokens", *QUESTIONS) else "a guess"
    return estimate if not counted[True] else f"{estimate}; measured for {counted[True]}"


def _gpu_hours(settings: Settings) -> list[str]:
    trained = artifacts.trained(settings)
    work = sum(
        settings.recipes[id.method].steps
        * settings.recipes[id.method].batch
        * flops.training_flops(settings, id)
        for id in trained
    )
    hours = work / (A100 * A100_SHARE) / HOUR
    return [
        f"All trainings: {work:.2g} FLOP (exact, by formula): {hours:,.2g} A100-hours, "
        f"if {A100_SHARE:.0%} of its {A100 / 1e12:.0f} TFLOP/s are reached (assumed)."
    ]


def _room(settings: Settings) -> list[str]:
    room = ", ".join(f"{name} {size:,.1f}" for name, size in disk(settings).items())
    sets = ", ".join(
        f"{spec} {'drawn' if size == 0 else 'unknown' if size is None else f'{size:,g}'}"
        for spec, size in data_sizes(settings).items()
    )
    return [
        f"Disk in GB: {room}.",
        f"Data in GB, as published, to be there before the run (cifar10 is downloaded): {sets}.",
    ]
