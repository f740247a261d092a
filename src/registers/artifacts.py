"""Which files each figure and table is made from: paper/artifacts.yaml and the settings.

Read by the rules and by the commands alike.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import yaml

from registers.layout import Layout, project_folder
from registers.questions import QUESTIONS
from registers.registry import METHODS, subject_of
from registers.settings.backbone_id import BackboneId
from registers.settings.base import build
from registers.settings.data import ANNOTATED_ROLES, DataSettings
from registers.settings.errors import ConfigError, one_of, refusal
from registers.settings.params import Choices
from registers.settings.run import Settings

PAPER = project_folder("paper")
REFERENCE = "reference"  # the input that stands for the paper's own printed numbers
WEIGHTS = "weights"  # the input that stands for backbones themselves: their widths and parameters
PICTURED = (
    "segmentation",
    "depth",
    "discovery",
)  # questions whose answers on single images are drawn


@dataclass(frozen=True)
class Artifact:
    """One figure or table of the paper.

    inputs: argument of its module -> QUESTION/FAMILY (rows), QUESTION.arrays/FAMILY (small arrays),
    QUESTION (an exact answer), "weights/FAMILY" (checkpoints), or "reference". Families are joined
    by "+"; an input that may be empty ends in "?".
    seeds: "all" where it shows means over seeds, "first" where it shows the first one.
    """

    id: str
    module: str
    title: str
    section: str
    caption: str
    inputs: dict[str, str]
    seeds: str = "first"

    @property
    def kind(self) -> str:
        return "tables" if self.id.startswith("table") else "figures"

    @property
    def python(self) -> str:
        """The module that makes it, as Python imports it."""
        return f"registers.{self.kind}.{self.module}"

    @property
    def source(self) -> str:
        """Path of that module in the repository."""
        return f"src/{self.python.replace('.', '/')}.py"

    @property
    def is_of_one_seed(self) -> bool:
        """Whether it shows one seed: neither means over seeds nor exact answers."""
        return self.seeds == "first" and any("/" in source for source in self.inputs.values())

    def outputs(self, layout: Layout) -> list[str]:
        """Its files in a run's reports."""
        endings = ("png", "pdf", "dark.png", "csv", "txt")
        if self.kind == "tables":
            endings = ("md", "csv", "txt")
        return [str(layout.drawing(self.kind, self.id, ending)) for ending in endings]


@dataclass(frozen=True)
class Picture:
    """What one backbone predicts on single images. question: one of PICTURED."""

    question: str
    backbone: str

    @property
    def id(self) -> str:
        return f"{self.question}-{self.backbone}"

    def outputs(self, layout: Layout) -> list[str]:
        """Its files in a run's reports."""
        endings = ("png", "pdf", "dark.png", "txt")
        return [str(layout.drawing("pictures", self.id, ending)) for ending in endings]

    def arrays(self, settings: Settings) -> str:
        """The file it is drawn from."""
        return str(settings.layout.arrays(self.question, self.backbone))


# --- what there is to draw ------------------------------------------------------------------------


@cache
def load() -> dict[str, Artifact]:
    """All figures and tables by id, in the paper's order."""
    rows = yaml.safe_load((PAPER / "artifacts.yaml").read_text())
    try:
        return {row["id"]: Artifact(**row) for row in rows}
    except (KeyError, TypeError) as error:
        raise ConfigError(f"paper/artifacts.yaml: {error}") from None


def available(settings: Settings) -> dict[str, Artifact]:
    """Those that these settings can make: without OpenCLIP, say, there is no zero-shot row."""
    return {
        artifact.id: artifact
        for artifact in load().values()
        if all(
            source.endswith("?") or files(settings, source) for source in artifact.inputs.values()
        )
    }


def pictures(settings: Settings) -> list[Picture]:
    """The pictures that the report shows: those of the first seed's `focus`. Others on demand."""
    backbones = [id for id in family(settings, "focus") if id.seed == settings.seeds[0]]
    return [
        Picture(question, str(id))
        for question in PICTURED
        if getattr(settings, question).pictures and not unanswerable(settings, question)
        for id in backbones
    ]


# --- which backbones ------------------------------------------------------------------------------


