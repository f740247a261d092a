"""How long a run still takes: from benchmarks of before, and from how it goes now.

A job is expected to take what it took when it last ran. One that never ran here is guessed from
its FLOPs, and guesses are corrected by those of its kind that did run. Jobs that end while a run
goes on correct what is expected of the others: the machine may be slower today than it was.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache

from registers.core_speed import core_flops
from registers.exact import demands, flops
from registers.plan import earlier
from registers.questions import QUESTIONS
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

Work = tuple[str, str]  # rule and subject, by which a job's benchmark is known
START = 4.0  # seconds until a job has imported what it needs, on the machine of throughput.md
SHARE = 0.4  # of a matrix product's speed that trainings reach: 37 to 55 % in throughput.md
DOUBT = 30.0  # seconds of work that must have gone otherwise before half of it is believed
MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass
class Clock:
    """What the jobs of a run are expected to take.

    due: the jobs that are to run. slots: how many run at a time; on_gpu: those of trainings and
    questions take turns on one GPU.
    """

    settings: Settings
    due: list[Work]
    slots: int
    on_gpu: bool = False
    expected: dict[Work, float] = field(init=False)
    measured: int = field(init=False)  # how many of `due` ran before

    def __post_init__(self) -> None:
        speed = demands.GPU_FLOPS if self.on_gpu else SHARE * core_flops()
        layout = self.settings.layout
        ran = [layout.benchmarked(path) for path in layout.benchmarks.glob("**/*.tsv")]
        known = {work: seconds for work in ran if (seconds := earlier(self.settings, *work))}
        guesses = {work: guess(self.settings, work, speed) for work in {*ran, *self.due}}
        pace = Pace(known, guesses)
        self.expected = {work: known.get(work, guesses[work] * pace(work)) for work in self.due}
        self.measured = len(known.keys() & set(self.due))

    def left(self, finished: Iterable[Work] = (), elapsed: Mapping[Work, float] = {}) -> float:
        """Seconds until the last job ends.

        finished: those of this run that ended, whose new benchmarks are read. elapsed: by job that
        runs at the moment, the seconds since it began; one that is late slows down the others too.
        """
        finished = set(finished)
        took = {work: s for work in finished if (s := earlier(self.settings, *work))}
        late = {work: s for work, s in elapsed.items() if s > self.expected[work]}
        pace = Pace(took | late, self.expected)
        waiting = {
            work: max(0.0, seconds * pace(work) - elapsed.get(work, 0.0))
            for work, seconds in self.expected.items()
            if work not in finished
        }
        turns = sum(s for work, s in waiting.items() if self.on_gpu and has_backbone(work))
        return max([sum(waiting.values()) / self.slots, turns, *waiting.values()], default=0.0)


class Pace:
    """By what factor jobs took longer than expected: those of a kind, in doubt those of all."""

    def __init__(self, took: Mapping[Work, float], expected: Mapping[Work, float]) -> None:
        self.took: dict[str, float] = {}
        self.expected: dict[str, float] = {}
        for work, seconds in took.items():
            for kind in ("", kind_of(work)):
                self.took[kind] = self.took.get(kind, 0.0) + seconds
                self.expected[kind] = self.expected.get(kind, 0.0) + expected[work]
        self.of_all = self._factor("", 1.0)

    def __call__(self, work: Work) -> float:
        return self._factor(kind_of(work), self.of_all)

    def _factor(self, kind: str, prior: float) -> float:
        took, expected = self.took.get(kind, 0.0), self.expected.get(kind, 0.0)
        return (took + DOUBT * prior) / (expected + DOUBT)


# --- guesses


def kind_of(work: Work) -> str:
    """Jobs of a kind are wrongly guessed in the same way: trainings of a method, a question."""
    rule, subject = work
    return f"train {BackboneId.parse(subject).method}" if rule == "train" else rule


def has_backbone(work: Work) -> bool:
    """Whether a job's backbone works, for a training, a token bank or a question."""
    rule, subject = work
    is_asked = rule in QUESTIONS and QUESTIONS[rule].gpu
    return bool(subject) and (rule in ("train", "tokens") or is_asked)


def guess(settings: Settings, work: Work, speed: float) -> float:
    """Seconds of a job by its FLOPs, at so many a second; solvers and drawing are not counted."""
    rule, subject = work
    if not has_backbone(work):
        return START
    id = BackboneId.parse(subject)
    if rule == "train":
        recipe = settings.recipes[id.method]
        return START + recipe.steps * recipe.batch * flops.training_flops(settings, id) / speed
    return START + demands.question_flops(settings, id, rule) / speed


@cache
def has_gpu(device: str) -> bool:
    """Whether jobs take turns on an accelerator, by what `device` of the settings says."""
    has_nvidia = shutil.which("nvidia-smi") is not None
    return device in ("cuda", "mps") or (device == "auto" and has_nvidia)


# --- in words


def duration(seconds: float) -> str:
    """ "40 seconds", "12 minutes", "3.5 hours", "9 days": two figures are as much as is known."""
    if seconds < 1.5 * MINUTE:
        return f"{seconds:.0f} seconds"
    if seconds < 1.5 * HOUR:
        return f"{seconds / MINUTE:.0f} minutes"
    if seconds < 2 * DAY:
        return f"{seconds / HOUR:.2g} hours"
    return f"{float(f'{seconds / DAY:.2g}'):,.0f} days"


def until(seconds: float, now: datetime) -> str:
    """The time of the day at which that is over, with the date where it is another day."""
    try:
        end = now + timedelta(seconds=seconds)
    except OverflowError:
        return "no day of this calendar"
    return f"{end:%H:%M}" if end.date() == now.date() else f"{end:%Y-%m-%d %H:%M}"


def counted(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs:,} jobs"


def with_slots(slots: int) -> str:
    return "one after the other" if slots == 1 else f"with {slots} at a time"
