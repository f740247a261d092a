"""A job that makes no step says so, once and then ever more rarely."""

import time

import test_train
from test_train import Noise, run

from registers import train
from registers.watchdog import Watchdog

no_store = test_train.no_store  # a fixture


def test_a_data_set_that_sleeps_is_named_in_the_log(tmp_path, monkeypatch, caplog):
    class Asleep(Noise):
        def __getitem__(self, index):
            if time.monotonic() > asleep_from:
                time.sleep(0.2)
            return super().__getitem__(index)

    asleep_from = time.monotonic() + 1e9
    finish = train._Log.step

    def sleep_after_the_third(log, step):
        nonlocal asleep_from
        finish(log, step)
        asleep_from = 0 if step == 3 else time.monotonic() + 1e9

    monkeypatch.setattr(train._Log, "step", sleep_after_the_third)
    monkeypatch.setattr(train, "Watchdog", lambda name: Watchdog(name, seconds=0.5))
    monkeypatch.setattr(test_train, "Noise", Asleep)
    run(tmp_path)
    lines = [m for m in caplog.messages if "after step 3" in m]
    assert lines and all(m.startswith("deit3-r2-s0: no step for") for m in lines)
    assert "(__getitem__)" in lines[0]


def test_it_is_silent_while_steps_are_made_and_after_the_end(caplog):
    watchdog = Watchdog("a", seconds=0.4)
    for step in range(5):
        time.sleep(0.05)
        watchdog.step(step)
    watchdog.stop()
    time.sleep(0.8)
    assert not caplog.messages
