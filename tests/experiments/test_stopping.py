import signal
import threading
import time

import pytest

from whatwhere.experiments.stopping import interrupted_by, stoppable


def test_a_block_that_takes_no_steps_is_interrupted():
    asked = threading.Event()
    threading.Timer(0.2, asked.set).start()
    former = signal.getsignal(signal.SIGTERM)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interrupted_by(asked.is_set):
        while time.monotonic() < began + 30:
            pass
    assert time.monotonic() < began + 20
    assert signal.getsignal(signal.SIGTERM) is former


def test_a_block_that_nobody_stops_ends_by_itself():
    n_threads = threading.active_count()
    with interrupted_by(lambda: False):
        assert threading.active_count() == n_threads + 1
    assert threading.active_count() == n_threads


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_a_second_one_ends_the_program(number: signal.Signals):
    former = signal.signal(number, signal.default_int_handler)
    try:
        with stoppable() as stop:
            assert not stop()
            signal.raise_signal(number)
            assert stop()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    finally:
        signal.signal(number, former)
