"""From a word on the command line to a model that can be audited.

timm name                   vit_base_patch14_dinov2.lvd142m (of its default weights without a tag)
hf-hub:owner/name@revision  timm's or open_clip's files on the hub, pinned
open_clip:NAME/TAG          open_clip:ViT-B-16/laion2b_s34b_b88k, its image tower
dinov2_vitl14_reg           torch.hub's names of DINOv2; timm's code, the published file
PATH                        .safetensors, .pth, .pt, .bin, .npz; a checkpoint of this project; a
                            folder with timm's config.json
random:NAME                 timm's architecture at its random start: what a run costs

No code from any of these files is run, and nothing is left at a random start unseen.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from registers.audit import config as config_json
from registers.audit import edited_file, hub, infer, weights
from registers.audit.anatomy import Anatomy, anatomy_of
from registers.audit.errors import AuditError
from registers.audit.watched import ModelCard
from registers.data.transforms import IMAGENET, Normalization
from registers.models.backbone import Backbone
from registers.settings.errors import nearest, one_of

SIZE = 224  # pixels, where a model's own size is larger: a first answer within a minute
Size = tuple[int, int]


@dataclass(frozen=True)
class LoadedModel:
    """A model with all that is needed to show it images.

    normalization: mean and deviation of its input. size: height and width of its images in pixels.
    """

    card: ModelCard
    module: nn.Module
    anatomy: Anatomy
    normalization: Normalization
    size: Size


def load(name: str, arch: str = "", size: Size | None = None) -> LoadedModel:
    """The model of a name, see above, in evaluation mode on the CPU.

    arch: timm's name of the architecture, for files that do not say it. size: of the images;
    default: the model's own up to 256 pixels, else 224 (or the nearest that its patches divide).
    Raises AuditError in one line.
    """
    scheme, _, rest = name.partition(":")
    path = Path(name).expanduser()
    if scheme == "hf-hub":
        return _from_hub(name, rest, size)
    if scheme == "open_clip":
        return _from_open_clip(name, rest, size)
    if scheme == "random":
        return _random(name, rest, size)
    if hub.dinov2_timm_name(name):
        file = hub.fetch_dinov2(name)
        model, default = _build(hub.dinov2_timm_name(name), size)
        return _timm(name, model, file, default, "torch.hub's file in timm's code")
    if path.exists():
        return _from_path(name, path, arch, size)
    if timm.is_model(name.partition(".")[0]):
        return _from_timm(name, size)
    raise AuditError(_unknown(name))


def load_module(module: nn.Module, name: str = "", size: Size | None = None) -> LoadedModel:
    """A model that is there as an object: timm's, open_clip's, a Backbone, or alike."""
    anatomy = anatomy_of(module)
    notes: tuple[str, ...] = ()
    if isinstance(module, Backbone):
        normalization = module.normalization
        own = _own_size(module.vit, (module.architecture.image,) * 2)
    elif getattr(_tower(module), "pretrained_cfg", None):
        config = resolve_model_data_config(_tower(module))
        normalization = (tuple(config["mean"]), tuple(config["std"]))
        own = _own_size(_tower(module), tuple(config["input_size"][1:]))
    elif hasattr(module, "visual") and hasattr(module.visual, "image_mean"):
        normalization = (tuple(module.visual.image_mean), tuple(module.visual.image_std))
        own = _pair(module.visual.image_size)
    else:
        normalization = IMAGENET
        own = _pair(getattr(module, "image_size", SIZE))
        notes = ("images are normalised with ImageNet's mean and deviation; the model names none",)
    card = ModelCard(
        name=name or getattr(module, "name", "") or type(module).__name__,
        architecture=_words(anatomy, module),
        sha256=weights.tensors_digest(module),
        hashed="its tensors",
        source="an object in memory",
        notes=notes,
    )
    return LoadedModel(card, module, anatomy, normalization, size or own)


# --- each kind of name


def _from_timm(name: str, size: Size | None) -> LoadedModel:
    model, default = _build(name, size)
    config = model.pretrained_cfg
    repository = config.get("hf_hub_id")
    if not repository:
        raise AuditError(
            f"{name}: timm knows no weights of this name; must be one with a tag such as "
            f"{', '.join(timm.list_pretrained(name.partition('.')[0] + '*')[:3]) or 'none'}, or "
            f"random:{name}"
        )
    if repository == "timm/":
        repository += f"{config['architecture']}.{config['tag']}"
    repository, _, revision = repository.partition("@")
    names = (config["hf_hub_filename"],) if config.get("hf_hub_filename") else hub.WEIGHT_FILES
    file = hub.fetch(repository, names, revision or None)
    return _timm(name, model, file, default, f"https://huggingface.co/{repository}")


def _from_hub(name: str, place: str, size: Size | None) -> LoadedModel:
    repository, _, revision = place.partition("@")
    pin = revision or None
    if not repository:
        raise AuditError(f"{name}: must be hf-hub:OWNER/NAME or hf-hub:OWNER/NAME@REVISION")
    config_file = hub.fetch(repository, ("config.json", "open_clip_config.json"), pin).path
    config = config_json.read(config_file)
    if "model_cfg" in config:  # open_clip's
        file = hub.fetch(repository, hub.OPEN_CLIP_FILES, pin)
        return _open_clip(name, f"local-dir:{file.path.parent}", file, size, False)
    if "architecture" not in config:
        kind = f" of {config['model_type']}" if "model_type" in config else ""
        raise AuditError(
            f"{name}: its config.json{kind} is transformers' and names no architecture of timm; "
            "must be a repository of timm or open_clip (timm/... has most ViTs)"
        )
    model, default = _from_config(config, config_file, size)
    file = hub.fetch(repository, hub.WEIGHT_FILES, pin)
    return _timm(name, model, file, default, f"https://huggingface.co/{repository}")


def _from_open_clip(name: str, place: str, size: Size | None) -> LoadedModel:
    import open_clip

    architecture, _, tag = place.partition("/")
    if architecture not in open_clip.list_models():
        near = nearest(architecture, open_clip.list_models())
        raise AuditError(f"{name}: no model of open_clip{near}; must be open_clip:NAME/TAG")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise AuditError(f"{name}: the tag must be {one_of(tag, tags)}")
    repository, _, filename = config.get("hf_hub", "").partition("/")
    owner_name, _, filename = filename.partition("/")
    if not repository:
        raise AuditError(
            f"{name}: open_clip only has an address for it; fetch that file and give its path"
        )
    file = hub.fetch(f"{repository}/{owner_name}", (filename,) if filename else hub.OPEN_CLIP_FILES)
    return _open_clip(name, architecture, file, size, bool(config.get("quick_gelu")))


def _open_clip(
    name: str, architecture: str, file: hub.HubFile, size: Size | None, quick_gelu: bool
) -> LoadedModel:
    """open_clip's own model and loader, which reads with weights_only; its image tower is kept."""
    import open_clip

    arguments = {} if architecture.startswith("local-dir:") else {"pretrained": str(file.path)}
    model = open_clip.create_model(
        architecture, **arguments, force_quick_gelu=quick_gelu, force_image_size=size
    )
    loaded = load_module(model.eval().requires_grad_(False), name)
    card = _card(name, file, loaded.anatomy, model, "open_clip")
    return LoadedModel(card, model.visual, anatomy_of(model), loaded.normalization, loaded.size)


