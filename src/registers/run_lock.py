"""Who is at work in a folder: a lock that ends with its process, however it ends.

Snakemake's own lock is a folder of files, which a kill -9 or a power failure leaves behind. Every
run, and every job of one, also holds a shared lock on .snakemake/registers.lock. A run that is the
only holder knows that Snakemake's files are left over, and removes them; while any process of
another run lives, they stay, and Snakemake refuses to start.
"""

import fcntl
import os
from pathlib import Path
from typing import IO

STATE = Path(".snakemake")
_held: list[IO] = []  # a file that is closed frees its lock


def join() -> None:
    """Hold the folder beside others, to the end of this process: for a job."""
    if STATE.is_dir() and not _held and (file := _open()):
        _share(file)


def begin() -> str:
    """Hold the folder for a run and remove what a killed one left; a line for people, or ""."""
    if _held or (file := _open()) is None:
        return ""
    left = list((STATE / "locks").glob("*.lock"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _share(file)
        where = ", ".join(f"process {id}" for id in _holders(file)) or "some process"
        return f"another run, or a job of one, is at work in this folder: {where}" if left else ""
    except OSError:  # a file system without locks: Snakemake's own remain
        return ""
    for lock in left:
        lock.unlink()
    _share(file)
    return "the last run here was killed; its lock is removed, and it resumes" if left else ""


def _open() -> IO | None:
    try:
        STATE.mkdir(exist_ok=True)
        return open(STATE / "registers.lock", "a")
    except OSError:  # a folder that may only be read
        return None


def _share(file: IO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        return
    _held.append(file)


def _holders(file: IO) -> list[int]:
    """Processes that hold a lock on the file, besides this one, as Linux lists them."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    inode = f":{os.fstat(file.fileno()).st_ino}"
    fields = [line.split() for line in lines if " FLOCK " in line]
    ids = {int(row[4]) for row in fields if row[5].endswith(inode)}
    return sorted(ids - {os.getpid()})
