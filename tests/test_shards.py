"""WebDataset shards as a random-access Dataset, beside the library that wrote them."""

import pickle
import tarfile

import numpy as np
import pytest
import webdataset
from small_sets import write_shards

from registers.readers import shards
from registers.readers.shards import Shards, expand
from registers.settings.errors import ConfigError
from registers.world.dataset import scene


@pytest.mark.parametrize("texts, labels", [("txt", True), ("json", False)])
def test_shards_of_the_webdataset_library(tmp_path, texts, labels):
    written = write_shards(tmp_path / "s", texts, labels=labels)
    data = Shards(str(tmp_path / "s" / "part-{00000..00001}.tar"), cache=tmp_path / "index.npz")
    data[0]
    data = pickle.loads(pickle.dumps(data))
    assert len(data) == 7
    for i in (6, 0, 3, 4, 5, 1, 2):  # random access
        sample = data[i]
        assert (np.asarray(sample.image) == written[i]["image"]).all()
        assert sample.caption == written[i]["caption"] and sample.label == written[i]["label"]
    theirs = (
        webdataset.WebDataset(str(tmp_path / "s" / "part-{00000..00001}.tar"), shardshuffle=False)
        .decode("rgb8")
        .to_tuple("png")
    )
    for i, (image,) in enumerate(theirs):
        assert (np.asarray(data[i].image) == image).all()


def test_shard_index_is_cached_and_renewed(tmp_path, monkeypatch):
    write_shards(tmp_path / "s")
    pattern = str(tmp_path / "s" / "*.tar")
    cache = tmp_path / "index.npz"
    first = Shards(pattern, cache)
    samples = shards._samples
    opened = []
    monkeypatch.setattr(shards, "_samples", lambda path: opened.append(path) or samples(path))
    again = Shards(pattern, cache)
    assert not opened and again.classes == first.classes
    assert again.fingerprint == first.fingerprint and again[5].caption == first[5].caption
    write_shards(tmp_path / "s", count=9)
    assert len(Shards(pattern, cache)) == 9 and len(opened) == 2


def test_shard_errors_are_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match="no file matches"):
        Shards(str(tmp_path / "*.tar"))
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ConfigError, match=r"a\.tar: not a readable tar file"):
        Shards(str(tmp_path / "a.tar"))
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.add(__file__, "code.py")
    with pytest.raises(ConfigError, match="no images in its 1 files"):
        Shards(str(tmp_path / "b.tar"))


def test_bad_image_in_a_shard_is_replaced_and_noted(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for i in range(3):
            image = {"jpg": b"broken"} if i == 1 else {"png": scene(0, i, 16).image}
            sink.write({"__key__": str(i), "txt": f"text {i}"} | image)
    data = Shards(str(tmp_path / "a.tar"))
    assert [data[i].caption for i in range(3)] == ["text 0", "text 2", "text 2"]
    assert len(data.bad) == 1 and data.check() == data.bad
    with pytest.raises(ValueError, match=r"a\.tar at \d+: not a readable image"):
        Shards(str(tmp_path / "a.tar"), strict=True)[1]


def test_braces_expand_as_in_webdataset(tmp_path):
    for name in ("a-00", "a-01", "a-02", "b-01"):
        (tmp_path / f"{name}.tar").touch()
    names = [p.stem for p in expand(str(tmp_path / "{a,b}-{00..01}.tar"))]
    assert names == ["a-00", "a-01", "b-01"]
    assert [p.stem for p in expand(str(tmp_path / "a-*.tar"))] == ["a-00", "a-01", "a-02"]
