"""Settings: params.yaml and one scale file, checked before any job starts.

Every mistake is a `ConfigError` with one line that names the key, its value and what is allowed.
"""

import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from registers.schema import ConfigError, at_least, each_of, merged, nearest, only_known, override, read_yaml, show, typed

METHODS = ("deit3", "openclip", "dinov2", "dino", "mae")  # one file each in methods/
MAIN_METHODS = ("deit3", "openclip", "dinov2")  # the three ways of training of the paper, section 3.1
SIZES = ("tiny", "small", "base", "large", "huge", "giant")  # paper, section 2.1 and Fig. 4c
PICTURES = ("labels", "text", "images", "eval")  # roles of data sets of pictures; the other roles are those of TRUTHS
TRUTHS = {  # kinds of data sets with masks, depth or boxes by role, read by data/truth_sets.py
    "segmentation": ("world", "ade20k", "voc2012", "coco", "semantic"),
    "depth": ("world", "nyud"),
    "discovery": ("world", "voc2007", "voc2012", "coco20k", "coco"),
}
DOWNLOADABLE = ("cifar10",)  # image folders that data/download.py can fetch: "folder:cifar10" needs nothing else
SCALES = Path(__file__).resolve().parents[2] / "workflow" / "scales"


# --- the schema: each class is one level of the YAML files; types and ranges are checked from the annotations ----------


@dataclass(frozen=True)
class Size:
    """One rung of the ladder of model sizes. drop_path is a property of the size, as in DeiT-III (S 0.05, B 0.1, L 0.3)."""

    width: int = at_least(1)
    depth: int = at_least(1)
    heads: int = at_least(1)
    drop_path: float = at_least(0, 0.0)
    ffn: Literal["mlp", "swiglu"] = "mlp"


@dataclass(frozen=True)
class Recipe:
    """What a scale decides of a method: sizes and lengths. lr is the peak rate for this batch and length."""

    size: str
    patch: int = at_least(1)
    steps: int = at_least(1)
    batch: int = at_least(1)
    lr: float = at_least(0)
    warmup: int = at_least(0)


@dataclass(frozen=True)
class Deit3(Recipe):
    recipe: Literal["in22k", "in1k"] = "in22k"
    layer_scale: float = at_least(0, 1e-4)  # initial value, deit models_v2.py


@dataclass(frozen=True)
class OpenClip(Recipe):
    embed: int = at_least(1, 512)
    context: int = at_least(3, 77)
    text_width: int = at_least(1, 512)
    text_depth: int = at_least(1, 12)
    text_heads: int = at_least(1, 8)
    vocabulary: Literal["full", "corpus"] = "full"  # corpus: only tokens that can occur get an embedding (same training, less memory)


@dataclass(frozen=True)
class Dinov2(Recipe):
    temperature_warmup: int = at_least(0, 0)  # steps over which the teacher temperature rises
    freeze_last_layer: int = at_least(0, 0)  # steps during which the heads' last layer stands still
    prototypes: int = at_least(2, 131072)
    head_hidden: int = at_least(1, 2048)
    dino_bottleneck: int = at_least(1, 384)
    ibot_bottleneck: int = at_least(1, 256)
    local_crops: int = at_least(0, 8)
    local_size: int = at_least(1, 98)
    layer_scale: float = at_least(0, 1e-5)  # initial value, vitl14.yaml; a run of a few hundred steps needs a larger one
    momentum: float = at_least(0, 0.994)  # of the teacher at the start, rising to 1; a short run needs a smaller one


@dataclass(frozen=True)
class Dino(Recipe):
    temperature_warmup: int = at_least(0, 0)
    freeze_last_layer: int = at_least(0, 0)
    prototypes: int = at_least(2, 65536)
    head_hidden: int = at_least(1, 2048)
    bottleneck: int = at_least(1, 256)
    local_crops: int = at_least(0, 8)
    local_size: int = at_least(1, 96)
    momentum: float = at_least(0, 0.996)  # of the teacher at the start, rising to 1; a short run needs a smaller one


@dataclass(frozen=True)
class Mae(Recipe):
    decoder_width: int = at_least(1, 512)
    decoder_depth: int = at_least(1, 8)
    decoder_heads: int = at_least(1, 16)


