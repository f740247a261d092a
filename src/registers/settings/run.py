"""Everything that a run depends on."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SerializeAsAny, model_validator

from registers.layout import Layout
from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.base import Distinct, Integer, PathText, Section, Text
from registers.settings.data import DataSettings, WorldSettings
from registers.settings.errors import UnsuitableError, one_of
from registers.settings.params import Choices
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
from registers.settings.recipes import SIZES, Form, SizeSettings


class ScaleSettings(Section):
    """What a scale decides: sizes and lengths."""

    image_size: Integer = Field(
        ge=1, description="Side of a training image in pixels, a multiple of every recipe's patch."
    )
    sizes: dict[str, SizeSettings] = Field(description=f"Model sizes, of {', '.join(SIZES)}.")
    recipes: dict[str, SerializeAsAny[Form]] = Field(
        description=f"How each method is trained, of {', '.join(METHODS)}."
    )
    models: tuple[Text, ...] = Field(
        (),
        description="Published models that are fetched, and nothing is trained: all, default, or "
        "ids of paper/released.yaml.",
    )
    fractions: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Distinct] = Field(
        description="Shares of a training after which a checkpoint is kept on the way (Fig. 4b)."
    )
    size_study: Annotated[tuple[Text, ...], Distinct] = Field(
        description="Sizes trained without registers for Fig. 4c."
    )
    data: DataSettings = Field(
        default_factory=DataSettings, description="The data set of each role."
    )
    world: WorldSettings = Field(default_factory=WorldSettings, description="The built-in world.")
    bank: BankSettings = Field(default_factory=BankSettings, description="The token bank.")
    probes: ProbeSettings = Field(
        default_factory=ProbeSettings, description="Probes of single tokens."
    )
    linear: LinearSettings = Field(
        default_factory=LinearSettings, description="Linear classification."
    )
    zeroshot: ZeroshotSettings = Field(
        default_factory=ZeroshotSettings, description="Zero-shot classification."
    )
    maps: MapSettings = Field(default_factory=MapSettings, description="Attention and norm maps.")
    discovery: DiscoverySettings = Field(
        default_factory=DiscoverySettings, description="Object discovery."
    )
    segmentation: SegmentationSettings = Field(
        default_factory=SegmentationSettings, description="Linear segmentation."
    )
    depth: DepthSettings = Field(default_factory=DepthSettings, description="Linear depth.")
    cutoff: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="A hand-picked norm cut-off for a method (paper: 150 for DINOv2's ViT-g); "
        "none: found from the norms.",
    )
    threads: Integer = Field(
        1, ge=1, description="Threads of a job; snakemake runs cores / threads jobs at a time."
    )
    workers: Integer = Field(0, ge=0, description="Loader processes of a training.")
    checkpoint_every: Integer = Field(
        100, ge=1, description="Steps between the states that a killed training resumes from."
    )
    log_every: Integer = Field(10, ge=1, description="Steps between two rows of the history.")

    @model_validator(mode="after")
    def _sizes_are_known(self):
        for name in self.sizes:
            if name not in SIZES:
                raise UnsuitableError("sizes", name, one_of(name, SIZES))
        for name in self.size_study:
            if name not in self.sizes:
                raise UnsuitableError("size_study", name, one_of(name, self.sizes))
        for method, recipe in self.recipes.items():
            if recipe.size not in self.sizes:
                must = one_of(recipe.size, self.sizes)
                raise UnsuitableError(f"recipes.{method}.size", recipe.size, must)
        return self

    @model_validator(mode="after")
    def _images_are_whole_patches(self):
        for method, recipe in self.recipes.items():
            for key, side in (("image_size", self.image_size), ("maps.size", self.maps.size)):
                if side % recipe.patch:
                    must = f"a multiple of recipes.{method}.patch {recipe.patch}"
                    raise UnsuitableError(key, side, must)
        return self

    @model_validator(mode="after")
    def _positions_fit_the_width_of_mae(self):
        """MAE's fixed position embedding takes sines and cosines of two coordinates."""
        for name in [self.recipes["mae"].size] if "mae" in self.recipes else []:
            if self.sizes[name].width % 4:
                must = "a multiple of 4, as recipes.mae uses this size"
                raise UnsuitableError(f"sizes.{name}.width", self.sizes[name].width, must)
        return self

    @model_validator(mode="after")
    def _fractions_have_names_of_their_own(self):
        """A checkpoint on the way is called by its whole per cent: at050."""
        percents = [round(100 * fraction) for fraction in self.fractions]
        for place, (fraction, percent) in enumerate(zip(self.fractions, percents)):
            if percent == 100:
                raise UnsuitableError("fractions", fraction, "a number from 0 to below 0.995")
            if percent in percents[:place]:
                must = "at least one per cent away from the others"
                raise UnsuitableError("fractions", fraction, must)
        return self

    @model_validator(mode="after")
    def _cutoffs_are_of_methods(self):
        for method in self.cutoff:
            if method not in METHODS:
                raise UnsuitableError("cutoff", method, one_of(method, METHODS))
        return self

    @model_validator(mode="after")
    def _eigen_crops_photos_alone(self):
        if self.depth.crop == "eigen" and self.data.depth == "world":
            must = "none with the built-in world: Eigen's crop is one of 480 x 640 pixels"
            raise UnsuitableError("depth.crop", self.depth.crop, must)
        return self


class Settings(Choices, ScaleSettings):
    """Everything that a run depends on. Made by `load`, passed around whole, never changed."""

    data_root: PathText = Field("data", description="Folder of the data sets.")
    data_name: Text = Field("", description="Name of the data that replaces the scale's own.")

    @model_validator(mode="after")
    def _methods_have_recipes(self):
        for method in self.methods:
            if method not in self.recipes:
                must = f"{one_of(method, self.recipes)}, the recipes of scale {self.scale}"
                raise UnsuitableError("methods", method, must)
        return self

    @model_validator(mode="after")
    def _discovery_looks_at_blocks_that_exist(self):
        blocks = min(self.sizes[self.recipes[method].size].depth for method in self.methods)
        for layer in self.discovery.layers:
            if layer < -blocks:
                must = f"an integer from -1 (the last block) to -{blocks}"
                raise UnsuitableError("discovery.layers", layer, must)
        return self

    @property
    def run(self) -> str:
        """Folder name of the results: the scale, and the data set if it is not the scale's own."""
        return self.scale + (f"-{self.data_name}" if self.data_name else "")

    @property
    def results(self) -> Path:
        """Folder of everything that this run writes."""
        return Path("results") / self.run

    @property
    def layout(self) -> Layout:
        """Where the files of this run lie."""
        return Layout(self.results)

    def cutoff_of(self, backbone: str) -> float | None:
        """The hand-picked norm cut-off of a backbone's method; None: to be found from the norms."""
        return self.cutoff.get(BackboneId.parse(backbone).method)