def _from_path(name: str, path: Path, arch: str, size: Size | None) -> LoadedModel:
    # --- a checkpoint of this project, or a folder of timm's
    if path.is_dir() and (path / "last.safetensors").is_file():
        path = path / "last.safetensors"
    if path.is_dir():
        return _from_folder(name, path, size)
    if path.suffix == ".safetensors" and edited_file.is_edited(path):
        edited = edited_file.load(path)
        vit = edited.vit
        loaded = load_module(vit, name, size)
        source = f"weights with a recipe: {edited.recipe.words()}"
        card = _card(name, hub.HubFile(path, ""), loaded.anatomy, vit, source)
        return LoadedModel(card, vit, loaded.anatomy, loaded.normalization, loaded.size)
    if path.suffix == ".safetensors" and is_ours(path.with_suffix(".json")):
        backbone = edited_file.load_checkpoint(path)
        loaded = load_module(backbone, backbone.name or name, size)
        card = _card(name, hub.HubFile(path, ""), loaded.anatomy, backbone, "this project")
        return LoadedModel(card, backbone, loaded.anatomy, loaded.normalization, loaded.size)
    if path.suffix not in weights.SUFFIXES:
        kinds = ", ".join(weights.SUFFIXES)
        raise AuditError(f"{path}: must end in one of {kinds} (weights) or in .npy (features)")

    # --- a file of weights, whose architecture is said or inferred
    file = hub.HubFile(path, "")
    if path.suffix == ".npz":
        if not arch:
            raise AuditError(f"{path}: an .npz names no architecture; name it with --arch")
        model, default = _build(arch, size)
        weights.check_kind(path)
        try:
            model.load_pretrained(str(path))
        except Exception as error:  # timm reads names that may be missing, of a file as it is
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise AuditError(f"{path}: damaged, or does not fit {arch} ({reason})") from None
        return _timm(name, model, file, default, str(path), fill=False)
    tensors = weights.read(path)
    inferred = not arch
    arch = arch or infer.architecture_of(tensors, path)
    model, default = _build(arch, size)
    note = (f"architecture inferred from shapes: {arch}",) if inferred else ()
    return _timm(name, model, file, default, str(path), tensors=tensors, notes=note)


