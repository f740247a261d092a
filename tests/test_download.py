import hashlib
import io
import pickle
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from registers.readers import download as module
from registers.readers.download import SETS, Archive, DownloadError, Set, download, extract, fetch
from registers.readers.image_folder import ImageFolder

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves server.files; cuts the first server.cuts answers short; obeys Range unless server.ignores_range."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if server.errors:
            return self.send_error(server.errors.pop(0))
        if self.path not in server.files:
            return self.send_error(404)
        content, start = server.files[self.path], 0
        if self.headers.get("Range") and not server.ignores_range:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cuts:
            server.cuts -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
        else:
            self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.cuts, server.ignores_range, server.asked, server.errors = (
        {"/set.bin": CONTENT},
        0,
        False,
        [],
        [],
    )
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(server, target: Path, **more) -> Path:
    return download(f"{server.url}/set.bin", target, progress=False, pause=0.01, **more)


def test_download_and_nothing_to_do(server, tmp_path):
    target = get(server, tmp_path / "a" / "set.bin", sha256=SHA256, md5=MD5)
    assert target.read_bytes() == CONTENT and [p.name for p in target.parent.iterdir()] == [
        "set.bin"
    ]
    get(server, target, sha256=SHA256)
    assert server.asked == [None]


def test_cut_connection_goes_on_where_it_stopped(server, tmp_path):
    server.cuts = 2
    assert get(server, tmp_path / "set.bin", sha256=SHA256).read_bytes() == CONTENT
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in server.asked[1:]]
    assert server.asked[0] is None and len(starts) == 2 and 0 < starts[0] < starts[1] < len(CONTENT)


def test_killed_call_is_resumed_by_the_next(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT[:1_000_000])
    assert get(server, tmp_path / "set.bin", md5=MD5).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000000-"]


def test_part_that_is_already_complete(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT)
    assert get(server, tmp_path / "set.bin", md5=MD5).read_bytes() == CONTENT


def test_part_longer_than_the_file_starts_over(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT + b"more")
    assert get(server, tmp_path / "set.bin", md5=MD5).read_bytes() == CONTENT


@pytest.mark.parametrize("cuts", [0, 1])
def test_server_that_ignores_range_starts_over(server, tmp_path, cuts):
    server.ignores_range, server.cuts = True, cuts
    (tmp_path / "set.bin.part").write_bytes(b"old" * 1000)
    assert get(server, tmp_path / "set.bin", sha256=SHA256).read_bytes() == CONTENT


