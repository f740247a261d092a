"""Getting weights from where they are published, or saying in one line what is missing.

huggingface_hub finds, authorises and caches, and honours HF_HOME, HF_ENDPOINT, HF_TOKEN and
HF_HUB_OFFLINE. Its version 2.4 throws a file away that was cut off (_download_to_tmp_and_move); of
weights the part that came is kept here, to 10 MB, beside its place in the cache, the next call asks
for the rest, and the whole is held against the SHA-256 that the hub announces. Without network the
line names the command that fetches the file elsewhere and the folder to bring along.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from registers.audit.errors import AuditError
from registers.files import sha256

MB = 2**20
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".bin")
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
DINOV2_URL = "https://dl.fbaipublicfiles.com/dinov2/{base}/{base}{reg}_pretrain.pth"
# torch.hub names of facebookresearch/dinov2 (hubconf.py): timm's name of the same architecture
_DINOV2 = re.compile(r"dinov2_vit([sblg])14(_reg)?$")
_SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}


class HubFile(NamedTuple):
    """A file on this machine, and the 40-digit revision of its repository ("" if unknown)."""

    path: Path
    revision: str


def fetch(repository: str, names: tuple[str, ...], revision: str | None = None) -> HubFile:
    """The first of these files that a repository has, from the cache or the network.

    Raises AuditError in one line: no network, no such repository or revision, a gated one.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at {revision}" if revision else ""
    for name in names:
        try:
            with _a_line_each_attempt():
                if Path(name).suffix in SUFFIXES:
                    _resume(repository, name, revision)
                path = Path(hf_hub_download(repository, name, revision=revision))
        except LocalEntryNotFoundError as error:
            if any(cached(repository, other, revision) for other in names):
                continue
            raise AuditError(_missing(repository, names[0], revision, _why(error))) from None
        except GatedRepoError:
            raise AuditError(
                f"{repository}{at}: gated; accept its licence on https://huggingface.co/"
                f"{repository} and set HF_TOKEN to a token of that account"
            ) from None
        except RepositoryNotFoundError:
            raise AuditError(
                f"{repository}: no such repository on the hub, or a private one (set HF_TOKEN)"
            ) from None
        except RevisionNotFoundError:
            raise AuditError(f"{repository}: has no revision {revision}") from None
        except EntryNotFoundError:
            continue
        except HFValidationError as error:
            raise AuditError(f"{repository}: not a name of a repository ({error})") from None
        except HTTPError as error:
            reason = f"{type(error).__name__}: {_line(error)}"
            raise AuditError(_missing(repository, names[0], revision, reason)) from None
        except OSError as error:  # a full disk, a folder that cannot be written
            raise AuditError(
                f"{repository}: {name} could not be stored ({_line(error)}); what was fetched is "
                "kept: run again to resume"
            ) from None
        return HubFile(path, _revision(path))
    raise AuditError(f"{repository}{at}: has none of {', '.join(names)}")