RECIPES: dict[str, type[Recipe]] = {"deit3": Deit3, "openclip": OpenClip, "dinov2": Dinov2, "dino": Dino, "mae": Mae}


@dataclass(frozen=True)
class Data:
    """Which data set plays which role: "world", "folder:PATH" (PATH/{train,val}/CLASS/*.jpg) or "shards:PATTERN" (WebDataset).

    labels trains DeiT-III, text OpenCLIP, images DINOv2, DINO and MAE; eval serves linear and zero-shot classification and
    the token bank. segmentation, depth and discovery (one or several sets) need sets with masks, depth and boxes in their own layouts,
    see TRUTHS, "ade20k:PATH"; they keep their own default. A relative PATH is taken from params.yaml's `data.root`.
    """

    labels: str = "world"
    text: str = "world"
    images: str = "world"
    eval: str = "world"
    segmentation: str = "world"
    depth: str = "world"
    discovery: tuple[str, ...] = ("world",)

    def specs(self, role: str) -> tuple[str, ...]:
        """The data sets of a role: one, or for discovery one or more."""
        given = getattr(self, role)
        return (given,) if isinstance(given, str) else given


@dataclass(frozen=True)
class World:
    """The embedded world: images per split and the pixels they are drawn at (recipes crop and resize to image_size)."""

    pixels: int = at_least(8, 64)
    train: int = at_least(1, 4096)
    val: int = at_least(1, 1024)
    test: int = at_least(1, 1024)


@dataclass(frozen=True)
class Bank:
    """The token bank: norms of all `images`; outputs, q, k, v and patch embeddings of the first `sample` of them."""

    images: int = at_least(1, 512)
    sample: int = at_least(1, 256)
    batch: int = at_least(1, 64)


@dataclass(frozen=True)
class Maps:
    """The pictures: how many images are shown, and their size in pixels (above image_size: "calculated in high resolution", Fig. 1)."""

    images: int = at_least(1, 8)
    size: int = at_least(1, 448)


@dataclass(frozen=True)
class Probes:
    """Linear models on single tokens (section 2.1): random choices of the token, and label sets by name (none named: all)."""

    draws: int = at_least(2, 5)  # the paper states the spread over the choice (Table 6), not how many
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Linear:
    """Linear classification on frozen features: the whole grid of heads is trained at once (protocol of DINOv2)."""

    train_images: int = at_least(1, 2048)
    val_images: int = at_least(1, 1024)
    iterations: int = at_least(1, 12500)
    batch: int = at_least(1, 1024)


@dataclass(frozen=True)
class ZeroShot:
    """Words of zero-shot classification (data/words.py). classes: own, or a file of names; templates: openai, CLIP's 80, or a file."""

    classes: str = "own"
    templates: str = "openai"


@dataclass(frozen=True)
class Discovery:
    """Object discovery with LOST: images looked at, and the grid over which facet, layer, normalisation and bias are tuned."""

    images: int = at_least(1, 100000)
    tune_images: int = at_least(1, 500)
    batch: int = at_least(1, 8)  # images of one grid that pass the backbone together
    k: int = at_least(1, 100)
    facets: tuple[str, ...] = ("k", "q", "v")
    normalisations: tuple[str, ...] = ("none", "l2", "centre+l2")
    layers: tuple[int, ...] = (-1, -2, -3, -4)  # counted from the end; the published one is -1
    biases: tuple[float, ...] = (-0.6, -0.4, -0.3, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1)  # in units of the mean squared norm of the features
    pictures: int = at_least(0, 4)  # images whose steps are kept for Figs. 13 and 14
    size: int = at_least(0, 0)  # short side in pixels; 0: as it is, as published (large photos in small patches need a smaller one)


@dataclass(frozen=True)
class Dense:
    """What the linear heads of segmentation and depth share. lr is for this batch and length.

    augment=False: frozen features of the training images are computed once and the head is trained on them (declared in the rows).
    """

    train_images: int = at_least(1, 100000)
    val_images: int = at_least(1, 100000)
    iterations: int = at_least(1, 40000)
    batch: int = at_least(1, 16)
    lr: float = at_least(0, 1e-3)
    weight_decay: float = at_least(0, 1e-4)
    warmup: int = at_least(0, 1500)
    augment: bool = True
    pictures: int = at_least(0, 4)  # validation images whose prediction is kept for looking at


