"""NYU Depth v2 in its four layouts."""

import sys

import numpy as np
import pytest
from small_sets import png, save_image

from registers.readers.nyud import LABELED, Nyud, open_nyud
from registers.settings.errors import ConfigError


def test_nyud_in_its_three_layouts(tmp_path):
    depth = np.array([[0, 1500, 65535], [10000, 1, 2]], np.uint16)
    expected = [[0, 1.5, 0], [10, 0.001, 0.002]]
    save_image(tmp_path / "list" / "bath" / "rgb.jpg", (3, 2))
    png(tmp_path / "list" / "bath" / "depth.png", depth)
    listed = tmp_path / "files.txt"
    listed.write_text("bath/rgb.jpg bath/depth.png 518.8579\nbath/rgb2.jpg None 518.8579\n")
    save_image(tmp_path / "frames" / "seq" / "frame-0.color.jpg", (3, 2))
    png(tmp_path / "frames" / "seq" / "frame-0.depth.png", depth)
    save_image(tmp_path / "numbered" / "12_image.png", (3, 2))
    png(tmp_path / "numbered" / "12_depth.png", depth)
    for data in (
        Nyud(tmp_path / "list", names=listed),
        Nyud(tmp_path / "frames"),
        Nyud(tmp_path / "numbered"),
    ):
        assert (
            len(data) == 1
            and np.allclose(data[0].depth, expected)
            and data[0].depth.dtype == np.float32
        )
    png(tmp_path / "numbered" / "12_depth.png", depth.astype(np.uint8))
    with pytest.raises(ValueError, match=r"12_depth\.png: depth of shape"):
        Nyud(tmp_path / "numbered")[0]
    png(tmp_path / "numbered" / "12_depth.png", depth.T.copy())
    with pytest.raises(ValueError, match=r"12_depth\.png: 2 x 3 pixels, but its image has 3 x 2"):
        Nyud(tmp_path / "numbered")[0]


def test_nyud_split_file_chooses_the_images(tmp_path):
    from scipy.io import savemat

    for number in (1, 2, 3):
        save_image(tmp_path / f"{number}_image.png", (3, 2))
    savemat(
        tmp_path / "splits.mat",
        {"trainNdxs": np.array([[3], [9]]), "testNdxs": np.array([[1], [2]])},
    )
    assert [p.name for p in Nyud(tmp_path, "train").images] == ["3_image.png"]
    assert [p.name for p in Nyud(tmp_path, "val").images] == ["1_image.png", "2_image.png"]


def test_nyud_lists_lie_where_bts_puts_them(tmp_path):
    save_image(tmp_path / "official_splits" / "test" / "bath" / "rgb_1.jpg", (3, 2))
    png(
        tmp_path / "official_splits" / "test" / "bath" / "depth_1.png",
        np.full((2, 3), 1500, np.uint16),
    )
    save_image(tmp_path / "kitchen" / "rgb_2.jpg", (3, 2))
    (tmp_path / "nyudepthv2_test_files_with_gt.txt").write_text(
        "bath/rgb_1.jpg bath/depth_1.png 518.8579\n"
    )
    (tmp_path / "nyu_train.txt").write_text("/kitchen/rgb_2.jpg /kitchen/depth_2.png 518.8579\n")
    test, train = Nyud(tmp_path, "val"), Nyud(tmp_path, "train")
    assert (
        test[0].name == "official_splits/test/bath/rgb_1.jpg"
        and np.allclose(test[0].depth, 1.5)
        and not test.whole
    )
    assert [path.name for path in train.images] == ["rgb_2.jpg"] and train.images[0].is_file()


def test_the_release_of_nyud(tmp_path):
    """In MATLAB's order, with the depths as measured and BTS's black rim."""
    h5py = pytest.importorskip("h5py")
    from scipy.io import savemat

    images = np.random.default_rng(0).integers(1, 256, (3, 3, 640, 480), dtype=np.uint8)
    depths = np.random.default_rng(1).random((3, 640, 480)).astype(np.float32)
    with h5py.File(tmp_path / LABELED, "w") as file:
        file["images"], file["rawDepths"], file["depths"] = images, depths, depths + 1
    assert open_nyud(tmp_path, "train").whole and len(open_nyud(tmp_path, "val")) == 3
    savemat(
        tmp_path / "splits.mat", {"trainNdxs": np.array([[3]]), "testNdxs": np.array([[1], [2]])}
    )
    assert len(open_nyud(tmp_path, "val")) == 2
    sample, pixels = (
        open_nyud(tmp_path, "train")[0],
        np.asarray(open_nyud(tmp_path, "train")[0].image),
    )
    assert (
        sample.name == f"{LABELED}, image 3"
        and sample.depth.shape == (480, 640)
        and sample.image.size == (640, 480)
    )
    assert (
        sample.depth[100, 7] == depths[2, 7, 100]
        and pixels[100, 7].tolist() == images[2, :, 7, 100].tolist()
    )
    assert pixels[100, 6].tolist() == pixels[474, 100].tolist() == [0, 0, 0]


@pytest.mark.parametrize("package", [True, False])
def test_a_release_that_cannot_be_read_says_how_else(tmp_path, monkeypatch, package):
    if package:
        pytest.importorskip("h5py")
    else:
        monkeypatch.setitem(sys.modules, "h5py", None)  # as if it were not installed
    (tmp_path / LABELED).write_bytes(b"no HDF5")
    with pytest.raises(
        ConfigError,
        match="not a readable HDF5 file" if package else "needs h5py .*; or write its images",
    ) as error:
        open_nyud(tmp_path, "train")
    assert "\n" not in str(error.value)
    save_image(tmp_path / "1_image.png")  # unpacked there: no need of it
    assert len(open_nyud(tmp_path, "train")) == 1
