"""Reading weights from a file without ever running code from it, and undoing wrappers.

.safetensors; .pth, .pt and .bin with `torch.load(weights_only=True)`; .npz as JAX's ViTs have it is
read by timm, without pickles. Nothing is unpickled: a file that holds more than tensors is refused.
"""

import hashlib
import pickle
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from registers.audit.errors import AuditError
from registers.files import sha256

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")
# Keys under which trainings keep the weights of a model; the teacher is DINO's and DINOv2's.
_HOLDERS = ("teacher", "model_ema", "state_dict_ema", "state_dict", "model")
# First bytes: what torch.save writes now, and wrote before; and what is no weights at all.
_ZIP, _PICKLE, _LFS = b"PK", b"\x80", b"version https://git-lfs"
_BEGINS = dict.fromkeys((".pth", ".pt", ".bin"), (_ZIP, _PICKLE)) | {".npz": (_ZIP,)}
_MARKUP = re.compile(rb"(\xef\xbb\xbf)?\s*<[A-Za-z!?]")
_ACCEPTED = "must be tensors by name, as safetensors, torch.save or (.npz) JAX's ViTs write them"
# What torch says of a pickle that would call something: which class or function.
_CALLS = re.compile(
    r"GLOBAL (\S+) (?:was not|whose)|function (.+)|allowlisted via .* but got (.+)|load (DTensors)"
)
_SOURCE = re.compile(r"^\[enforce fail at \S+\][. ]*")  # where in torch's own code
# Prefixes of wrappers, outermost first.
_PREFIXES = ("_orig_mod.", "module.", "teacher.backbone.", "teacher.", "backbone.", "visual.trunk.")
# What a backbone is saved with besides itself: dropped with a note.
_EXTRAS = ("head", "dino_head", "ibot_head", "fc_norm", "fc.", "decoder", "text", "mask_token")
# What a model may be without, as no block needs it.
_OPTIONAL = ("head", "fc_norm", "attn_pool", "mask_token")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return sha256(path)


