"""The time that a run still takes: from benchmarks, from FLOPs, and from how it goes."""

from datetime import datetime

import pytest

from registers import clock
from registers.clock import Clock, Pace, duration, guess, until
from registers.settings.load import load_settings

TRAININGS = [("train", f"dinov2-r{registers}-s0") for registers in (0, 1, 2, 4)]
SPEED = 1e9  # FLOP/s


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clock, "core_flops", lambda: SPEED / clock.SHARE)
    return load_settings({"scale": "laptop"})


def ran(settings, work, seconds):
    path = settings.layout.benchmark(*work)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\n{seconds}\t0:00:00\n")


def test_a_job_takes_what_it_took(settings):
    ran(settings, TRAININGS[0], 100)
    ran(settings, ("cost", ""), 3)
    known = Clock(settings, [TRAININGS[0], ("cost", "")], slots=1)
    assert (known.left(), known.measured) == (103, 2)
    assert Clock(settings, [TRAININGS[0], ("cost", "")], slots=2).left() == 100  # the longest


def test_a_guess_follows_flops_and_learns_from_its_kind(settings):
    guesses = {work: guess(settings, work, SPEED) for work in TRAININGS}
    assert guesses[TRAININGS[3]] > guesses[TRAININGS[0]] > 100  # seconds, at 1 GFLOP/s
    assert Clock(settings, TRAININGS[3:], 1).left() == pytest.approx(guesses[TRAININGS[3]])
    for work in TRAININGS[:3]:
        ran(settings, work, 3 * guesses[work])
    expected = Clock(settings, TRAININGS[3:], 1).left()
    assert expected == pytest.approx(3 * guesses[TRAININGS[3]], rel=0.1)


def test_jobs_that_end_correct_the_others(settings):
    for work in TRAININGS:
        ran(settings, work, 200)
    followed = Clock(settings, TRAININGS, slots=2)
    assert followed.left() == 400
    ran(settings, TRAININGS[0], 400)  # the machine is busier today
    left = followed.left(TRAININGS[:1], {TRAININGS[1]: 100})
    assert 400 < left < 3 * 400 / 2
    assert followed.left(TRAININGS) == 0


def test_a_job_that_is_late_says_that_the_others_will_be(settings):
    for work in TRAININGS:
        ran(settings, work, 100)
    followed = Clock(settings, TRAININGS, slots=1)
    assert followed.left((), {TRAININGS[0]: 50}) == 350
    assert followed.left((), {TRAININGS[0]: 300}) > 600


def test_short_jobs_say_little_about_long_ones(settings):
    """Listing data takes half a second where a guess says four: no reason to halve all others."""
    took = {("data", str(n)): 0.5 for n in range(7)}
    pace = Pace(took, dict.fromkeys(took, 4.0))
    assert 0.5 < pace(TRAININGS[0]) < 0.8
    assert Pace({}, {})(TRAININGS[0]) == 1


def test_backbones_take_turns_on_a_gpu(settings):
    for work in [*TRAININGS, ("cost", "")]:
        ran(settings, work, 100)
    assert Clock(settings, [*TRAININGS, ("cost", "")], slots=4, on_gpu=True).left() == 400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 seconds"),
        (75, "75 seconds"),
        (1500, "25 minutes"),
        (12600, "3.5 hours"),
        (1e6, "12 days"),
        (1e12, "12,000,000 days"),
    ],
)
def test_durations_are_words(seconds, words):
    assert duration(seconds) == words


def test_the_end_has_a_date_where_it_is_another_day():
    evening = datetime(2026, 11, 22, 23, 30)
    assert until(600, evening) == "23:40"
    assert until(3600, evening) == "2026-11-23 00:30"
    assert until(1e20, evening) == "no day of this calendar"


def test_this_machine_is_measured_in_a_moment():
    assert 1e8 < clock.core_flops() < 1e13
