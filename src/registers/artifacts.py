"""What is made from what: paper/artifacts.yaml resolved against the settings. Read by the Snakefile and by cli.py alike."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from registers.settings.backbone_id import BackboneId
from registers.settings.data import ANNOTATED_ROLES
from registers.settings.errors import ConfigError
from registers.settings.run import Settings

PAPER = Path(__file__).resolve().parents[2] / "paper"
MAPS = {
    "maps": "maps",
    "lost": "pictures/discovery",
}  # stages that leave arrays instead of rows: their folders


@dataclass(frozen=True)
class Artifact:
    """One figure or table of the paper. inputs: argument name -> "STAGE/FAMILY", or "reference" for the paper's own numbers."""

    id: str
    module: str
    title: str
    section: str
    caption: str
    inputs: dict[str, str]

    @property
    def kind(self) -> str:
        return "tables" if self.id.startswith("table") else "figures"

    @property
    def source(self) -> str:
        """Path of the module that makes it, in the repository."""
        return f"src/registers/{self.kind}/{self.module}.py"

    @property
    def outputs(self) -> list[str]:
        endings = ("md", "csv", "txt") if self.kind == "tables" else ("png", "pdf", "csv", "txt")
        return [f"reports/{self.kind}/{self.id}.{e}" for e in endings]


def load() -> dict[str, Artifact]:
    """All artifacts that are built, by id, in the paper's order."""
    rows = yaml.safe_load((PAPER / "artifacts.yaml").read_text())
    return {row["id"]: Artifact(**row) for row in rows}


def available(settings: Settings) -> dict[str, Artifact]:
    """The artifacts that these settings can make: those whose families are not empty (no OpenCLIP, no zero-shot)."""
    return {
        a.id: a
        for a in load().values()
        if all(source.endswith("?") or files(settings, source) for source in a.inputs.values())
    }


def family(settings: Settings, name: str) -> list[BackboneId]:
    """A named set of backbones.

    main: every method, register count and seed; ends: without registers and with four (or the most there are); plain:
    `ends` without registers; clip: OpenCLIP of `ends`. Of DINOv2, the paper's main focus: ablation: every count; focus: `ends`;
    one: none and one; four: four (or the most); most: the most; sizes: no registers, all sizes of `size_study`; steps: no registers, along
    training; noaa: no registers, trained with and without antialiased position embeddings. dino, mae: these two, no registers.
    """
    fewest, standard = (
        min(settings.registers),
        4 if 4 in settings.registers else max(settings.registers),
    )
    ends = sorted({fewest, standard})
    main = [
        BackboneId(m, r, s)
        for m in settings.methods
        for r in settings.registers
        for s in settings.seeds
    ]
    subject = (
        "dinov2" if "dinov2" in settings.methods else settings.methods[0]
    )  # the paper's main focus, section 2
    first = settings.seeds[0]
    if name == "main":
        return main
    if name == "ends":
        return [b for b in main if b.registers in ends]
    if name == "plain":
        return [b for b in main if b.registers == fewest]
    if name == "ablation":
        return [b for b in main if b.method == subject]
    if name == "focus":
        return [b for b in main if b.method == subject and b.registers in ends]
    if name == "clip":
        return [b for b in main if b.method == "openclip" and b.registers in ends]
    if name == "sizes":
        default = settings.recipes[subject].size
        return [
            BackboneId(subject, fewest, first, size="" if size == default else size)
            for size in settings.size_study
        ]
    if name == "steps":
        percents = sorted({round(100 * f) for f in settings.fractions} | {100})
        return [BackboneId(subject, fewest, first, percent=p) for p in percents]
    if name in ("one", "most", "four", "noaa"):
        counts = {
            "one": [fewest, min((r for r in settings.registers if r > fewest), default=fewest)],
            "most": [max(settings.registers)],
        }
        chosen = [
            BackboneId(subject, r, first)
            for r in dict.fromkeys(counts.get(name, [standard] if name == "four" else [fewest]))
        ]
        return chosen + [replace(b, noaa=True) for b in chosen] if name == "noaa" else chosen
    if name in ("dino", "mae"):
        return [BackboneId(name, 0, first)] if name in settings.recipes else []
    raise ConfigError(f'family = "{name}": not in artifacts.family')


def trained(settings: Settings) -> list[BackboneId]:
    """Every backbone that is trained for the built artifacts, each once."""
    wanted = [
        b.trained
        for a in load().values()
        for source in a.inputs.values()
        for b in _backbones(settings, source)
    ]
    return list(dict.fromkeys(wanted))


def _backbones(settings: Settings, source: str) -> list[BackboneId]:
    names = source.rstrip("?").partition("/")[2]
    families = [] if names in ("", "none") else names.split("+")
    return list(dict.fromkeys(b for name in families for b in family(settings, name)))


def files(settings: Settings, source: str) -> list[str]:
    """The files behind one input: "norms/ends" -> measurements/norms/<backbone>.csv of that family; "cost" -> one file.

    "maps/ends" -> maps/<backbone>.npz, the small arrays of the images shown; "lost/ends" -> pictures/discovery/<backbone>.npz, the steps
    of LOST. Several families may be joined: "maps/ends+dino"; one that may be empty ends in "?".
    """
    stage, _, name = source.rstrip("?").partition("/")
    if stage == "reference":
        return [os.path.relpath(PAPER / "reference.yaml")]
    if not name or name == "none":
        return [str(settings.results / "measurements" / f"{stage}.csv")]
    folder, ending = (MAPS[stage], "npz") if stage in MAPS else (f"measurements/{stage}", "csv")
    return [
        str(settings.results / folder / f"{backbone}.{ending}")
        for backbone in _backbones(settings, source)
    ]


def inputs(settings: Settings, artifact: Artifact) -> dict[str, list[str]]:
    """All files behind an artifact by argument name."""
    return {name: files(settings, source) for name, source in artifact.inputs.items()}


@dataclass(frozen=True)
class Picture:
    """A further picture, beyond the paper's: what one backbone says of single images. question: segmentation, depth or discovery."""

    question: str
    backbone: str

    @property
    def id(self) -> str:
        return f"{self.question}-{self.backbone}"

    @property
    def outputs(self) -> list[str]:
        return [f"reports/pictures/{self.id}.{e}" for e in ("png", "pdf", "txt")]

    def arrays(self, settings: Settings) -> str:
        """The file it is drawn from."""
        return str(settings.results / "pictures" / self.question / f"{self.backbone}.npz")


def pictures(settings: Settings) -> list[Picture]:
    """The further pictures that the report shows: those of the first seed's `focus`, where settings keep any. Others on demand."""
    shown = [b for b in family(settings, "focus") if b.seed == settings.seeds[0]]
    return [
        Picture(question, str(b))
        for question in ANNOTATED_ROLES
        if getattr(settings, question).pictures
        for b in shown
    ]


def evidence(settings: Settings) -> list[str]:
    """All measurements that the report reads: those behind the artifacts, and what claims need besides (norms of every count)."""
    behind = {
        f
        for a in available(settings).values()
        for fs in inputs(settings, a).values()
        for f in fs
        if f.endswith(".csv")
    }
    return sorted(behind | set(files(settings, "norms/ablation")))
