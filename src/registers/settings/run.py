"""Everything that a run depends on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from registers.layout import Layout
from registers.settings.backbone_id import BackboneId
from registers.settings.data import DataSettings, WorldSettings
from registers.settings.questions import (
    BankSettings,
    DepthSettings,
    DiscoverySettings,
    LinearSettings,
    MapSettings,
    ProbeSettings,
    SegmentationSettings,
    ZeroshotSettings,
)
from registers.settings.recipes import Recipe, SizeSettings


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on. Made by `load`, passed around whole, never changed."""

    scale: str
    methods: tuple[str, ...]
    registers: tuple[int, ...]
    seeds: tuple[int, ...]
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "32-true", "bf16-mixed"]
    mlflow_uri: str
    data_root: str
    data: DataSettings
    image_size: int
    sizes: dict[str, SizeSettings]
    recipes: dict[str, Recipe]
    fractions: tuple[float, ...]
    size_study: tuple[
        str, ...
    ]  # sizes trained for Fig. 4c, with `size_study_method` and no registers
    world: WorldSettings = WorldSettings()
    bank: BankSettings = BankSettings()
    probes: ProbeSettings = ProbeSettings()
    linear: LinearSettings = LinearSettings()
    zeroshot: ZeroshotSettings = ZeroshotSettings()
    maps: MapSettings = MapSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    depth: DepthSettings = DepthSettings()
    cutoff: dict[str, float] = field(
        default_factory=dict
    )  # a hand-picked norm cut-off per method (paper: 150 for ViT-g)
    threads: int = 1  # per job; snakemake runs cores / threads jobs at a time
    workers: int = 0  # loader processes per training job
    checkpoint_every: int = 100  # steps between saves that a killed run resumes from
    log_every: int = 10
    # what to do with finished trainings whose code has changed since: keep them, or train them anew
    stale: Literal["keep", "retrain"] = "keep"

    @property
    def run(self) -> str:
        """Folder name of this run's results: the scale, and the data set when it is not the scale's own."""
        return self.scale + (f"-{self.data_name}" if self.data_name else "")

    data_name: str = ""

    @property
    def results(self) -> Path:
        """Everything this run writes, the three doors among it."""
        return Path("results") / self.run

    @property
    def layout(self) -> Layout:
        """Where the files of this run lie."""
        return Layout(self.results)

    def cutoff_of(self, backbone: str) -> float | None:
        """The hand-picked norm cut-off of a backbone's method; None: to be found from the norms."""
        return self.cutoff.get(BackboneId.parse(backbone).method)
