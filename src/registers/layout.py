"""Where every file of a run lies: the one owner of paths. Rules, commands and figures ask it."""

from dataclasses import dataclass
from pathlib import Path

from registers.settings.backbone_id import BackboneId


@dataclass(frozen=True)
class Layout:
    """The files of one run below its results folder. Names may be Snakemake's wildcards.

    data, checkpoints, banks, measurements and arrays are the kinds of files that stages hand on;
    logs, benchmarks and tracking say how they came about.
    """

    results: Path

    # --- data

    def world(self, split: str) -> Path:
        """Folder of one drawn split of the built-in data set."""
        return self.results / "data" / f"world-{split}"

    def manifest(self, role: str) -> Path:
        """What the data set of a role is: splits, classes, fingerprints."""
        return self.results / "data" / f"{role}.json"

    def listing(self, key: str, split: str) -> Path:
        """The cached list of files of one split of a folder or of shards."""
        return self.results / "data" / f"index-{key}-{split}.npz"

    # --- backbones

    def training(self, trained: str | BackboneId) -> Path:
        """Folder of one training: its weights, history and, until it is finished, its state."""
        return self.results / "checkpoints" / str(trained)

    def history(self, trained: str | BackboneId) -> Path:
        """Losses and norms along one training."""
        return self.training(trained) / "history.csv"

    def checkpoint(self, backbone: str | BackboneId) -> Path:
        """Weights of a backbone, at the end or on the way."""
        id = BackboneId.parse(str(backbone))
        return self.training(id.trained) / f"{checkpoint_name(id.percent)}.safetensors"

    def bank(self, backbone: str | BackboneId) -> Path:
        """Folder of a token bank."""
        return self.results / "banks" / str(backbone)

    # --- what was measured

    def measurement(self, question: str, backbone: str | BackboneId = "") -> Path:
        """Rows of one question about one backbone; without one, of an exact question."""
        folder = self.results / "measurements"
        return (
            folder / question / f"{backbone}.csv" if str(backbone) else folder / f"{question}.csv"
        )

    def arrays(self, question: str, backbone: str | BackboneId) -> Path:
        """Small arrays of one question for the images shown."""
        return self.results / "arrays" / question / f"{backbone}.npz"

    # --- what is shown of it

    @property
    def reports(self) -> Path:
        """Folder of the page, figures and tables of this run; `reports/latest` links the newest."""
        return Path("reports") / self.results.name

    def drawing(self, kind: str, id: str, ending: str = "") -> Path:
        """A figure, table or picture; kind: figures, tables or pictures; ending: "png" or none."""
        return self.reports / kind / (f"{id}.{ending}" if ending else id)

    @property
    def page(self) -> Path:
        """The regenerated paper."""
        return self.reports / "paper.html"

    @property
    def training_curves(self) -> Path:
        """Losses and norms along all trainings, as a picture."""
        return self.reports / "training.png"

    @property
    def handout(self) -> Path:
        """The regenerated paper as a PDF."""
        return self.reports / "paper.pdf"

    @property
    def claims(self) -> Path:
        """All claims as data and as a picture, without an ending."""
        return self.reports / "claims"

    def metrics(self, name: str) -> Path:
        """The main numbers of one question, or "claims", as `dvc metrics` compares them."""
        return self.reports / "metrics" / f"{name}.json"

    # --- how it came about

    def log(self, rule: str, subject: str = "") -> Path:
        return self._note("logs", rule, subject, "log")

    def benchmark(self, rule: str, subject: str = "") -> Path:
        return self._note("benchmarks", rule, subject, "tsv")

    @property
    def benchmarks(self) -> Path:
        """What every job took when it last ran."""
        return self.results / "benchmarks"

    def benchmarked(self, path: str | Path) -> tuple[str, str]:
        """Rule and subject of the job whose benchmark lies there."""
        name = Path(path).relative_to(self.benchmarks).with_suffix("").as_posix()
        rule, _, subject = name.partition("/")
        return rule, subject

    @property
    def tracking(self) -> Path:
        """Spools of metrics, until and after MLflow has them."""
        return self.results / "tracking"

    @property
    def records(self) -> Path:
        """Snakemake's records of this run's files, which travel with them."""
        return self.results / "records.json"

    @property
    def aside(self) -> Path:
        """What other settings of this run left, in the same folders as beside it."""
        return self.results / "aside"

    def _note(self, kind: str, rule: str, subject: str, ending: str) -> Path:
        name = f"{rule}/{subject}" if subject else rule
        return self.results / kind / f"{name}.{ending}"


def checkpoint_name(percent: int) -> str:
    """File name of a checkpoint, without ending: "last", or "at050" half way through training."""
    return "last" if percent == 100 else f"at{percent:03d}"


def project_folder(name: str) -> Path:
    """A folder of the project: of this checkout, or as installed with the package."""
    package = Path(__file__).parent
    checkout = package.parents[1] / name
    return checkout if checkout.is_dir() else package / "project" / name
