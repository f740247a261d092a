"""`registers audit MODEL [MODEL...]`: options, and what the verb does. Needs no params.yaml.

The exit status is 0; 3 where --fail-on holds; 1, with one line, for what cannot be audited.
"""

import argparse
from pathlib import Path

from registers.audit.errors import AuditError

FAILED = 3  # exit status where --fail-on holds
DESCRIPTION = """Does this vision transformer have artifacts, where, and what writes them?

MODEL: a timm name; hf-hub:OWNER/NAME@REVISION; open_clip:NAME/TAG; a torch.hub name of DINOv2
(dinov2_vitl14_reg); a file of weights (.safetensors, .pth, .pt, .bin, .npz); a checkpoint of this
project; features (.npy, with --prefix); random:TIMM_NAME.

registers audit vit_base_patch14_dinov2.lvd142m
registers audit my.safetensors --arch vit_base_patch16_224 --images photos/ --fail-on outliers
registers audit vit_base_patch14_dinov2.lvd142m vit_base_patch14_reg4_dinov2.lvd142m
registers audit vit_base_patch16_clip_224.openai --test-time-registers 1 --save new.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--images", nargs="+", metavar="PATH", help="a folder, or files")
    parser.add_argument(
        "--limit",
        type=_positive,
        metavar="N",
        help="images at most, evenly chosen (default: 32 of folders, all files that are named)",
    )
    parser.add_argument(
        "--size",
        type=_size,
        metavar="H[xW]",
        help="pixels (default: its own up to 256, else 224 or the nearest that patches divide)",
    )
    parser.add_argument(
        "--arch", default="", metavar="TIMM_NAME", help="of a file that does not say it"
    )
    parser.add_argument(
        "--prefix", type=int, metavar="K", help="of features: tokens before the patches"
    )
    parser.add_argument(
        "--grid", type=_grid, metavar="HxW", help="of features: patches down, across"
    )
    parser.add_argument(
        "--test-time-registers",
        type=int,
        default=0,
        metavar="N",
        help="also the same model with N tokens added, without training (Jiang et al. 2025: "
        "neurons that write outliers write there instead), before and after side by side",
    )
    parser.add_argument(
        "--save",
        default="",
        metavar="FILE",
        help="with --test-time-registers: the edited model (.safetensors) and its recipe (.json), "
        "which `registers audit FILE` opens",
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps", "auto"])
    parser.add_argument("--html", default="", metavar="FILE", help="page (default: audit.html)")
    parser.add_argument("--json", default="", metavar="FILE", help="all numbers")
    parser.add_argument("--csv", default="", metavar="FILE", help="the table by layer")
    parser.add_argument("--no-html", action="store_true", help="write no page")
    parser.add_argument(
        "--fail-on",
        choices=["outliers", "outliers-at-output"],
        help=f"exit with status {FAILED} where a model has them",
    )


def run(options: argparse.Namespace) -> int:
    """Audit, print, write what was asked for; returns the exit status.

    Raises AuditError, one line, for what cannot be audited.
    """
    from registers.audit.api import audit, edited_model

    outputs = _outputs(options)
    _check_save(options)
    images = None
    if options.images:
        images = options.images[0] if len(options.images) == 1 else options.images
    report = audit(
        [_named(model) for model in options.models],
        images,
        options.test_time_registers,
        arch=options.arch,
        size=options.size,
        prefix=options.prefix,
        grid=options.grid,
        limit=options.limit,
        device=options.device,
    )
    print(report.text())
    for path in outputs:
        print(f"wrote {report.save(path)}")
    if options.save:
        path = edited_model(report.audits[0]).save(Path(options.save).expanduser())
        print(f"wrote {path} and {path.with_suffix('.json').name}")
    if options.fail_on:
        failing = [each.name for each in report if each.fails(options.fail_on)]
        if failing:
            print(f"--fail-on {options.fail_on}: {', '.join(failing)}")
            return FAILED
    return 0


def _named(model: str) -> str:
    if not model.strip():
        raise AuditError("MODEL: must not be empty")
    return model


def _outputs(options: argparse.Namespace) -> list[Path]:
    """Files to write, checked before anything is computed."""
    if options.no_html and options.html:
        raise AuditError(f"--html = {options.html}: cannot be combined with --no-html")
    html = "" if options.no_html else options.html or "audit.html"
    outputs = []
    for text, suffix in ((html, ".html"), (options.json, ".json"), (options.csv, ".csv")):
        if not text:
            continue
        path = Path(text).expanduser()
        if path.suffix != suffix:
            raise AuditError(f"--{suffix[1:]} = {text}: must end in {suffix}")
        _check_writable(f"--{suffix[1:]}", path)
        outputs.append(path)
    return outputs


def _check_writable(option: str, path: Path) -> None:
    """Make the folder, and the file beside `path` that `files.atomically` fills, and remove it."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        was_there = partial.exists()
        with open(partial, "ab"):
            pass
        if not was_there:
            partial.unlink()
        if path.is_dir():
            raise IsADirectoryError(0, "is a folder")
    except OSError as error:
        raise AuditError(
            f"{option} = {path}: cannot be written ({error.strerror or error})"
        ) from None


def _check_save(options: argparse.Namespace) -> None:
    """Raise AuditError where there can be no one edited model to save."""
    if not options.save:
        return
    if not options.save.endswith(".safetensors"):
        raise AuditError(f"--save = {options.save}: must end in .safetensors")
    if len(options.models) > 1 or options.test_time_registers < 1:
        raise AuditError(
            f"--save = {options.save}: keeps one model with test-time registers, so it needs "
            "--test-time-registers N and a single MODEL"
        )
    path = Path(options.save).expanduser()
    _check_writable("--save", path)
    _check_writable("--save", path.with_suffix(".json"))


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text}: must be an integer of at least 1")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    """224 or 224x320, height first."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{text}: must be like 224 or 224x320")
    return int(parts[0]), int(parts[-1])


def _grid(text: str) -> tuple[int, int]:
    """16x20, patches down first."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{text}: must be patches down x across, like 16x20")
    return int(parts[0]), int(parts[1])