def _from_folder(name: str, folder: Path, size: Size | None) -> LoadedModel:
    if not (folder / "config.json").is_file():
        raise AuditError(f"{folder}: holds neither last.safetensors nor timm's config.json")
    config = config_json.read(folder / "config.json")
    if "architecture" not in config:
        raise AuditError(f"{folder / 'config.json'}: names no architecture of timm")
    model, default = _from_config(config, folder / "config.json", size)
    for weight_file in hub.WEIGHT_FILES:
        if (folder / weight_file).is_file():
            return _timm(name, model, hub.HubFile(folder / weight_file, ""), default, str(folder))
    raise AuditError(f"{folder}: has none of {', '.join(hub.WEIGHT_FILES)}")


def _random(name: str, architecture: str, size: Size | None) -> LoadedModel:
    if not timm.is_model(architecture.partition(".")[0]):
        raise AuditError(_unknown(architecture, "random:"))
    torch.manual_seed(0)
    model, default = _build(architecture, size)
    loaded = load_module(model.eval().requires_grad_(False), name, default)
    notes = ("random weights: shows what an audit costs, and nothing about a trained model",)
    card = ModelCard(**{**loaded.card.__dict__, "source": "random (seed 0)", "notes": notes})
    return LoadedModel(card, model, loaded.anatomy, loaded.normalization, default)


# --- timm


def _build(name: str, size: Size | None, **arguments) -> tuple[nn.Module, Size]:
    """timm's model for images of this size, without weights, and the size."""
    base = name.partition(".")[0]
    if not timm.is_model(base):
        raise AuditError(_unknown(name, "arch = "))
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = ", ".join(timm.list_pretrained(f"{base}.*")) or "none"
        raise AuditError(f"{name}: timm knows no such tag; must be one of {tags}") from None
    native = tuple(config.input_size[1:]) if config else (SIZE, SIZE)
    patch = int(match[1]) if (match := re.search(r"_patch(\d+)(_|$)", base)) else 1
    size = size or tuple(side if side <= 256 else round(SIZE / patch) * patch for side in native)
    arguments = {"num_classes": 0, **arguments}
    try:
        return timm.create_model(name, pretrained=False, img_size=size, **arguments), size
    except TypeError:  # a ConvNet has no such argument; the anatomy says what it lacks
        try:
            return timm.create_model(name, pretrained=False, **arguments), size
        except TypeError as error:
            raise AuditError(f"{name}: cannot be built with {arguments} ({error})") from None
    except (AssertionError, ValueError, RuntimeError, ArithmeticError) as error:
        at = f"{size[0]}x{size[1]} pixels"
        raise AuditError(f"{name}: cannot be built for {at} ({error})") from None


def _from_config(content: dict, path: Path, size: Size | None) -> tuple[nn.Module, Size]:
    """timm's model as a config.json says, with its preprocessing."""
    config = config_json.checked(content, path)
    arguments = {k: v for k, v in config.model_args.items() if k != "img_size"}
    if size is None and "input_size" in config.preprocessing:
        own = config.preprocessing["input_size"][1:]
        size = own if max(own) <= 256 else None
    try:
        model, size = _build(config.architecture, size, **arguments)
    except AuditError as error:
        raise AuditError(f"{path}: {error}") from None
    model.pretrained_cfg = {**(model.pretrained_cfg or {}), **config.preprocessing}
    return model, size


