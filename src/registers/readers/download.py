"""Downloads of public data sets: checksum, resume, progress bar, safe extraction. `fetch("cifar10", root)` does it all."""

import hashlib
import http.client
import io
import lzma
import os
import pickle
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

CHUNK = 1 << 20
ATTEMPTS = 5


class DownloadError(RuntimeError):
    """A file that could not be fetched, verified or extracted. One line."""


# --- fetching a file -----------------------------------------------------------------------------------------------------


def download(
    url: str,
    target: Path,
    sha256: str | None = None,
    md5: str | None = None,
    progress: bool = True,
    attempts: int = ATTEMPTS,
    pause: float = 1.0,
) -> Path:
    """Fetch url to target; returns target. A complete target with the right checksum is kept as it is.

    The bytes go to target.part; a cut connection is continued there (HTTP Range), up to `attempts` times with growing
    pauses in seconds, and so is the part file of an earlier, killed call. A server that ignores Range starts over. Raises
    DownloadError, one line, when the server says no, the connection stays away, or the checksum differs (file deleted).
    """
    target = Path(target)
    if target.is_file() and _mismatch(target, sha256, md5) is None:
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
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if attempt + 1 == attempts:
            raise DownloadError(
                f"{url}: not complete after {attempts} attempts ({reason}); {part} is kept, a next call goes on"
            ) from None
        time.sleep(pause * 2**attempt)
    wrong = _mismatch(part, sha256, md5)
    if wrong:
        part.unlink()
        raise DownloadError(f"{url}: {wrong}; the file is deleted")
    os.replace(part, target)
    return target


def _stream(url: str, part: Path, progress: bool) -> None:
    """Append what is missing of url to part. Raises IncompleteRead where the connection ends early."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "registers", **({"Range": f"bytes={have}-"} if have else {})}
    )
    try:
        response = urllib.request.urlopen(request, timeout=60)
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


def _mismatch(path: Path, sha256: str | None, md5: str | None) -> str | None:
    for name, expected in (("sha256", sha256), ("md5", md5)):
        if expected:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, name).hexdigest()
            if found != expected.lower():
                return f"{name} is {found}, expected {expected.lower()}"
    return None


# --- opening an archive --------------------------------------------------------------------------------------------------


def extract(archive: Path, target: Path) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) or zip into the folder target, which must not exist yet; returns target.

    All or nothing: it grows in target.partial and is renamed at the end. Raises DownloadError for absolute paths, "..",
    links that point outside, devices, and archives that cannot be read; then nothing is left behind.
    """
    archive, target = Path(archive), Path(target)
    if target.exists():
        raise DownloadError(f"{target}: exists already; nothing extracted")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, partial)
        else:
            _extract_tar(archive, partial)
        partial.rename(target)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
    ) as error:
        raise DownloadError(f"{archive}: cannot be extracted ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _inside(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise DownloadError(f"{archive}: refused, {name!r} points outside the target")


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        for member in source.infolist():
            _inside(archive, member.filename)
            if member.external_attr >> 28 == 0o12:  # a symbolic link
                raise DownloadError(f"{archive}: refused, {member.filename!r} is a link")
        source.extractall(folder)


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as source:
        for member in source:
            _inside(archive, member.name)
            try:
                # the filter of PEP 706 also follows links, those made by earlier members too
                source.extract(member, folder, filter="data")
            except tarfile.FilterError as error:
                raise DownloadError(f"{archive}: refused, {' '.join(str(error).split())}") from None


# --- the sets ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    url: str
    md5: str


@dataclass(frozen=True)
class Set:
    """A data set: its archives and how their extracted folders become root/NAME."""

    archives: tuple[Archive, ...]
    arrange: Callable[[list[Path], Path], None]
    home: str


def _arrange_cifar10(extracted: list[Path], target: Path) -> None:
    """The pickled batches as ImageNet's layout: target/{train,test}/CLASS/NNNNN.png."""
    source = extracted[0] / "cifar-10-batches-py"
    names = [name.decode() for name in _unpickle(source / "batches.meta")[b"label_names"]]
    for split, batches in (
        ("train", [f"data_batch_{i}" for i in range(1, 6)]),
        ("test", ["test_batch"]),
    ):
        counts = dict.fromkeys(names, 0)
        for name in names:
            (target / split / name).mkdir(parents=True)
        for batch in batches:
            content = _unpickle(source / batch)
            pixels = (
                np.asarray(content[b"data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            )
            for image, label in zip(
                tqdm(pixels, desc=f"cifar10 {batch}", unit="image", mininterval=1),
                content[b"labels"],
            ):
                name = names[label]
                Image.fromarray(np.ascontiguousarray(image)).save(
                    target / split / name / f"{counts[name]:05d}.png", compress_level=1
                )
                counts[name] += 1


class _PlainUnpickler(pickle.Unpickler):
    """Only what CIFAR's files hold: containers, numbers, bytes and numpy arrays. Anything else could run code."""

    allowed = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str):
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.zeros(0).__reduce__()[0]
        if (module, name) in self.allowed:
            return super().find_class(module, name)
        raise DownloadError(f"refused to load {module}.{name} from a pickle")


def _unpickle(path: Path) -> dict:
    return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()


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
SETS: dict[str, Set] = {
    "cifar10": Set(
        (
            Archive(
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a",
            ),
        ),
        _arrange_cifar10,
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "voc2007": Set(
        (
            Archive(
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
                "c52e279531787c972589f7e41ab4ae64",
            ),
            Archive(
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
                "b6e924de25625d8de591ea690078ad9f",
            ),
        ),
        _arrange_voc,
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
    ),
}


def fetch(name: str, root: Path, progress: bool = True) -> Path:
    """Download, verify, extract and arrange a set of SETS into root/name; returns that folder. Done already: does nothing.

    Archives are kept in root/archives, so that a killed call goes on. Raises DownloadError, one line.
    """
    if name not in SETS:
        raise DownloadError(f"set = {name!r}: allowed are {', '.join(SETS)}")
    root, chosen = Path(root), SETS[name]
    target = root / name
    if target.is_dir():
        return target
    extracted, partial = [], root / f"{name}.partial"
    for number, archive in enumerate(chosen.archives):
        file = download(
            archive.url,
            root / "archives" / archive.url.rpartition("/")[2],
            md5=archive.md5,
            progress=progress,
        )
        folder = root / "archives" / f"{name}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        extracted.append(extract(file, folder))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    chosen.arrange(extracted, partial)
    partial.rename(target)
    for folder in extracted:
        shutil.rmtree(folder)
    return target
