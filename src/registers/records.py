"""Snakemake's records of a run, in one file that travels with the run.

Snakemake keeps the settings, code and inputs behind each file in .snakemake/metadata, those of all
runs together. A run that is pulled elsewhere, or checked out at another commit, brings its own in
results/<run>/records.json, so that Snakemake finds nothing to do there. Which of the two is right
follows from a mark: a file of records that is not the one last written here came from elsewhere.
"""

import contextlib
import json
from base64 import urlsafe_b64decode
from pathlib import Path

from registers.files import sha256, write_json, write_text
from registers.layout import Layout

SNAKEMAKE = Path(".snakemake")
METADATA = SNAKEMAKE / "metadata"


def save(layout: Layout) -> None:
    """Write the records of a run beside its results."""
    restore(layout)
    records = {}
    for path in _of_run(layout):
        with contextlib.suppress(ValueError):  # one that a running job is writing
            records[path.relative_to(METADATA).as_posix()] = json.loads(path.read_bytes())
    if records:
        write_json(layout.records, dict(sorted(records.items())), indent=0)
        write_text(_mark(layout), sha256(layout.records))


def restore(layout: Layout) -> int:
    """Put records that came from elsewhere in the place of ours; returns how many there are.

    Called before Snakemake looks at its own.
    """
    if not layout.records.is_file() or _is_ours(layout):
        return 0
    records = json.loads(layout.records.read_bytes())
    for path in _of_run(layout):
        path.unlink()
    for name, record in records.items():
        path = METADATA / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
    write_text(_mark(layout), sha256(layout.records))
    return len(records)


def _of_run(layout: Layout) -> list[Path]:
    """Snakemake's records of the files of one run."""
    folders = tuple(f"{folder.as_posix()}/" for folder in (layout.results, layout.reports))
    files = (path for path in METADATA.rglob("*") if path.is_file())
    return [path for path in files if _file(path).startswith(folders)]


def _file(record: Path) -> str:
    """The file that a record is about: its name in base 64, in pieces where it is long."""
    parts = record.relative_to(METADATA).parts
    return urlsafe_b64decode("".join(part.removeprefix("@") for part in parts)).decode()


def _mark(layout: Layout) -> Path:
    return SNAKEMAKE / "registers" / layout.results.name


def _is_ours(layout: Layout) -> bool:
    mark = _mark(layout)
    return mark.is_file() and mark.read_text() == sha256(layout.records)
