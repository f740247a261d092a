"""Downloads of public data sets: `fetch("cifar10", root)` does it all.

The transfer is our own because torchvision's downloader starts over after each cut (CIFAR-10 has
170 MB, VOC 2007 900 MB on a slow server), falls back to http, and unpacks with a filter that
Python before 3.11.13 lets a chain of links escape from (CVE-2025-4517). Reading CIFAR-10 is
torchvision's, which verifies each batch before it is unpickled.
"""

import hashlib
import http.client
import lzma
import os
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image
from tqdm import tqdm

from registers.settings.errors import ConfigError, one_of, refusal

CHUNK = 1 << 20
ATTEMPTS = 5
UNPACKED = 8 << 30  # bytes that an archive may hold; VOC 2007, the largest set, has 0.9 GB


class DownloadError(ConfigError):
    """A file that could not be fetched, verified or extracted. One line."""


# --- fetching a file -----------------------------------------------------------------------------


def download(
    url: str,
    target: Path,
    md5: str | None = None,
    progress: bool = True,
    attempts: int = ATTEMPTS,
    pause: float = 1.0,
) -> Path:
    """Fetch url to target; returns target. A complete target with the right checksum stays.

    The bytes go to target.part; a cut connection is continued there (HTTP Range), and so is the
    part file of an earlier, killed call. A server that ignores Range starts over.

    md5: the expected checksum.
    progress: a bar, and a line for each attempt that failed.
    attempts: how often to ask, with growing pauses.
    pause: the first one, in seconds.

    Raises DownloadError, one line, when the server refuses, the connection stays away, or the
    checksum differs (then the file is deleted).
    """
    target = Path(target)
    if target.is_file() and _mismatch(target, md5) is None:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(attempts):
        try:
            _stream(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise DownloadError(
                    f"{url}: the server answers {error.code} {error.reason}"
                ) from None
            reason = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            reason = getattr(cause, "strerror", None) or str(cause) or type(error).__name__
        if attempt + 1 == attempts:
            advice = f"run it again to resume from {part}"
            if not part.is_file():
                at = f"run `curl -LO {url}` and bring the file to {target.parent}"
                advice = f"run it again, or where there is a network {at}"
            raise DownloadError(
                f"{url}: not complete after {attempts} attempts ({reason}); {advice}"
            ) from None
        wait = pause * 2**attempt
        if progress:
            again = f"attempt {attempt + 2} of {attempts} in {wait:.0f} s"
            print(f"{target.name}: {reason}; {again}", file=sys.stderr)
        time.sleep(wait)
    mismatch = _mismatch(part, md5)
    if mismatch:
        part.unlink()
        raise DownloadError(f"{url}: {mismatch}; the file is deleted")
    os.replace(part, target)
    return target


def _stream(url: str, part: Path, progress: bool) -> None:
    """Append what is missing of url to part. Raises IncompleteRead for an early end."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "registers"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return  # nothing is missing
        part.unlink()  # longer than the file at the server: another one
        return _stream(url, part, progress)
    with response:
        begins = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not (response.status == 206 and begins):
            have = 0  # Range ignored: everything comes again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(
            total=total,
            initial=have,
            unit="B",
            unit_scale=True,
            desc=part.stem,
            disable=not progress,
            mininterval=0.5,
        )
        with bar, open(part, "ab" if have else "wb") as out:
            while data := response.read1(CHUNK):
                out.write(data)
                bar.update(len(data))
            out.flush()
            os.fsync(out.fileno())
            if total is not None and out.tell() < total:
                raise http.client.IncompleteRead(b"", total - out.tell())


def _mismatch(path: Path, md5: str | None) -> str | None:
    """What is wrong with a file's checksum; None if it is right or none is expected."""
    if not md5:
        return None
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "md5").hexdigest()
    return None if actual == md5.lower() else f"md5 is {actual}, expected {md5.lower()}"


# --- opening an archive --------------------------------------------------------------------------


