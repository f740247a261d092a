"""Kills a whole smoke run at random moments and starts it again with the same command.

Every kill is a -9 of the whole process group: Snakemake and all its jobs. The moments are drawn
over the whole run, however fast the machine is: so many files are finished, and up to --delay
seconds more. At the end all files are compared, byte by byte, with those of an undisturbed run.

    python benchmarks/kills.py --kills 20                   both runs, in a folder for scratch
    python benchmarks/kills.py --reference FOLDER           where an undisturbed run lies already

Writes benchmarks/results/kills.md. Two cores alone take about 3 minutes for a run, and as much
again for twenty starts.
"""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from pipeline import CHECKOUT, copy_parts  # noqa: E402

COMMAND = ["snakemake", "--cores", "2", "--config", "scale=smoke"]
# They tell when and how a run was made, not what it found.
DIARY = ("logs", "benchmarks", "tracking")


def main() -> None:
    options = _options()
    scratch = Path(options.scratch or tempfile.mkdtemp(prefix="kills-"))
    reference = Path(options.reference or scratch / "reference")
    if not options.reference:
        copy_parts(ROOT, reference, CHECKOUT)
        _run(reference)
    disturbed = scratch / "disturbed"
    copy_parts(reference, disturbed, CHECKOUT)
    chance = random.Random(options.seed)
    after = sorted(chance.randrange(_done(reference)) for _ in range(options.kills))
    moments = [_kill(disturbed, count, chance.uniform(0, options.delay)) for count in after]
    _run(disturbed)
    compared, different = compare(reference, disturbed)
    text = _table(moments, compared, different)
    (ROOT / "benchmarks/results/kills.md").write_text(text)
    print(text)
    if not options.scratch and not different:
        shutil.rmtree(scratch)
    sys.exit(bool(different))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--delay", type=float, default=5, help="seconds at most, see above")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", help="folder of an undisturbed run")
    parser.add_argument("--scratch", help="folder for the runs, which is kept")
    return parser.parse_args()


# --- running and killing --------------------------------------------------------------------------


def _start(folder: Path, log: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    environment.pop("REGISTERS_PARAMS", None)
    with open(log, "ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", *COMMAND],
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _run(folder: Path) -> None:
    run = _start(folder, folder / "run.log")
    if run.wait():
        sys.exit(f"the run in {folder} failed, see {folder / 'run.log'}")


def _kill(folder: Path, count: int, delay: float) -> dict:
    """Start, and kill once `count` files are finished and `delay` is over; what was going on."""
    run = _start(folder, folder / "run.log")
    began = time.monotonic()
    while _done(folder) < count and run.poll() is None:
        time.sleep(0.2)
    time.sleep(delay)
    if run.poll() not in (None, 0):
        sys.exit(f"the run in {folder} failed, see {folder / 'run.log'}")
    moment = {"done": _done(folder), "jobs": _jobs(run.pid)}
    with contextlib.suppress(ProcessLookupError):  # it had ended
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    time.sleep(0.2)  # until the jobs of the group are gone as well
    moment["seconds"] = time.monotonic() - began
    print(moment, flush=True)
    return moment


def _jobs(group: int) -> list[str]:
    """What the run is doing, "measure linear dinov2-r4-s0", in the words of command lines."""
    lines = subprocess.run(["ps", "-eo", "pgid,args"], capture_output=True, text=True).stdout
    pattern = rf"^ *{group} .*/registers (\w+(?: \w[\w-]*)*)"
    return sorted(set(re.findall(pattern, lines, re.M))) or ["Snakemake alone"]


def _done(folder: Path) -> int:
    return sum(1 for file in (folder / ".snakemake/metadata").rglob("*") if file.is_file())


# --- comparing ------------------------------------------------------------------------------------


def compare(one: Path, other: Path) -> tuple[int, list[str]]:
    """How many files were compared, and what differs: a file, or that one of the runs lacks it."""
    files = {folder: _files(folder) for folder in (one, other)}
    different = [f"{name} is in one run alone" for name in sorted(files[one] ^ files[other])]
    both = sorted(files[one] & files[other])
    different += [name for name in both if _content(one / name) != _content(other / name)]
    return len(both), different


def _files(folder: Path) -> set[str]:
    names = (
        path.relative_to(folder)
        for kind in ("results", "reports")
        for path in (folder / kind).rglob("*")
        if path.is_file()
    )
    return {str(name) for name in names if not _is_diary(name)}


def _is_diary(name: Path) -> bool:
    in_diary = len(name.parts) > 2 and name.parts[2] in DIARY
    return in_diary or name.suffix == ".lock" or name.name == "records.json"


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".pdf":
        content = re.sub(rb"/CreationDate \([^)]*\)", b"", content)
    if path.name == "paper.html":  # when it was made, and links into MLflow
        content = re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d \w+|experiments/\d+/runs/\w+", b"", content)
    return content


def _table(moments: list[dict], compared: int, different: list[str]) -> str:
    same = f"all {compared} files have the same bytes" if not different else "they differ:"
    lines = [
        "# Kills of a whole smoke run",
        "",
        f"`python benchmarks/kills.py`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores. Each "
        "kill is a -9 of the process group of",
        f"`{' '.join(COMMAND)}`, which is then started again. After {len(moments)} kills and one "
        f"start that was left alone, {same}",
        "(results/ and reports/ against an undisturbed run; logs, timings, tracking, the dates in",
        "records and PDFs, and the date and MLflow's links in the page left out).",
        "",
        *(f"- {line}" for line in different),
        "| kill | seconds after the start | files finished before | at work |",
        "|---:|---:|---:|---|",
    ]
    lines += [
        f"| {number} | {moment['seconds']:.0f} | {moment['done']} | {', '.join(moment['jobs'])} |"
        for number, moment in enumerate(moments, 1)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