def test_corrupted_file_is_deleted_and_named(server, tmp_path):
    server.files["/set.bin"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(
        DownloadError, match=f"set.bin: sha256 is [0-9a-f]+, expected {SHA256}; the file is deleted"
    ) as error:
        get(server, tmp_path / "set.bin", sha256=SHA256)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_wrong_complete_target_is_fetched_again(server, tmp_path):
    (tmp_path / "set.bin").write_bytes(b"old")
    assert get(server, tmp_path / "set.bin", md5=MD5).read_bytes() == CONTENT


def test_missing_file_and_busy_server(server, tmp_path):
    with pytest.raises(DownloadError, match=r"nothing.bin: the server answers 404"):
        download(f"{server.url}/nothing.bin", tmp_path / "x", progress=False, pause=0.01)
    assert len(server.asked) == 1  # no use in asking again
    server.errors = [503, 429]
    assert get(server, tmp_path / "set.bin", md5=MD5).read_bytes() == CONTENT


def test_gives_up_after_some_attempts_and_keeps_the_part(server, tmp_path):
    server.cuts = 99
    with pytest.raises(DownloadError, match=r"not complete after 3 attempts.*a next call goes on"):
        get(server, tmp_path / "set.bin", attempts=3)
    assert (tmp_path / "set.bin.part").read_bytes() == CONTENT[
        : (tmp_path / "set.bin.part").stat().st_size
    ]


def make_tar(path: Path, *members: tuple[str, bytes | str], kind: bytes = tarfile.SYMTYPE) -> Path:
    """Members (name, content); a text instead of bytes makes a link of `kind` to it."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = kind, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def make_zip(path: Path, *members: tuple[str, bytes], link: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            if link:
                info.external_attr = 0o120777 << 16
            archive.writestr(info, content)
    return path


def test_extract_is_complete(tmp_path):
    for archive in (
        make_tar(tmp_path / "a.tgz", ("d/x", b"1"), ("d/link", "x")),
        make_zip(tmp_path / "a.zip", ("d/x", b"1")),
    ):
        folder = extract(archive, tmp_path / archive.suffix)
        assert (folder / "d" / "x").read_bytes() == b"1"
        with pytest.raises(DownloadError, match="exists already"):
            extract(archive, folder)
    assert (tmp_path / ".tgz" / "d" / "link").read_bytes() == b"1"


@pytest.mark.parametrize(
    "members",
    [
        [("fine", b"1"), ("../evil", b"2")],
        [("fine", b"1"), ("a/../../evil", b"2")],
        [("/evil-absolute", b"2")],
        [("link", "/etc"), ("link/evil", b"2")],
        [("link", ".."), ("link/evil", b"2")],
        [("d/link", "../../evil")],
    ],
)
def test_malicious_tar_is_refused(tmp_path, members):
    (tmp_path / "in").mkdir()
    archive = make_tar(tmp_path / "in" / "evil.tgz", *members)
    with pytest.raises(DownloadError, match=r"evil.tgz: refused") as error:
        extract(archive, tmp_path / "in" / "out")
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "evil.tgz"] and not Path(
        "/evil-absolute"
    ).exists()


def test_hard_link_and_device_are_refused(tmp_path):
    (tmp_path / "secret").write_text("s")
    for kind, name in ((tarfile.LNKTYPE, "../secret"), (tarfile.CHRTYPE, "null")):
        archive = make_tar(tmp_path / "evil.tgz", ("x", name), kind=kind)
        with pytest.raises(DownloadError, match=r"evil.tgz: (refused|cannot be extracted)"):
            extract(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, link", [("../evil", False), ("/evil", False), ("a\\..\\..\\evil", False), ("link", True)]
)
def test_malicious_zip_is_refused(tmp_path, name, link):
    archive = make_zip(tmp_path / "evil.zip", ("fine", b"1"), (name, b"/etc"), link=link)
    with pytest.raises(DownloadError, match=r"evil.zip: refused"):
        extract(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["evil.zip"]


def test_broken_archive_is_one_line(tmp_path):
    whole = make_tar(tmp_path / "a.tgz", ("x", CONTENT)).read_bytes()
    for content in (whole[: len(whole) // 2], b"not an archive"):
        (tmp_path / "b.tgz").write_bytes(content)
        with pytest.raises(DownloadError, match=r"b.tgz: cannot be extracted"):
            extract(tmp_path / "b.tgz", tmp_path / "out")
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def cifar_like() -> tuple[bytes, dict[str, np.ndarray]]:
    """An archive as CIFAR-10's, two images per batch, and the pixels of the test images by class."""
    rng, members, tests = np.random.default_rng(1), [], {}
    names = [b"airplane", b"cat"]
    members.append(("cifar-10-batches-py/batches.meta", pickle.dumps({b"label_names": names})))
    for batch in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        data = rng.integers(0, 256, (2, 3072), np.uint8)
        members.append(
            (
                f"cifar-10-batches-py/{batch}",
                pickle.dumps({b"data": data, b"labels": [1, 0]}, protocol=2),
            )
        )
        tests = {"cat": data[0], "airplane": data[1]}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue(), tests


def test_fetch_cifar10_becomes_an_image_folder(server, tmp_path, monkeypatch):
    content, tests = cifar_like()
    server.files["/cifar.tar.gz"], server.cuts = content, 1
    archive = Archive(f"{server.url}/cifar.tar.gz", hashlib.md5(content).hexdigest())
    monkeypatch.setitem(SETS, "cifar10", Set((archive,), SETS["cifar10"].arrange, ""))
    folder = fetch("cifar10", tmp_path, progress=False)
    train, test = ImageFolder(folder, "train"), ImageFolder(folder, "val")
    assert len(train) == 10 and len(test) == 2 and train.classes == ("airplane", "cat")
    for sample in (test[0], test[1]):
        expected = tests[test.classes[sample.label]].reshape(3, 32, 32).transpose(1, 2, 0)
        assert (np.asarray(sample.image) == expected).all()
    asked = len(server.asked)
    assert fetch("cifar10", tmp_path, progress=False) == folder and len(server.asked) == asked
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archives", "cifar10"]


def test_fetch_voc_puts_both_archives_together(server, tmp_path, monkeypatch):
    archives = []
    for part in ("trainval", "test"):
        file = make_tar(
            tmp_path / f"{part}.tar",
            (f"VOCdevkit/VOC2007/JPEGImages/{part}.jpg", b"1"),
            ("VOCdevkit/VOC2007/README", b"2"),
        )
        server.files[f"/{part}.tar"] = file.read_bytes()
        archives.append(
            Archive(f"{server.url}/{part}.tar", hashlib.md5(file.read_bytes()).hexdigest())
        )
    monkeypatch.setitem(SETS, "voc2007", Set(tuple(archives), SETS["voc2007"].arrange, ""))
    folder = fetch("voc2007", tmp_path / "root", progress=False)
    assert sorted(p.name for p in (folder / "VOCdevkit/VOC2007/JPEGImages").iterdir()) == [
        "test.jpg",
        "trainval.jpg",
    ]


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(DownloadError, match="refused to load"):
        module._unpickle(tmp_path / "batch")
    assert not (tmp_path / "ran").exists()


def test_addresses_and_checksums_are_torchvisions():
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    ours = {a.url: a.md5 for chosen in SETS.values() for a in chosen.archives}
    theirs = {CIFAR10.url: CIFAR10.tgz_md5}
    theirs |= {
        DATASET_YEAR_DICT[year]["url"]: DATASET_YEAR_DICT[year]["md5"]
        for year in ("2007", "2007-test")
    }
    assert ours == theirs


def test_unknown_set_is_one_line(tmp_path):
    with pytest.raises(DownloadError, match="set = 'imagenet': allowed are cifar10, voc2007"):
        fetch("imagenet", tmp_path)