def training(settings: Settings, name: str) -> BackboneId:
    """The id of a training that these settings could make, whether or not a figure shows it.

    Raises ConfigError for a checkpoint on the way or test-time registers, which are made of a
    training, and for a method, a size, a number of registers or a seed that there is not.
    """
    id = BackboneId.parse(name)
    if id.test_time or id.percent != 100:
        raise refusal("backbone", name, f"a training, as {replace(id.trained, test_time=False)}")
    if id.method not in METHODS:
        raise refusal("backbone", name, f"of a method that is {one_of(id.method, METHODS)}")
    if id.method not in settings.recipes:
        raise refusal("backbone", name, f"of a method of scale {settings.scale}")
    if id.size and id.size not in settings.sizes:
        raise refusal("backbone", name, f"of a size that is {one_of(id.size, settings.sizes)}")
    build(Choices, {"registers": [id.registers], "seeds": [id.seed]}, name)
    return id


def family(settings: Settings, name: str) -> list[BackboneId]:
    """A named set of backbones; of published models, those of it that are among `models`.

    main: every method, register count and seed. ends: without registers and with four (or the most
    there are). plain: the first half of `ends`. clip: OpenCLIP of `ends`. dino (first seed), mae
    (every seed): these two, no registers.

    Of the subject (DINOv2, or else the first method). ablation: every count. focus: `ends`. one:
    none and the next count. Of its first seed. four: four registers (or the most). most: the most.
    sizes: no registers, all sizes of `size_study`. steps: no registers, along training. noaa: no
    registers, trained with and without antialiased position embeddings.

    released: every published model.
    """
    ids = _family(settings, name)
    return _published(settings, ids) if settings.models else ids


def _family(settings: Settings, name: str) -> list[BackboneId]:
    subject = subject_of(settings.methods)
    fewest, standard, most = min(settings.registers), _standard(settings), max(settings.registers)
    main = [
        BackboneId(method, registers, seed)
        for method in settings.methods
        for registers in settings.registers
        for seed in settings.seeds
    ]
    ends = [id for id in main if id.registers in (fewest, standard)]

    def first_seed(*counts: int) -> list[BackboneId]:
        return [BackboneId(subject, count, settings.seeds[0]) for count in dict.fromkeys(counts)]

    match name:
        case "main":
            return main
        case "ends":
            return ends
        case "plain":
            return [id for id in main if id.registers == fewest]
        case "ablation":
            return [id for id in main if id.method == subject]
        case "focus":
            return [id for id in ends if id.method == subject]
        case "clip":
            return [id for id in ends if id.method == "openclip"]
        case "one":
            more = [count for count in settings.registers if count > fewest]
            ones = (fewest, min(more, default=fewest))
            return [id for id in main if id.method == subject and id.registers in ones]
        case "four":
            return first_seed(standard)
        case "most":
            return first_seed(most)
        case "noaa":
            (id,) = first_seed(fewest)
            return [id, replace(id, noaa=True)]
        case "sizes":
            (id,) = first_seed(fewest)
            own = settings.recipes[subject].size
            return [replace(id, size="" if size == own else size) for size in settings.size_study]
        case "steps":
            (id,) = first_seed(fewest)
            percents = {round(100 * fraction) for fraction in settings.fractions} | {100}
            return [replace(id, percent=percent) for percent in sorted(percents)]
        case "dino" | "mae":
            seeds = settings.seeds if name == "mae" else settings.seeds[:1]
            return [BackboneId(name, 0, seed) for seed in seeds if name in settings.recipes]
        case "released":
            return [BackboneId.parse(id) for id in settings.models]
    raise ConfigError(f'family = "{name}": must be one that artifacts.family knows')


def trained(settings: Settings) -> list[BackboneId]:
    """Every training that the figures and tables need, each once."""
    if settings.models:
        return family(settings, "released")
    sources = [source for artifact in load().values() for source in artifact.inputs.values()]
    return _once(id.trained for source in sources for id in _backbones(settings, source))