@dataclass(frozen=True)
class Segmentation(Dense):
    """Linear segmentation; the defaults are ADE20k's (dinov2 and Denoising-ViT, linear configs): short side, crop and stride in pixels."""

    size: int = at_least(1, 512)
    crop: int = at_least(1, 512)
    stride: int = at_least(1, 341)


@dataclass(frozen=True)
class Depth(Dense):
    """Linear depth; the defaults are NYUd's (dinov2's depth configs). max_depth in the data's unit; size: short side, 0 = as it is."""

    iterations: int = at_least(1, 38400)
    lr: float = at_least(0, 1e-4)
    weight_decay: float = at_least(0, 0.01)
    warmup: int = at_least(0, 12800)
    size: int = at_least(0, 0)
    max_depth: float = at_least(0, 10.0)
    log_mean_only: int = at_least(0, 100)  # first iterations with the loss's mean term alone (SigLoss warm_up)
    crop: Literal["none", "eigen"] = "eigen"  # pixels that count: all, or Eigen's crop of 480 x 640


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
    data: Data
    image_size: int
    sizes: dict[str, Size]
    recipes: dict[str, Recipe]
    fractions: tuple[float, ...]
    size_study: tuple[str, ...]  # sizes trained for Fig. 4c, with `size_study_method` and no registers
    world: World = World()
    bank: Bank = Bank()
    probes: Probes = Probes()
    linear: Linear = Linear()
    zeroshot: ZeroShot = ZeroShot()
    maps: Maps = Maps()
    discovery: Discovery = Discovery()
    segmentation: Segmentation = Segmentation()
    depth: Depth = Depth()
    cutoff: dict[str, float] = field(default_factory=dict)  # a hand-picked norm cut-off per method (paper: 150 for ViT-g)
    threads: int = 1  # per job; snakemake runs cores / threads jobs at a time
    workers: int = 0  # loader processes per training job
    checkpoint_every: int = 100  # steps between saves that a killed run resumes from
    log_every: int = 10

    @property
    def run(self) -> str:
        """Folder name of this run's results: the scale, and the data set when it is not the scale's own."""
        return self.scale + (f"-{self.data_name}" if self.data_name else "")

    data_name: str = ""

    @property
    def results(self) -> Path:
        """Everything this run writes, the three doors among it."""
        return Path("results") / self.run


# --- names of backbones -------------------------------------------------------------------------------------------------

_ID = re.compile(r"(?P<method>[a-z0-9]+?)(-(?P<size>[a-z]+))?-r(?P<registers>\d+)-s(?P<seed>\d+)(?P<noaa>-noaa)?(-at(?P<percent>\d{3}))?")


@dataclass(frozen=True)
class BackboneId:
    """A trained backbone's name, which is also its path: {method}[-{size}]-r{registers}-s{seed}[-noaa][-at{percent}].

    noaa: position embeddings interpolated without antialiasing in training (Fig. 10). percent: a checkpoint on the way.
    """

    method: str
    registers: int
    seed: int
    size: str = ""
    noaa: bool = False
    percent: int = 100

    @classmethod
    def parse(cls, text: str) -> "BackboneId":
        found = _ID.fullmatch(text)
        if not found:
            raise ConfigError(f'backbone = "{text}": allowed are names like dinov2-r4-s0, dinov2-giant-r0-s0, dinov2-r0-s0-at050')
        part = found.groupdict()
        return cls(
            method=part["method"],
            registers=int(part["registers"]),
            seed=int(part["seed"]),
            size=part["size"] or "",
            noaa=bool(part["noaa"]),
            percent=int(part["percent"] or 100),
        )

    def __str__(self) -> str:
        size = f"-{self.size}" if self.size else ""
        at = f"-at{self.percent:03d}" if self.percent != 100 else ""
        return f"{self.method}{size}-r{self.registers}-s{self.seed}{'-noaa' if self.noaa else ''}{at}"

    @property
    def trained(self) -> "BackboneId":
        """The training run that this checkpoint belongs to."""
        return dataclasses.replace(self, percent=100)


# --- loading ------------------------------------------------------------------------------------------------------------


