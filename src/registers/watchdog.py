"""A job that makes no step for minutes says so: a loader that hangs and a dead mount are silent."""

import logging
import sys
import threading
import time
from pathlib import Path

log = logging.getLogger(__name__)


class Watchdog:
    """Logs a line when `step` is not called for `seconds`, and one more each time that doubles.

    name: of the job, in the line. It watches from the first step on until `stop`.
    """

    def __init__(self, name: str, seconds: float = 180) -> None:
        self.name = name
        self.seconds = seconds
        self._step = 0
        self._last = time.monotonic()
        self._warned = 0.0  # seconds of silence that were told of
        self._stopped = threading.Event()
        self._watched = threading.get_ident()
        threading.Thread(target=self._watch, daemon=True).start()

    def step(self, step: int) -> None:
        """`step` is done."""
        self._step = step
        self._last = time.monotonic()
        self._warned = 0.0

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self.seconds / 4):
            silent = time.monotonic() - self._last
            if silent >= max(self.seconds, 2 * self._warned):
                self._warned = silent
                log.warning(
                    "%s: no step for %.0f s after step %d; it is in %s; does the disk of the data "
                    "still answer?",
                    self.name,
                    silent,
                    self._step,
                    self._place(),
                )

    def _place(self) -> str:
        """Where the watched thread is, "connection.py:395 (_recv)"."""
        frame = sys._current_frames().get(self._watched)
        if frame is None:
            return "no known place"
        code = frame.f_code
        return f"{Path(code.co_filename).name}:{frame.f_lineno} ({code.co_name})"
