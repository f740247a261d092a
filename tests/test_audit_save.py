"""`registers audit --test-time-registers N --save FILE`: the edited model, kept and opened."""

import argparse

import planted_vit
import pytest
import torch

import registers
from registers.audit import command
from registers.audit.api import audit, edited_model
from registers.audit.errors import AuditError
from registers.audit.watched import AuditImages
from registers.models import checkpoint


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_command_saves_the_edited_model(tmp_path, capsys, monkeypatch):
    plain, pixels, _ = planted_vit.backbone()
    seen = AuditImages(pixels, tuple(str(i) for i in range(len(pixels))), None)
    folder = tmp_path / "plain"
    checkpoint.save(folder / "last.safetensors", plain, {})
    monkeypatch.setattr("registers.audit.api.photos.prepare", lambda *_: seen)
    edited_file = tmp_path / "edited.safetensors"
    wanted = ("--test-time-registers", 2, "--no-html", "--save", edited_file)
    assert run(folder, *wanted) == 0
    assert f"wrote {edited_file} and edited.json" in capsys.readouterr().out
    opened = registers.load_test_time_registers(edited_file)
    made = registers.add_test_time_registers(plain, pixels, 2)
    assert torch.equal(opened(pixels).patches, made(pixels).patches)
    assert run(edited_file, "--no-html") == 0
    assert "outliers: no" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("x", "--save", "e.safetensors"), "needs --test-time-registers N"),
        (("x", "--test-time-registers", 1, "--save", "e.pth"), "must end in .safetensors"),
        (
            ("x", "y", "--test-time-registers", 1, "--save", "e.safetensors"),
            "and a single MODEL",
        ),
    ],
)
def test_what_cannot_be_saved_is_said_before_anything_is_computed(arguments, reason):
    with pytest.raises(AuditError, match=reason):
        run(*arguments)


def test_a_model_without_outliers_has_nothing_to_save(tmp_path):
    model = planted_vit.build("dinov2")
    (looked_at,) = audit(model, planted_vit.images(model)[0], 1, name="clean").audits
    with pytest.raises(AuditError, match="clean: has no test-time registers to save; no outliers"):
        edited_model(looked_at)