def _published(settings: Settings, ids: list[BackboneId]) -> list[BackboneId]:
    """Those among the run's models. Their names say their size, also where it is the method's own,
    as what a method's own size is depends on the models that a run names. Where none was trained
    with as many registers, the one that got them at test time takes its place."""
    named = [replace(id, size=id.size or settings.recipes[id.method].size) for id in ids]
    either = ((id, replace(id, test_time=True)) for id in named)
    there = ([id for id in pair if str(id) in settings.models] for pair in either)
    return _once(ids[0] for ids in there if ids)


def _standard(settings: Settings) -> int:
    """The paper's own choice, four registers (section 3.2), or the most there are."""
    return 4 if 4 in settings.registers else max(settings.registers)


def _backbones(settings: Settings, source: str) -> list[BackboneId]:
    families = source.rstrip("?").partition("/")[2]
    return _once(id for name in families.split("+") if name for id in family(settings, name))


def _once(ids: Iterable[BackboneId]) -> list[BackboneId]:
    return list(dict.fromkeys(ids))


# --- which files ----------------------------------------------------------------------------------


def files(settings: Settings, source: str) -> list[str]:
    """The files behind one input: "norms/ends" -> measurements/norms/<backbone>.csv of that family.

    "maps.arrays/ends" -> arrays/maps/<backbone>.npz. "weights/sizes" -> the backbones'
    checkpoints. "cost" -> measurements/cost.csv. "reference" -> the paper's printed numbers. None
    for a question that the run's data or models cannot answer.

    Raises ConfigError for a question or family that does not exist.
    """
    name, _, families = source.rstrip("?").partition("/")
    question, _, part = name.partition(".")
    if name == REFERENCE:
        return [os.path.relpath(PAPER / "reference.yaml")]
    if name == WEIGHTS:
        return [str(settings.layout.checkpoint(id)) for id in _backbones(settings, source)]
    if question not in QUESTIONS or part not in ("", "arrays"):
        raise ConfigError(f'input = "{source}": must begin with one of {", ".join(QUESTIONS)}')
    if unanswerable(settings, question):
        return []
    if not families:
        return [str(settings.layout.measurement(question))]
    path = settings.layout.arrays if part else settings.layout.measurement
    return [str(path(question, id)) for id in _backbones(settings, source)]


def unanswerable(settings: Settings, question: str) -> str:
    """Why these data or models cannot answer a question, in words; "" where they can."""
    row = QUESTIONS[question]
    if row.role in ANNOTATED_ROLES and "none" in settings.data.specs(row.role):
        kind = DataSettings.model_fields[row.role].description.partition(":")[0].rstrip(".").lower()
        return f"needs {kind} (data.use.{row.role})"
    if row.labels and settings.data.eval.partition(":")[0] == "photos":
        return "needs labelled images (data.use.eval)"
    if question == "zeroshot" and settings.models:
        return "needs a text tower, and image towers alone are fetched"
    return ""


def absent(settings: Settings) -> dict[str, str]:
    """The figures and tables that these settings cannot make, and why, in words."""
    made = available(settings)
    return {
        artifact.id: _why_absent(settings, artifact)
        for artifact in load().values()
        if artifact.id not in made
    }


def _why_absent(settings: Settings, artifact: Artifact) -> str:
    needed = [source for source in artifact.inputs.values() if not source.endswith("?")]
    for source in needed:
        question = source.partition("/")[0].partition(".")[0]
        if question in QUESTIONS and (reason := unanswerable(settings, question)):
            return reason
    families = [s.partition("/")[2] for s in needed if not files(settings, s)]
    return f"needs backbones that are not among these ({', '.join(families)})"


def inputs(settings: Settings, artifact: Artifact) -> dict[str, list[str]]:
    """All files behind an artifact, by argument."""
    return {name: files(settings, source) for name, source in artifact.inputs.items()}


def evidence(settings: Settings) -> list[str]:
    """All rows that the report reads: those behind artifacts, and what claims ask besides.

    These are norms of every count and model, and what MAE is worth in linear classification.

    Arrays are measured together with rows of the same name, which say in numbers what they show.
    """
    sources = {
        source.replace(".arrays", "")
        for artifact in available(settings).values()
        for source in artifact.inputs.values()
        if source.partition("/")[0] not in (REFERENCE, WEIGHTS)
    }
    others = ("norms/ablation", "norms/released", "linear/mae")
    return sorted({file for source in (*sources, *others) for file in files(settings, source)})
