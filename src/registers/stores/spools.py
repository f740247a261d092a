"""Spools as delivery sees them: their lines, how much of them a store has, and locks."""

import contextlib
import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registers.files import write_json

START = b'{"event": "start"'  # how the line begins that begins a run
log = logging.getLogger(__name__)


@dataclass
class Delivery:
    """How far a spool was delivered, into which store and MLflow run (ids; "": none).

    bytes, digest: of the part that was delivered. Another spool in the same place, as
    `dvc checkout` puts it there, is delivered as a whole.
    """

    bytes: int = 0
    run: str = ""
    store: str = ""
    digest: str = ""


def read_delivery(spool: Path, store: str) -> Delivery:
    """What was delivered of a spool to this store. A missing or damaged record counts as nothing.

    Delivering twice does no harm: what is delivered again replaces itself.
    """
    nothing = Delivery(store=store)
    try:
        record = json.loads(_record(spool).read_bytes())
        done = Delivery(
            int(record["bytes"]), str(record["run"]), str(record["store"]), str(record["digest"])
        )
        content = spool.read_bytes()
    except (OSError, ValueError, TypeError, KeyError):
        return nothing
    possible = 0 < done.bytes <= len(content) and done.run
    same = possible and done.store == store and done.digest == _digest(content[: done.bytes])
    return done if same else nothing


def write_delivery(spool: Path, store: str, run: str, bytes: int) -> None:
    """Record that the first bytes of a spool are delivered."""
    digest = _digest(spool.read_bytes()[:bytes])
    write_json(_record(spool), asdict(Delivery(bytes, run, store, digest)))


def is_waiting(spool: Path, store: str) -> bool:
    return read_delivery(spool, store).bytes < spool.stat().st_size


def began(spool: Path) -> int:
    """When the latest work of a spool began, in milliseconds: trainings go before their tests."""
    latest = 0
    for line in whole_lines(spool).splitlines():
        if line.startswith(START):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                latest = max(latest, int(json.loads(line)["time"]))
    return latest


def events(spool: Path, after: int = 0) -> Iterator[dict[str, Any]]:
    """The events of a spool behind its first bytes, without a last line that is half written."""
    for line in whole_lines(spool, after).splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # half a line that a killed job left
            event = None
        if isinstance(event, dict) and "event" in event:
            yield event
        else:
            log.warning("%s: a damaged line is left out", spool)


def whole_lines(spool: Path, after: int = 0) -> bytes:
    with open(spool, "rb") as file:
        file.seek(after)
        content = file.read()
    return content[: content.rfind(b"\n") + 1]


@contextlib.contextmanager
def locked(path: Path, wait: float | None = None):
    """An exclusive lock between processes, kept in `path`.lock.

    wait: seconds; None waits without end. Raises TimeoutError after them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as file:
        if wait is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _lock_within(file, wait, path)
        yield


def _lock_within(file, seconds: float, path: Path) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TimeoutError(path) from None
            time.sleep(0.05)


def _record(spool: Path) -> Path:
    return spool.with_suffix(".delivered")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
