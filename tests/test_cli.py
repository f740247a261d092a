"""The command line as a new user meets it: help, lists, completion, one-line errors."""

import re
import shutil
import subprocess

import pytest
import yaml

from registers import cli, train, verbs
from registers.arguments import HELP, completions
from registers.questions import QUESTIONS
from registers.readers import catalogue

VERBS = [name for name in vars(verbs) if callable(getattr(verbs, name))]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGISTERS_PARAMS", raising=False)
    params = {"scale": "smoke", "registers": [0, 4], "mlflow_uri": "sqlite:///m.db"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path


def asked(capsys, *arguments):
    """What a call prints, which ends with the status 0."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert ended.value.code == 0
    return capsys.readouterr().out


def verbs_of(capsys):
    return re.findall(r"^    (\w+) {2,}", asked(capsys, "--help"), re.M)


def test_every_verb_has_sentences_and_an_example_that_parses(project, capsys):
    names = verbs_of(capsys)
    assert {"check", "train", "measure", "draw", "ui", "audit", "completion"} <= set(names)
    for name in names:
        text = asked(capsys, name, "--help")
        assert re.search(r"^[A-Z][^.?]+[.?:]", text.split("\n\n")[1]), name
        examples = re.findall(rf"registers {name}\b[^\n(#)]*?(?= {{2,}}|\"|\)|#|$)", text, re.M)
        examples = [e for e in examples if e.strip() not in (f"registers {name}", "")] or [name]
        for example in examples:
            arguments = example.replace("registers ", "", 1).split()
            if "[-h]" not in example:
                assert cli._parser().parse_args(arguments).verb, example


def test_help_lists_what_may_stand_there(project, capsys):
    measure = asked(capsys, "measure", "--help")
    assert all(question in measure for question in QUESTIONS)
    assert "dinov2-r4-s0" in measure and "dinov2-r16-s0" not in measure
    draw = asked(capsys, "draw", "--help")
    assert "fig07" in draw and "table6" in draw and "discovery-ID" in draw
    assert "cifar10" in asked(capsys, "download", "--help")
    assert "dinov2-base-r4-s0" in asked(capsys, "fetch", "--help")
    assert max(map(len, measure.splitlines())) <= 100


def test_outside_a_project_one_line_says_where_to_go(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGISTERS_PARAMS", raising=False)
    assert cli.main(["train", "dinov2-r4-s0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "go to a checkout of the project" in line
    assert "`registers check` lists its backbones" in asked(capsys, "train", "--help")


def test_an_error_that_may_be_ours_says_how_to_get_the_traceback(project, monkeypatch, capsys):
    def fails(*arguments):
        raise RuntimeError("loss = nan")

    monkeypatch.setattr(cli, "load_settings", fails)
    assert cli.main(["report"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "registers: RuntimeError: loss = nan" and "REGISTERS_TRACEBACK=1" in second
    monkeypatch.setenv("REGISTERS_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        cli.main(["report"])


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("dinov2-r3-s0", "3 is not among `registers` (0, 4), so no figure shows it"),
        ("dinov2-r4-s7", "7 is not among `seeds` (0), so no figure shows it"),
        ("dinov2-tiny-r4-s0", "dinov2-tiny-r4-s0: no figure of these settings shows it"),
        ("dinov2-r4-s0", ""),
    ],
)
def test_a_training_that_no_figure_shows_is_named(project, monkeypatch, capsys, id, words):
    monkeypatch.setattr(catalogue, "open_dataset", lambda *arguments: None)
    monkeypatch.setattr(train, "train_backbone", lambda *arguments: {"loss": 1.0})
    assert cli.main(["train", id]) == 0
    said = capsys.readouterr().err
    assert words in said and bool(said) == bool(words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train dinov2-r4-s0-noaa-tt", "must be a training, as dinov2-r4-s0-noaa"),
        ("train dinov2-r4-s0-at050", "must be a training, as dinov2-r4-s0"),
        ("train dinov2-r1025-s0", "registers: 1025 is not allowed"),
        ("train dinov2-r4-s1000000001", "seeds: 1000000001 is not allowed"),
        ("train dinov2-huge-r0-s0", "must be of a size that is one of tiny, small"),
        ("train dinov3-r0-s0", "one of deit3, openclip, dinov2, dino, mae (did you mean dino"),
        ("world foo", "split: 'foo' is not allowed; must be one of train, val, test"),
        ("measure norms dinov2-r4", "must be a name like dinov2-r4-s0"),
        ("measure norms ../../x", "must be a name like dinov2-r4-s0"),
        ("draw Fig7", "fig07: results/smoke/measurements/norms/"),
        ("draw fig07", "is missing; `snakemake --cores all fig07` makes it"),
        ("draw lost-dinov2-r0-s0", "must be one of fig01"),
        ("draw discovery-dinov2-r0-s0", "is missing; `snakemake --cores all reports/smoke/pic"),
        ("download foo", "set: 'foo' is not allowed; must be one of cifar10, voc2007"),
    ],
)
def test_what_cannot_be_is_one_line_without_a_class_of_ours(project, capsys, command, words):
    assert cli.main(command.split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("registers: ") and words in line and "Error" not in line


@pytest.mark.parametrize(
    "arguments", ["ui --port 99999999", "ui --port 0", "tokens dinov2-r0-s0 --threads 0"]
)
def test_numbers_out_of_range_are_refused(project, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments.split())
    assert ended.value.code == 2 and "is not allowed; must be" in capsys.readouterr().err


def test_what_is_trained_stays_unless_it_is_asked_for_again(project, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(catalogue, "open_dataset", lambda *arguments: None)
    monkeypatch.setattr(train, "train_backbone", lambda *a: trained.append(a) or {"loss": 1.0})
    card = project / "results/smoke/checkpoints/dinov2-r4-s0/last.json"
    card.parent.mkdir(parents=True)
    assert cli.main(["train", "dinov2-r4-s0"]) == 0  # killed before its end: it resumes
    card.write_text("{}")
    assert cli.main(["train", "dinov2-r04-s0"]) == 1
    assert "dinov2-r4-s0: trained already" in capsys.readouterr().err
    assert cli.main(["train", "dinov2-r4-s0", "--again"]) == 0
    assert len(trained) == 2


def test_check_says_what_a_run_takes(project, capsys):
    assert cli.main(["check"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"\d+ jobs, 0 of them done; the others take about \d+ ", text)
    assert "never ran here: guessed" in text and "disk: " in text
    assert "nothing is downloaded" in text
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"] = {"use": {"labels": "folder:cifar10", "eval": "folder:cifar10"}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    assert cli.main(["check"]) == 0
    assert "data: folder:cifar10, 0.2 GB as published, downloaded by the run" in (
        capsys.readouterr().out
    )


def test_ids_are_one_a_line(project, capsys):
    assert cli.main(["check", "--ids"]) == 0
    ids = capsys.readouterr().out.split()
    assert "dinov2-r4-s0" in ids and len(ids) == len(set(ids))


def test_every_argument_is_known_to_help_and_completion():
    unknown = {name for name in HELP if not completions(name)} - {"backbone"}
    assert not unknown
    assert "norms" in completions("question") and "fig07" in completions("id")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completes_verbs_and_figures(capsys, tmp_path):
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)

    def completed(*words):
        ask = f"""source {script}; COMP_WORDS=({" ".join(words)} ''); COMP_CWORD={len(words)}
        COMP_WORDS[{len(words) - 1}]={words[-1]}; COMP_CWORD={len(words) - 1}
        _shtab_registers; printf '%s\\n' "${{COMPREPLY[@]}}" """
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60)
        return done.stdout.split()

    assert "measure" in completed("registers", "mea")
    assert completed("registers", "draw", "fig07") == ["fig07"]
    assert "norms" in completed("registers", "measure", "no")
