"""Probes through the command line at scale smoke: they write the rows that tables read."""

import json
import subprocess
import sys

import pytest

from registers import artifacts, cli, measurements, reference
from registers.figures import fig05_local_information as fig05
from registers.models import checkpoint
from registers.models.backbone import Architecture, build
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings
from registers.tables import table1_token_classification as table1
from registers.tables import table4_aircraft_tokens as table4
from registers.vocabulary import NORMAL, OUTLIER, TAIL

PARAMS = {"scale": "smoke", "methods": ["dinov2"], "registers": [0, 1]}
BACKBONE = "dinov2-r1-s0"


def params(**probes) -> str:
    return json.dumps(PARAMS | {"overrides": {"probes": probes}})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of scale smoke that holds the bank of one untrained backbone."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REGISTERS_PARAMS", params())
        assert cli.main(["data", "eval"]) == 0
        settings = load_settings(PARAMS)
        checkpoint.save(settings.layout.checkpoint(BACKBONE), untrained(settings), {"step": 0})
        assert cli.main(["tokens", BACKBONE]) == 0
    return folder


def untrained(settings):
    recipe = settings.recipes["dinov2"]
    size = settings.sizes[recipe.size]
    architecture = Architecture(
        size.width, size.depth, size.heads, recipe.patch, settings.image_size, registers=1
    )
    return build(architecture, name=BACKBONE, normalization=((0.5,) * 3, (0.25,) * 3))


@pytest.fixture
def ask(run, monkeypatch):
    """A function that asks a question of the backbone and returns its rows."""
    monkeypatch.chdir(run)
    monkeypatch.setenv("REGISTERS_PARAMS", params())

    def measure(question):
        assert cli.main(["measure", question, BACKBONE]) == 0
        return measurements.read(load_settings(PARAMS).layout.measurement(question, BACKBONE))

    return measure


def test_questions_write_the_rows_that_tables_read(ask):
    printed = reference.read(artifacts.PAPER / "reference.yaml")
    rows = ask("token_class")
    assert set(rows["token"]) == {"cls", "reg0", NORMAL, OUTLIER, TAIL}
    assert rows["data"].nunique() == 14 + 1  # the label sets and their mean
    assert "DINOv2" in table1.caption(rows, printed)
    assert "DINOv2" in table4.caption(rows, printed)
    local = {name: ask(name) for name in ("neighbours", "position", "reconstruction")}
    assert "DINOv2" in fig05.caption(**local, reference=printed)


def test_label_sets_can_be_chosen(ask, monkeypatch):
    monkeypatch.setenv("REGISTERS_PARAMS", params(labels=["fine", "class"]))
    rows = ask("token_class")
    assert list(dict.fromkeys(rows["data"][rows["data"] != ""])) == ["fine", "class"]


def test_a_label_set_that_is_not_there_is_one_line(ask, monkeypatch, capsys):
    monkeypatch.setenv("REGISTERS_PARAMS", params(labels=["shape"]))
    assert cli.main(["measure", "token_class", BACKBONE]) == 1
    message = 'probes.labels: "shape" is not allowed; must be one of class, fine'
    assert message in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"probes\.draws: 1 "):
        load_settings(json.loads(params(draws=1)))


def test_a_damaged_bank_is_one_line_with_its_remedy(run, ask, capsys):
    norms = load_settings(PARAMS).layout.bank(BACKBONE) / "norms.npy"
    content = norms.read_bytes()
    norms.write_bytes(content[:-4])
    assert cli.main(["measure", "norms", BACKBONE]) == 1
    error = capsys.readouterr().err
    assert "norms.npy: its SHA-256 is not the one in index.json; delete the folder" in error
    norms.write_bytes(content)
    assert len(ask("norms"))


def test_the_command_line_reads_single_tokens_without_torch():
    code = "import sys, registers.cli, registers.measure; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
