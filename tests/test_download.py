"""Downloads: resumed, verified and unpacked without a byte outside, from a server of our own."""

import hashlib
import io
import pickle
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from registers.readers.download import SETS, Archive, DownloadError, Set, download, extract, fetch
from registers.readers.image_folder import ImageFolder
from registers.settings.errors import ConfigError

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves server.files.

    Cuts the first server.cuts answers short; obeys Range unless server.ignores_range.
    """

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
    server.files = {"/set.bin": CONTENT}
    server.cuts = 0
    server.ignores_range = False
    server.asked = []
    server.errors = []
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
    target = get(server, tmp_path / "a" / "set.bin", md5=MD5)
    assert target.read_bytes() == CONTENT and [p.name for p in target.parent.iterdir()] == [
        "set.bin"
    ]
    get(server, target, md5=MD5)
    assert server.asked == [None]


def test_cut_connection_resumes_where_it_stopped(server, tmp_path):
    server.cuts = 2
    assert get(server, tmp_path / "set.bin", md5=MD5).read_bytes() == CONTENT
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
    assert get(server, tmp_path / "set.bin", md5=MD5).read_bytes() == CONTENT


def test_corrupted_file_is_deleted_and_named(server, tmp_path):
    server.files["/set.bin"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(
        DownloadError, match=f"set.bin: md5 is [0-9a-f]+, expected {MD5}; the file is deleted"
    ) as error:
        get(server, tmp_path / "set.bin", md5=MD5)
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
    with pytest.raises(
        DownloadError, match=r"not complete after 3 attempts.*run it again to resume"
    ):
        get(server, tmp_path / "set.bin", attempts=3)
    assert (tmp_path / "set.bin.part").read_bytes() == CONTENT[
        : (tmp_path / "set.bin.part").stat().st_size
    ]


def test_without_a_network_each_attempt_is_a_line_and_the_last_says_what_to_do(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # closed below: nobody listens
    url = f"http://127.0.0.1:{port}/set.bin"
    with pytest.raises(DownloadError) as error:
        download(url, tmp_path / "set.bin", attempts=3, pause=0.01)
    assert str(error.value) == (
        f"{url}: not complete after 3 attempts (Connection refused); run it again, or where there "
        f"is a network run `curl -LO {url}` and bring the file to {tmp_path}"
    )
    assert capsys.readouterr().err.splitlines() == [
        f"set.bin: Connection refused; attempt {n} of 3 in 0 s" for n in (2, 3)
    ]


def make_tar(
    path: Path,
    *members: tuple[str, bytes | str | None],
    kind: bytes = tarfile.SYMTYPE,
    mode: str = "w:gz",
) -> Path:
    """Members (name, content); a text instead of bytes makes a link of `kind`, None a folder."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            data = b""
            if isinstance(content, str):
                info.type = kind
                info.linkname = content
            elif content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
                data = content
            tar.addfile(info, io.BytesIO(data))
    return path


def refused(archive: Path, limit: int = 1 << 20) -> str:
    """The message of an archive that is not extracted; nothing of it must be left."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(DownloadError) as error:
        extract(archive, archive.parent / "out", limit)
    assert sorted(archive.parent.rglob("*")) == before
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_extract_is_complete(tmp_path, mode):
    archive = make_tar(tmp_path / "a.tar", ("d/x", b"1"), ("y", b"2"), mode=mode)
    folder = extract(archive, tmp_path / "out")
    assert (folder / "d" / "x").read_bytes() == b"1" and (folder / "y").read_bytes() == b"2"
    with pytest.raises(DownloadError, match="already exists"):
        extract(archive, folder)


@pytest.mark.parametrize(
    "members",
    [
        [("fine", b"1"), ("../evil", b"2")],
        [("fine", b"1"), ("a/../../evil", b"2")],
        [("/evil-absolute", b"2")],
        [("a\\..\\..\\evil", b"2")],
        [("link", "/etc"), ("link/evil", b"2")],
        [("link", ".."), ("link/evil", b"2")],
        [("d/link", "../../evil")],
        [("d/x", b"1"), ("d/link", "x")],  # it stays inside, but no data set needs one
    ],
)
def test_malicious_tar_is_refused(tmp_path, members):
    assert "evil.tgz: refused" in refused(make_tar(tmp_path / "evil.tgz", *members))
    assert not Path("/evil-absolute").exists()


def test_a_chain_of_links_writes_nothing_outside(tmp_path):
    """CVE-2025-4517: Python 3.11.7's filter gives up on a path too long for the system."""
    folder = tmp_path / "in"
    folder.mkdir()
    victim = tmp_path / "in" / "victim"
    victim.write_bytes(b"old")
    deep = "d" * 247
    steps = "abcdefghijklmnop"
    members = []
    place = ""
    for step in steps:
        members += [(f"{place}{deep}", None), (f"{place}{step}", deep)]
        place += f"{deep}/"
    link = "/".join(steps) + "/" + "l" * 254
    members += [(link, "../" * len(steps)), ("escape", f"{link}/../victim"), ("escape", b"new")]
    assert "refused" in refused(make_tar(folder / "evil.tgz", *members))
    assert victim.read_bytes() == b"old"