def load(params: str | Path | dict[str, Any] = "params.yaml", scale: str | None = None, scales: Path = SCALES) -> Settings:
    """Settings from params (a file or its content) and the scale it names, or one clear `ConfigError`."""
    given = params if isinstance(params, dict) else read_yaml(Path(params))
    allowed = {"scale", "methods", "registers", "seeds", "device", "precision", "mlflow_uri", "data", "overrides"}
    only_known("", given, allowed)
    name = scale or given.get("scale", "laptop")
    known = sorted(p.stem for p in scales.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"scale = {show(name)}: allowed are {', '.join(known)}{nearest(name, known)}")
    sizes_and_lengths = read_yaml(scales / f"{name}.yaml")
    if like := sizes_and_lengths.pop("like", None):  # another scale, of which this one changes some keys
        sizes_and_lengths = merged(read_yaml(scales / f"{like}.yaml"), sizes_and_lengths)
    sizes_and_lengths.pop("study", None)  # the sweep of the emergence study, see regime.py
    for key, value in (given.get("overrides") or {}).items():  # single numbers of the scale, e.g. recipes.dinov2.steps
        override(sizes_and_lengths, key, value, name)

    root, data_name, roles = _data(given.get("data"), sizes_and_lengths.pop("data", {}))
    recipes = sizes_and_lengths.pop("recipes", {})
    counts, only = given.get("registers", [0, 1, 2, 4, 8, 16]), sizes_and_lengths.pop("registers", None)
    if only and isinstance(counts, (list, tuple)):  # a scale may leave counts out to stay small; never all of them
        counts = [r for r in counts if r in only] or counts
    only_known("recipes", recipes, set(METHODS))
    fields = dict(
        scale=name,
        methods=given.get("methods", list(MAIN_METHODS)),
        registers=counts,
        seeds=given.get("seeds", [0]),
        device=given.get("device", "auto"),
        precision=given.get("precision", "auto"),
        mlflow_uri=given.get("mlflow_uri") or os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"),
        data_root=root,
        data=roles,
        data_name=data_name,
        recipes={m: typed(RECIPES[m], r, f"recipes.{m}") for m, r in recipes.items()},
    )
    clash = set(fields) & set(sizes_and_lengths)
    if clash:
        raise ConfigError(f"{name}.yaml: {', '.join(sorted(clash))} belongs in params.yaml")
    settings = typed(Settings, {**sizes_and_lengths, **fields}, "")
    _check(settings)
    return settings


def _data(chosen: Any, roles: dict[str, Any]) -> tuple[str, str, Data]:
    """params.yaml's `data`: {root, use}; `use` replaces the scale's data sets, all with one text or single roles by name."""
    chosen = {"use": chosen} if isinstance(chosen, str) else dict(chosen or {})
    only_known("data", chosen, {"root", "use"})
    use = chosen.get("use")
    names = [f.name for f in dataclasses.fields(Data)]
    if isinstance(use, str):
        use = dict.fromkeys(PICTURES, use)
    use = use or {}
    if not isinstance(use, dict):
        raise ConfigError(f"data.use = {show(use)}: allowed are one data set or a mapping of {', '.join(names)}")
    only_known("data.use", use, set(names))
    root = str(chosen.get("root") or "data")
    # another set of masks, depth or boxes trains nothing again: its results lie beside the others
    changed = {k: v for k, v in use.items() if k in PICTURES and v != roles.get(k, "world")}
    place = Path(str(next(iter(changed.values()), "")).partition(":")[2].removesuffix("/*.tar")) if changed else Path()
    data_name = re.sub(r"[^A-Za-z0-9]+", "-", place.name).strip("-").lower() or ("world" if changed else "")
    return root, data_name, typed(Data, {**roles, **use}, "data.use")


