"""What a run prints beside Snakemake's own lines: the time left, and less of what is long."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from registers.clock import Clock, Work, counted, duration, has_gpu, until, with_slots
from registers.settings.run import Settings

LISTED = 8  # files of one job that are named
TAIL = 25  # lines of a failed job's log
LINES = 10  # about how often the time left is said
SOONEST, LATEST = 60, 1800  # seconds between two such lines
LOOK = 5  # seconds between two looks at which jobs run
logger = logging.getLogger("snakemake.logging")  # so that lines and a live display do not collide


class Shortened(logging.Filter):
    """Makes Snakemake's records of jobs fit a screen: files by the hundred, logs by the thousand.

    A failed job's log is shown by its end, where the error is (profiles: show-failed-logs: false).
    """

    def filter(self, record: logging.LogRecord) -> bool:
        for name in ("input", "output"):
            files = getattr(record, name, None)
            if isinstance(files, list) and len(files) > LISTED + 1:
                more = f"... and {len(files) - LISTED} more"
                setattr(record, name, [*map(str, files[:LISTED]), more])
        if getattr(record, "shellcmd", None) and isinstance(getattr(record, "aux", None), dict):
            for path in getattr(record, "log", None) or []:
                record.aux = record.aux | {f"the end of {path}": end_of(Path(path))}
        return True


def end_of(log: Path) -> str:
    """The last lines of a log, each indented, and of a progress bar what it showed last."""
    try:
        text = log.read_bytes().decode(errors="replace")
    except OSError as error:
        return f"\n        {error}"
    lines = [line.rpartition("\r")[2] for line in text.rstrip().split("\n")]
    return "".join(f"\n        {line}" for line in lines[-TAIL:])


class Following(threading.Thread):
    """Says now and then how many jobs are done and when the run ends.

    clock: of the jobs that are due. look: by calling it, (finished, running) jobs. say: prints.
    """

    def __init__(
        self,
        clock: Clock,
        look: Callable[[], tuple[set[Work], set[Work]]],
        say: Callable[[str], Any],
    ) -> None:
        super().__init__(daemon=True)
        self.clock = clock
        self.look = look
        self.say = say
        self.began: dict[Work, float] = {}
        self.pause = min(LATEST, max(SOONEST, clock.left() / LINES))
        self.next = time.monotonic() + self.pause

    def first_line(self) -> str:
        """What is ahead, and how well that is known."""
        jobs, known = len(self.clock.due), self.clock.measured
        basis = "as they took before" if known == jobs else f"{known} of them ran here before"
        if not known:
            basis = "a guess from FLOPs, which gets better as jobs end"
        left = self.clock.left()
        return (
            f"registers: {counted(jobs)}, about {duration(left)} {with_slots(self.clock.slots)}, "
            f"until {until(left, datetime.now())} ({basis})"
        )

    def run(self) -> None:
        finished: set[Work] = set()
        while len(finished) < len(self.clock.due):
            time.sleep(LOOK)
            finished, running = self.look()
            now = time.monotonic()
            self.began = {work: self.began.get(work, now) for work in running}
            if now >= self.next:
                self.next = now + self.pause
                self.say(self.line(finished, {w: now - since for w, since in self.began.items()}))

    def line(self, finished: set[Work], elapsed: Mapping[Work, float]) -> str:
        left = self.clock.left(finished, elapsed)
        return (
            f"registers: {len(finished)} of {counted(len(self.clock.due))} done, "
            f"about {duration(left)} left, until {until(left, datetime.now())}"
        )


def follow(workflow: Any, settings: Settings) -> None:
    """Say what a run will take and, while it goes on, what is left. workflow: Snakemake's.

    Of the jobs of this very run that a benchmark is kept of; all others take no time.
    """
    folder = str(settings.layout.benchmarks)
    due = {
        job: settings.layout.benchmarked(job.benchmark)
        for job in workflow.dag.needrun_jobs()
        if job.benchmark and str(job.benchmark).startswith(f"{folder}/")
    }
    if not due or not workflow.local_exec:  # a cluster's queue is nobody's to foretell
        return

    def look() -> tuple[set[Work], set[Work]]:
        running = workflow.scheduler.running.copy()
        done = {work for job, work in due.items() if workflow.dag.finished(job)}
        return done, {due[job] for job in running if job in due} - done

    slots = max(1, workflow.cores // settings.threads)
    clock = Clock(settings, list(due.values()), slots, has_gpu(settings.device))
    following = Following(clock, look, logger.info)
    logger.info(following.first_line())
    following.start()