def test_hard_link_and_device_are_refused(tmp_path):
    (tmp_path / "secret").write_text("s")
    for kind, name in ((tarfile.LNKTYPE, "../secret"), (tarfile.CHRTYPE, "null")):
        assert "is a link or a device" in refused(
            make_tar(tmp_path / "evil.tgz", ("x", name), kind=kind)
        )


def test_an_archive_of_too_many_bytes_is_refused(tmp_path):
    archive = make_tar(tmp_path / "bomb.tgz", ("zeros", bytes(3 << 20)))
    assert archive.stat().st_size < 10_000
    assert "bomb.tgz: refused, it unpacks to too many bytes" in refused(archive, limit=2 << 20)
    assert (extract(archive, tmp_path / "out", limit=3 << 20) / "zeros").stat().st_size == 3 << 20


def test_broken_archive_is_one_line(tmp_path):
    whole = make_tar(tmp_path / "a.tgz", ("x", CONTENT)).read_bytes()
    for content in (whole[: len(whole) // 2], b"not an archive"):
        (tmp_path / "b.tgz").write_bytes(content)
        with pytest.raises(DownloadError, match=r"b.tgz: cannot be extracted"):
            extract(tmp_path / "b.tgz", tmp_path / "out")
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def cifar_like(monkeypatch, server, names: list[str]) -> dict[str, np.ndarray]:
    """Serve an archive as CIFAR-10's, two images per batch; the test images' pixels by class.

    torchvision is told its checksums, as it knows those of the published files.
    """
    rng = np.random.default_rng(1)
    batches = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    contents = {"batches.meta": pickle.dumps({"label_names": names})}
    for batch in batches:
        data = rng.integers(0, 256, (2, 3072), np.uint8)
        contents[batch] = pickle.dumps({"data": data, "labels": [1, 0]}, protocol=2)
    sums = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in batches[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    serve_cifar(monkeypatch, server, contents)
    return {names[1]: data[0], names[0]: data[1]}


def serve_cifar(monkeypatch, server, contents: dict[str, bytes]) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    server.files["/cifar.tar.gz"] = file.getvalue()
    archive = Archive(f"{server.url}/cifar.tar.gz", hashlib.md5(file.getvalue()).hexdigest())
    monkeypatch.setitem(SETS, "cifar10", Set((archive,), SETS["cifar10"].arrange))


def test_fetch_cifar10_becomes_an_image_folder(server, tmp_path, monkeypatch):
    tests = cifar_like(monkeypatch, server, ["airplane", "cat"])
    server.cuts = 1
    folder = fetch("cifar10", tmp_path, progress=False)
    train = ImageFolder(folder, "train")
    test = ImageFolder(folder, "val")
    assert len(train) == 10 and len(test) == 2 and train.classes == ("airplane", "cat")
    for sample in (test[0], test[1]):
        expected = tests[test.classes[sample.label]].reshape(3, 32, 32).transpose(1, 2, 0)
        assert (np.asarray(sample.image) == expected).all()
    asked = len(server.asked)
    assert fetch("cifar10", tmp_path, progress=False) == folder and len(server.asked) == asked
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archives", "cifar10"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "..", ".hidden", "a/b", ""])
def test_a_class_name_makes_no_folder_outside(server, tmp_path, monkeypatch, name):
    cifar_like(monkeypatch, server, ["airplane", name])
    with pytest.raises(DownloadError, match="is no folder's name"):
        fetch("cifar10", tmp_path / "root", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["root"]
    assert not (tmp_path / "root" / "cifar10").exists()


def test_a_batch_that_would_run_code_is_refused(server, tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    cifar_like(monkeypatch, server, ["airplane", "cat"])
    files = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list] + ["batches.meta"]
    serve_cifar(monkeypatch, server, dict.fromkeys(files, pickle.dumps({"data": Evil()})))
    with pytest.raises(DownloadError, match="not found or corrupted"):
        fetch("cifar10", tmp_path / "root", progress=False)
    assert not (tmp_path / "ran").exists()


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
    monkeypatch.setitem(SETS, "voc2007", Set(tuple(archives), SETS["voc2007"].arrange))
    folder = fetch("voc2007", tmp_path / "root", progress=False)
    assert sorted(p.name for p in (folder / "VOCdevkit/VOC2007/JPEGImages").iterdir()) == [
        "test.jpg",
        "trainval.jpg",
    ]


def test_addresses_and_checksums_are_torchvisions():
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    ours = {a.url: a.md5 for chosen in SETS.values() for a in chosen.archives}
    theirs = {CIFAR10.url: CIFAR10.tgz_md5}
    theirs |= {
        DATASET_YEAR_DICT[year]["url"]: DATASET_YEAR_DICT[year]["md5"]
        for year in ("2007", "2007-test")
    }
    assert ours == theirs


def test_unknown_set_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="set: 'imagenet' is not allowed; must be one of cifar10"):
        fetch("imagenet", tmp_path)