def cached(repository: str, name: str, revision: str | None) -> bool:
    """Whether a file of a repository is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, name, revision=revision), str)


def commit(repository: str, revision: str) -> str:
    """The commit that a branch of a repository is at; "" where the hub does not say."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(repository, WEIGHT_FILES[0], revision=revision)
    try:
        return get_hf_file_metadata(url, headers=build_hf_headers()).commit_hash or ""
    except (HTTPError, OSError, ValueError):
        return ""


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the hub."""
    return os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")


def _why(error: Exception) -> str:
    """Why the hub could not be asked."""
    if is_offline():
        return "HF_HUB_OFFLINE is set"
    response = getattr(error.__cause__, "response", None)
    return f"the hub answered {response.status_code}" if response is not None else "no network"


def _resume(repository: str, name: str, revision: str | None) -> None:
    """Put a file where huggingface_hub's cache keeps it, going on where a call was cut off.

    Does nothing where it is there, or where the hub cannot be asked: huggingface_hub then takes
    what the cache has, or says what is wrong. Raises AuditError for a file that was cut off, is not
    the one announced, or does not fit the disk.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    # --- what the hub has
    pinned = bool(revision and re.fullmatch(r"[0-9a-f]{40}", revision))
    if is_offline() or (pinned and cached(repository, name, revision)):
        return
    url = hf_hub_url(repository, name, revision=revision)
    headers = build_hf_headers()
    try:
        metadata = get_hf_file_metadata(url, headers=headers)
    except (HTTPError, OSError, ValueError):
        return
    if not metadata.etag or not metadata.size:
        return
    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / metadata.etag
    if blob.is_file():
        return

    # --- the rest of it
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f"{blob.name}.part")
    there = partial.stat().st_size if partial.is_file() else 0
    free = shutil.disk_usage(blob.parent).free
    if free < metadata.size - there:
        raise AuditError(
            f"{repository}: {name} needs {(metadata.size - there) / MB:.0f} MB more, and "
            f"{free / MB:.0f} MB are free at {blob.parent}; free some space there, or set HF_HOME "
            "to a folder on another disk; what was fetched is kept"
        )
    if metadata.location != url:  # another host, which our token does not concern
        headers.pop("authorization", None)
    try:
        with open(partial, "ab") as file:
            http_get(
                metadata.location,
                file,
                resume_size=there,
                headers=headers,
                expected_size=metadata.size,
                displayed_filename=f"{repository} {name}",
            )
    except (HTTPError, OSError) as error:
        there = partial.stat().st_size
        raise AuditError(
            f"{repository}: {name} was cut off at {there / MB:.1f} of {metadata.size / MB:.1f} MB "
            f"({_line(error)}); what was fetched is kept: run again to resume"
        ) from None

    # --- is it what was announced
    if re.fullmatch(r"[0-9a-f]{64}", metadata.etag) and sha256(partial) != metadata.etag:
        partial.unlink()
        raise AuditError(
            f"{repository}: {name} arrived damaged, its SHA-256 is not the one that the hub "
            "announces; it was thrown away: run again to fetch it anew"
        )
    os.replace(partial, blob)


class _OneLine(logging.Filter):
    """One line for an attempt that failed, where huggingface_hub logs two: why, and when again."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = "not reached"

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        reason, thrown, _ = text.partition(" thrown while requesting ")
        if thrown:
            self.reason = re.sub(r"^\[Errno -?\d+\] ", "", reason.strip("'"))
            return False
        if again := re.match(r"Retrying in ([\d.]+)s \[Retry (\d+)/(\d+)\]", text):
            wait, retry, retries = again.groups()
            record.msg = f"hub: {self.reason}; retry {retry} of {retries} in {wait} s"
            record.args = ()
        return True


@contextmanager
def _a_line_each_attempt() -> Iterator[None]:
    logger = logging.getLogger("huggingface_hub.utils._http")
    one_line = _OneLine()
    logger.addFilter(one_line)
    try:
        yield
    finally:
        logger.removeFilter(one_line)


def _missing(repository: str, name: str, revision: str | None, why: str) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    pin = f" --revision {revision}" if revision else ""
    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    return (
        f"{repository}: {name} is not on this machine and cannot be fetched ({why}); where there "
        f"is a network run `hf download {repository} {name}{pin}` and bring its folder to {folder}"
    )


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160]


def _revision(path: Path) -> str:
    """The commit in the path of a cached file, .../snapshots/<40 digits>/name."""
    match = re.search(r"/snapshots/([0-9a-f]{40})/", path.as_posix())
    return match[1] if match else ""


# --- torch.hub's DINOv2


def dinov2_timm_name(name: str) -> str | None:
    """timm's name for a torch.hub name of DINOv2 (dinov2_vitl14_reg); None for other names."""
    match = _DINOV2.match(name)
    if not match:
        return None
    return f"vit_{_SIZES[match[1]]}_patch14_{'reg4_' if match[2] else ''}dinov2.lvd142m"


def fetch_dinov2(name: str) -> HubFile:
    """The file of a torch.hub model of DINOv2, from torch.hub's cache or the network.

    The repository's code is not run. Raises AuditError in one line where it cannot be had.
    """
    import torch

    match = _DINOV2.match(name)
    url = DINOV2_URL.format(base=f"dinov2_vit{match[1]}14", reg="_reg4" if match[2] else "")
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        try:
            if is_offline():
                raise OSError("HF_HUB_OFFLINE is set")
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=True)
        except OSError as error:
            why = getattr(error, "reason", error)  # URLError's is the error below it
            why = getattr(why, "strerror", None) or why
            raise AuditError(
                f"{name}: {path.name} is not on this machine and cannot be fetched ({why}); "
                f"where there is a network run `curl -LO {url}` and bring the file to {path.parent}"
            ) from None
    return HubFile(path, "")