def extract(archive: Path, target: Path, limit: int = UNPACKED) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) into the folder target, which must not exist yet.

    All or nothing: it grows in target.partial and is renamed at the end; returns target. No data
    set needs links, so an archive with one is refused: chains of them lead outside.

    limit: how many bytes the files may take.

    Raises DownloadError for absolute paths, "..", links, devices, too many bytes, and archives
    that cannot be read; then nothing is left behind.
    """
    archive = Path(archive)
    target = Path(target)
    if target.exists():
        raise DownloadError(f"{target}: already exists; nothing was extracted")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with tarfile.open(archive) as source:
            for member in source:
                limit -= member.size
                problem = _problem(member) or ("it unpacks to too many bytes" if limit < 0 else "")
                if problem:
                    raise DownloadError(f"{archive}: refused, {problem}")
                source.extract(member, partial, filter="data")
        partial.rename(target)
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise DownloadError(f"{archive}: cannot be extracted ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _problem(member: tarfile.TarInfo) -> str:
    """Why a member may not be extracted; "" for a file or folder inside the target."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        return f"{member.name!r} points outside the target"
    if not (member.isfile() or member.isdir()):
        return f"{member.name!r} is a link or a device"
    return ""


# --- the sets ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    url: str
    md5: str


@dataclass(frozen=True)
class Set:
    """A data set: its archives and how their extracted folders become root/NAME."""

    archives: tuple[Archive, ...]
    arrange: Callable[[list[Path], Path], None]


def _arrange_cifar10(extracted: list[Path], target: Path) -> None:
    """The pickled batches as ImageNet's layout: target/{train,test}/CLASS/NNNNN.png."""
    from torchvision.datasets import CIFAR10

    for split in ("train", "test"):
        try:
            samples = CIFAR10(str(extracted[0]), train=split == "train")
        except (RuntimeError, OSError, ValueError) as error:
            raise DownloadError(f"{extracted[0]}: {error}") from None
        for name in samples.classes:
            if not name or name.startswith(".") or PurePosixPath(name).name != name:
                raise DownloadError(f"{extracted[0]}: refused, class {name!r} is no folder's name")
            (target / split / name).mkdir(parents=True)
        counts = dict.fromkeys(samples.classes, 0)
        pairs = zip(samples.data, samples.targets)
        for pixels, label in tqdm(pairs, f"cifar10 {split}", len(samples), mininterval=1):
            name = samples.classes[label]
            path = target / split / name / f"{counts[name]:05d}.png"
            Image.fromarray(pixels).save(path, compress_level=1)
            counts[name] += 1


def _arrange_voc(extracted: list[Path], target: Path) -> None:
    """Both archives hold VOCdevkit/VOC2007; their files are put together."""
    for folder in extracted:
        for path in _files(folder):
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)


def _files(folder: Path) -> Iterator[Path]:
    return (Path(base) / name for base, _, names in os.walk(folder) for name in names)


# Addresses and checksums as in torchvision 0.29, datasets/cifar.py and datasets/voc.py.
CIFAR = Archive(
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
)
VOC_TRAINVAL = Archive(
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
    "c52e279531787c972589f7e41ab4ae64",
)
VOC_TEST = Archive(
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
    "b6e924de25625d8de591ea690078ad9f",
)
SETS: dict[str, Set] = {
    "cifar10": Set((CIFAR,), _arrange_cifar10),
    "voc2007": Set((VOC_TRAINVAL, VOC_TEST), _arrange_voc),
}


def fetch(name: str, root: Path, progress: bool = True) -> Path:
    """Download, verify, extract and arrange a set of SETS into root/name; returns that folder.

    Does nothing where it is there already. Archives stay in root/archives, so that a killed call
    resumes. Raises ConfigError for a set that there is not, and DownloadError, one line.
    """
    if name not in SETS:
        raise refusal("set", name, one_of(name, SETS))
    root = Path(root)
    target = root / name
    if target.is_dir():
        return target
    extracted = []
    for number, archive in enumerate(SETS[name].archives):
        file = root / "archives" / archive.url.rpartition("/")[2]
        download(archive.url, file, md5=archive.md5, progress=progress)
        folder = root / "archives" / f"{name}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        extracted.append(extract(file, folder))
    partial = root / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    SETS[name].arrange(extracted, partial)
    partial.rename(target)
    for folder in extracted:
        shutil.rmtree(folder)
    return target