def _check(s: Settings) -> None:
    """What the types alone cannot say."""
    each_of(s.methods, "methods", MAIN_METHODS)
    for name, values, low in (("registers", s.registers, 0), ("seeds", s.seeds, 0)):
        if not values or len(set(values)) != len(values):
            raise ConfigError(f"{name} = {list(values)}: allowed is a list of different numbers, at least one")
        for value in values:
            if value < low:
                raise ConfigError(f"{name} = {value}: allowed are whole numbers from {low}")
    for method in s.methods:
        if method not in s.recipes:
            raise ConfigError(f"methods = {method}: scale {s.scale} has no recipes.{method}; allowed are {', '.join(s.recipes)}")
    for name, size in s.sizes.items():
        if name not in SIZES:
            raise ConfigError(f"sizes = {name}: allowed are {', '.join(SIZES)}")
        if size.width % size.heads:
            raise ConfigError(f"sizes.{name}.heads = {size.heads}: allowed are divisors of width {size.width}")
    for size in s.size_study:
        if size not in s.sizes:
            raise ConfigError(f"size_study = {size}: allowed are {', '.join(s.sizes)}")
    for method, recipe in s.recipes.items():
        if recipe.size not in s.sizes:
            raise ConfigError(f"recipes.{method}.size = {recipe.size}: allowed are {', '.join(s.sizes)}")
        for key in ("image_size", f"recipes.{method}.local_size"):
            pixels = s.image_size if key == "image_size" else getattr(recipe, "local_size", recipe.patch)
            if pixels % recipe.patch:
                raise ConfigError(f"{key} = {pixels}: allowed are multiples of recipes.{method}.patch {recipe.patch}")
        if recipe.warmup > recipe.steps:
            raise ConfigError(f"recipes.{method}.warmup = {recipe.warmup}: allowed are at most its {recipe.steps} steps")
    for fraction in s.fractions:
        if not 0 <= fraction < 1:
            raise ConfigError(f"fractions = {fraction}: allowed are numbers from 0 to below 1")
    if s.bank.sample > s.bank.images:
        raise ConfigError(f"bank.sample = {s.bank.sample}: allowed are at most bank.images {s.bank.images}")
    each_of(s.discovery.facets, "discovery.facets", Discovery.facets)
    each_of(s.discovery.normalisations, "discovery.normalisations", Discovery.normalisations)
    shallowest = min(s.sizes[s.recipes[m].size].depth for m in s.methods)
    for layer in s.discovery.layers:
        if not -shallowest <= layer <= -1:
            raise ConfigError(f"discovery.layers = {layer}: allowed are -1 (the last block) to -{shallowest}")
    for method in s.cutoff:
        if method not in METHODS:
            raise ConfigError(f"cutoff = {method}: allowed are {', '.join(METHODS)}")
    for role in PICTURES:
        spec = getattr(s.data, role)
        kind, _, place = spec.partition(":")
        if kind not in ("world", "folder", "shards") or (kind == "world") == bool(place):
            raise ConfigError(f'data.use.{role} = "{spec}": allowed are world, folder:PATH, shards:PATTERN')
    for role, kinds in TRUTHS.items():
        if not s.data.specs(role):
            raise ConfigError(f"data.use.{role} = []: allowed is at least one data set")
        for spec in s.data.specs(role):
            kind, _, place = spec.partition(":")
            if kind not in kinds or (kind == "world") == bool(place):
                raise ConfigError(f'data.use.{role} = "{spec}": allowed are {", ".join(k if k == "world" else f"{k}:PATH" for k in kinds)}')


def check_paths(s: Settings) -> None:
    """Data that a run needs must be there. Separate from `load`: a dry run of a scale needs no data."""
    for role in PICTURES:
        kind, _, place = getattr(s.data, role).partition(":")
        path = data_path(s, place)
        if kind == "folder" and not path.is_dir() and place not in DOWNLOADABLE:
            raise ConfigError(f'data.use.{role} = "folder:{place}": no such folder ({path}); allowed is a folder with train/CLASS/*')
        if kind == "shards" and not list(path.parent.glob(path.name)):
            raise ConfigError(f'data.use.{role} = "shards:{place}": no file matches ({path})')
    for role in TRUTHS:
        for spec in s.data.specs(role):
            path = data_path(s, spec.partition(":")[2])
            if spec != "world" and not path.is_dir():
                raise ConfigError(f'data.use.{role} = "{spec}": no such folder ({path}); allowed is a folder in the set\'s own layout')


def data_path(s: Settings, place: str) -> Path:
    """A data set's place: absolute or below `data.root`; ~ is the home folder."""
    path = Path(place).expanduser()
    return path if path.is_absolute() else Path(s.data_root).expanduser() / path
