"""Stopping a run from outside: Ctrl-C and SIGTERM end it at the next step, with a checkpoint."""

import signal
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

LOOK_EVERY = 0.1  # seconds


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Give a `stop` that says whether a signal came; a second signal ends the program at once."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(number, former[number])

    former: dict[int, Any] = {
        number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def interrupted_by(stop: Callable[[], bool]) -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the block, which takes no steps, when `stop` says so."""
    done = Event()

    def look() -> None:
        while not done.wait(LOOK_EVERY):
            if stop():
                interrupt_main(signal.SIGTERM)
                break

    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    watching = Thread(target=look, daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()
        signal.signal(signal.SIGTERM, former)
