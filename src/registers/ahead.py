"""What a run is going to take, said before it begins: jobs, time, disk and data."""

import os
import shutil

from registers.clock import Clock, counted, duration, has_gpu, with_slots
from registers.plan import data_sizes, disk, jobs
from registers.settings.data import BUILT_IN, DOWNLOADABLE
from registers.settings.paths import data_path
from registers.settings.run import Settings


def summary(settings: Settings) -> str:
    """A few lines for people; `registers plan` measures for a minute and says more."""
    everything = jobs(settings)
    due = [(job.rule, job.subject) for job in everything if not job.is_done]
    lines = [f"{counted(len(everything))}, {len(everything) - len(due)} of them done"]
    if due:
        slots = max(1, (os.cpu_count() or 1) // settings.threads)
        clock = Clock(settings, due, slots, has_gpu(settings.device))
        lines[0] += f"; the others take about {duration(clock.left())} {with_slots(slots)}"
        guessed = len(due) - clock.measured
        lines[0] += f" ({guessed} of {len(due)} never ran here: guessed)" if guessed else ""
    free = shutil.disk_usage(".").free / 1e9
    lines.append(f"disk: {sum(disk(settings).values()):,.1f} GB at most; {free:,.0f} GB are free")
    return "\n".join([*lines, *_data(settings)])


def _data(settings: Settings) -> list[str]:
    """What a run reads beside the built-in world, and how it gets here."""
    lines = []
    for spec, size in data_sizes(settings).items():
        kind, _, place = spec.partition(":")
        if spec in BUILT_IN:
            continue
        fetched = kind == "folder" and place in DOWNLOADABLE
        fetched = fetched and not data_path(settings, place).exists()
        about = "of a size unknown here" if size is None else f"{size:,g} GB as published"
        how = "downloaded by the run" if fetched else "read from this machine"
        lines.append(f"data: {spec}, {about}, {how}")
    return lines or ["data: the built-in world, which is drawn; nothing is downloaded"]