def tensors_digest(module: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of a module's tensors, sorted by name."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {tuple(array.shape)} {array.dtype}\n".encode())
        sha.update(array.view(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b"")
    return sha.hexdigest()


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, out of their wrappers. Raises AuditError in one line."""
    return unwrapped(_content(path), path)


def check_kind(path: Path) -> None:
    """Raise AuditError where a file is, by its first bytes, something else than its name says."""
    head = first_bytes(path, "weights")
    if path.suffix == ".safetensors" and head[8:9] == b"{":  # its length may look like anything
        return
    refuse_page(head, path, "weights")
    if path.suffix in _BEGINS and not head.startswith(_BEGINS[path.suffix]):
        raise AuditError(f"{path}: damaged or not a file of weights ({begins(head)}); {_ACCEPTED}")


def first_bytes(path: Path, what: str) -> bytes:
    """The first 64 bytes of a file. what: the content, in messages.

    Raises AuditError for a file that cannot be read and for a pointer of Git LFS.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        raise AuditError(f"{path}: {_reason(error)}") from None
    if head.startswith(_LFS):
        raise AuditError(
            f"{path}: is a Git LFS pointer, not {what}; must be the file itself (git lfs pull)"
        )
    return head


def refuse_page(head: bytes, path: Path, what: str) -> None:
    """Raise AuditError where a file begins as a web page does."""
    if _MARKUP.match(head):
        raise AuditError(f"{path}: is an HTML page, not {what}; was the download refused?")


def begins(head: bytes) -> str:
    """A file's first bytes in words."""
    return f"it begins with {head[:8]!r}" if head else "it is empty"


def _content(path: Path) -> Any:
    check_kind(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about what it refuses in the next line
            return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise AuditError(f"{path}: damaged or not safetensors ({_line(error)})") from None
    except pickle.UnpicklingError as error:
        if not (called := _CALLS.search(str(error))):
            raise AuditError(
                f"{path}: damaged, or a pickle that torch.save did not write; {_ACCEPTED}"
            ) from None
        raise AuditError(
            f"{path}: not read, as it holds more than tensors and reading it would run code "
            f"({next(filter(None, called.groups()))[:80]}); save its state dict as safetensors "
            "where you trust it"
        ) from None
    except Exception as error:  # a damaged file raises a dozen kinds of errors inside torch
        if "TorchScript" in str(error):
            raise AuditError(
                f"{path}: is a TorchScript program, not weights; {_ACCEPTED}"
            ) from None
        raise AuditError(
            f"{path}: damaged or not a file of weights ({_line(error)}); {_ACCEPTED}"
        ) from None


def unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: under `teacher`, `model`, `state_dict`, without prefixes.

    Raises AuditError where there is none.
    """
    for _ in range(3):  # {"model": {"state_dict": ...}} and the like
        holder = next((key for key in _HOLDERS if isinstance(_get(content, key), dict)), None)
        if holder is None:
            break
        content = content[holder]
    tensors = {}
    if isinstance(content, dict):
        tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise AuditError(
            f"{path}: holds no state dict; must be tensors by name, or a dict with one under "
            f"{', '.join(_HOLDERS)}"
        )
    for prefix in _PREFIXES:
        inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        if any(_is_tower(key) for key in inside):
            tensors = inside
    if any(key.startswith("visual.blocks.") for key in tensors):
        tensors = {k[7:]: v for k, v in tensors.items() if k.startswith("visual.")}
    if "class_embedding" in tensors and "conv1.weight" in tensors:  # open_clip's tower alone
        tensors = {f"visual.{name}": tensor for name, tensor in tensors.items()}
    return {name: tensor.float() for name, tensor in tensors.items()}


def _is_tower(key: str) -> bool:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key.startswith(("blocks.", "patch_embed.", "transformer.resblocks.", "visual."))


def _get(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, dict) else None


def fill(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> tuple[str, ...]:
    """Load tensors into a timm model, through timm's own conversions. Returns notes.

    Every tensor that the blocks, embeddings and norms need must be there, in its shape: nothing is
    left at its random start. Raises AuditError otherwise.
    """
    tensors = converted(model, tensors, path)
    check(model, tensors, path)
    own = model.state_dict()
    usable = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(usable, strict=False)
    left = sorted({k.split(".")[0] for k in tensors if k not in usable} - {"mask_token"})
    return (f"left out of the file: {', '.join(left)}",) if left else ()


def converted(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors under timm's names: published files differ, and timm knows them."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            tensors = convert(dict(tensors), model)
        except (KeyError, RuntimeError, AttributeError, IndexError, AssertionError) as error:
            raise AuditError(
                f"{path}: does not fit {_name(model)} ({_line(error)}); name its architecture with "
                "--arch"
            ) from None
    if hasattr(model, "blocks") and not hasattr(model.blocks[0], "gamma_1"):
        for branch in ("1", "2"):  # LayerScale in DeiT-III's own files
            theirs = f".gamma_{branch}"
            tensors = {k.replace(theirs, f".ls{branch}.gamma"): v for k, v in tensors.items()}
    return tensors


def check(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Raise AuditError where converted tensors are not those of the model, heads apart."""
    own = model.state_dict()
    missing = [k for k in own if k not in tensors and not k.startswith(_OPTIONAL)]
    foreign = [k for k in tensors if k not in own and not k.startswith(_EXTRAS)]
    common = (k for k in own if k in tensors and not k.startswith("head"))
    wrong = [k for k in common if own[k].shape != tensors[k].shape]
    for verb, keys in (("lacks", missing), ("also has", foreign), ("has other shapes of", wrong)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise AuditError(
                f"{path}: does not fit {_name(model)}: it {verb} {', '.join(keys[:3])}{more}; "
                "--arch must be the architecture of these weights"
            )


def _name(model: nn.Module) -> str:
    return (getattr(model, "pretrained_cfg", None) or {}).get("architecture", type(model).__name__)


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"cannot be read ({error.strerror or error})"


def _line(error: Exception) -> str:
    """The first sentence of a library's message."""
    if isinstance(error, EOFError):
        return "it ends too early"
    text = _SOURCE.sub("", str(error).strip().partition("\n")[0]).partition(". ")[0]
    if not isinstance(error, RuntimeError | ValueError | OSError):  # KeyError's is the key alone
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= 160 else text[:157] + "..."