def _timm(
    name: str,
    model: nn.Module,
    file: hub.HubFile,
    size: Size,
    source: str,
    tensors=None,
    notes: tuple[str, ...] = (),
    fill: bool = True,
) -> LoadedModel:
    """A model of timm filled with a file's tensors."""
    anatomy = anatomy_of(model)  # first: no need to read what cannot be audited
    if fill:
        tensors = weights.read(file.path) if tensors is None else tensors
        notes += weights.fill(model, tensors, file.path)
    model.eval().requires_grad_(False)
    config = resolve_model_data_config(model)
    native = tuple(config["input_size"][1:])
    if native != size:
        notes += (f"looked at {size[0]}x{size[1]} pixels; its own size is {native[0]}x{native[1]}",)
    if "quickgelu variant" in str((model.pretrained_cfg or {}).get("notes", "")).lower():
        notes += ("trained with QuickGELU: use timm's *_clip_quickgelu_* for exact activations",)
    normalization = (tuple(config["mean"]), tuple(config["std"]))
    card = _card(name, file, anatomy, model, source, notes)
    return LoadedModel(card, model, anatomy, normalization, size)


def _card(
    name: str,
    file: hub.HubFile,
    anatomy: Anatomy,
    module: nn.Module,
    source: str,
    notes: tuple[str, ...] = (),
) -> ModelCard:
    return ModelCard(
        name=name,
        architecture=_words(anatomy, module),
        sha256=weights.digest(file.path),
        hashed=file.path.name,
        revision=file.revision,
        source=source,
        licence=str((getattr(module, "pretrained_cfg", None) or {}).get("license") or ""),
        notes=notes,
    )


def _words(anatomy: Anatomy, module: nn.Module) -> str:
    """VisionTransformer, 12 blocks of width 768, patches of 14x14, [CLS] and 4 registers."""
    width = next(iter(anatomy.norm.parameters())).numel() if anatomy.norm is not None else 0
    size = f"{anatomy.depth} blocks" + (f" of width {width}" if width else "")
    prefix = ", ".join(anatomy.prefix) if len(anatomy.prefix) < 3 else ""
    registers = sum(name.startswith("register") for name in anatomy.prefix)
    if not prefix:
        others = [name for name in anatomy.prefix if not name.startswith("register")]
        prefix = ", ".join([*others, *([f"{registers} registers"] if registers else [])])
    down, across = anatomy.patch
    kind = type(_tower(module)).__name__
    return f"{kind}, {size}, patches of {down}x{across}, {prefix or 'no prefix tokens'}"


def _tower(module: nn.Module) -> nn.Module:
    for name in ("vit", "visual", "trunk"):
        module = getattr(module, name, module)
    return module


def _own_size(tower: nn.Module, published: Size) -> Size:
    """The size a model of timm was built for; a large one is not taken where any will do."""
    embedding = getattr(tower, "patch_embed", None)
    built = _pair(getattr(embedding, "img_size", None) or published)
    if getattr(tower, "dynamic_img_size", False) and max(built) > 256:
        down, across = _pair(embedding.patch_size)
        return round(SIZE / down) * down, round(SIZE / across) * across
    return built


def _pair(size) -> Size:
    return (size, size) if isinstance(size, int) else tuple(size)


def is_ours(card: Path) -> bool:
    """Whether a json is the card of a checkpoint of this project."""
    if not card.is_file():
        return False
    try:
        content = json.loads(card.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "architecture" in content and "timm" in content


def _unknown(name: str, after: str = "") -> str:
    """No such model. after: what a name stands behind that can only be timm's."""
    near = nearest(name.partition(".")[0], timm.list_models())
    if after:
        return f"{after}{name}: no model of timm{near}; must be a timm name"
    return (
        f"{name}: no such file and no model of timm{near}; must be a timm name, hf-hub:OWNER/NAME@"
        "REVISION, open_clip:NAME/TAG, a torch.hub name of DINOv2, or a path"
    )
