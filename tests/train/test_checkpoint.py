import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count, product
from math import inf
from pathlib import Path

import pytest
import torch

from whatwhere.train import checkpoint


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def write(folder: Path, number: int) -> None:
    checkpoint.write(folder, {"w": torch.full((3,), float(number))}, {"step": number})


def number_in(folder: Path) -> int | None:
    """Return which checkpoint is found, after a check that it is whole."""
    found = checkpoint.read(folder)
    if found is None:
        return None
    state, place = found
    assert state["w"].tolist() == [place["step"]] * 3
    return place["step"]


@contextmanager
def killed_after(n: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Kill at the n-th operation on the disk, which is done by half.

    Yields the operations done whole.
    """
    done: list[str] = []

    def patch(where: object, name: str, half: Callable[..., None]) -> None:
        whole = getattr(where, name)

        def operation(*args, **settings):
            if len(done) == n:
                half(*args)
                raise Killed
            done.append(name)
            return whole(*args, **settings)

        context.setattr(where, name, operation)

    def write_half(path: Path, content: bytes | str) -> None:
        content = content.encode() if isinstance(content, str) else content
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])

    def remove_half(folder: Path, *_: object) -> None:
        for part in sorted(Path(folder).glob("*"))[:1]:
            part.unlink()

    def nothing(*_: object) -> None:
        pass

    with monkeypatch.context() as context:
        patch(Path, "write_bytes", write_half)
        patch(Path, "write_text", write_half)
        patch(shutil, "rmtree", remove_half)
        patch(Path, "rename", nothing)
        patch(Path, "mkdir", nothing)
        patch(os, "fsync", nothing)
        yield done


def kills(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Write, killed at each operation in turn; yield which it was."""
    for n in count():
        with killed_after(n, monkeypatch):
            try:
                write(folder, number)
            except Killed:
                pass
            else:
                return
        yield n


def test_what_was_written_is_read(tmp_path: Path):
    state = {
        "module": {"w": torch.arange(4.0), "n": torch.tensor(3)},
        "updates": [{"optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "groups": [1e-3]}}],
        "best": None,
        "counts": {"loss/nll": 2},
    }
    place = {"stage": 1, "best": inf, "history": [{"loss/nll": 0.1 + 0.2, "epoch": 0}]}
    checkpoint.write(tmp_path / "checkpoint", state, place)
    found = checkpoint.read(tmp_path / "checkpoint")
    assert found is not None
    assert found[1] == place
    assert torch.equal(found[0]["module"].pop("w"), state["module"].pop("w"))
    assert found[0] == state


def test_a_later_checkpoint_replaces_the_former_and_leaves_nothing_beside_it(tmp_path: Path):
    folder = tmp_path / "run" / "checkpoint"
    for number in range(3):
        write(folder, number)
        assert number_in(folder) == number
        assert list(folder.parent.iterdir()) == [folder]


def test_where_nothing_was_written_nothing_is_found(tmp_path: Path):
    assert checkpoint.find(tmp_path / "checkpoint") is None
    assert checkpoint.read(tmp_path / "checkpoint") is None


def test_a_person_can_read_the_place(tmp_path: Path):
    write(tmp_path / "checkpoint", 7)
    assert json.loads((tmp_path / "checkpoint" / "place.json").read_text()) == {"step": 7}


def test_reading_runs_nothing_that_was_pickled(tmp_path: Path):
    class Loud:
        def __reduce__(self):
            return print, ("ran",)

    checkpoint.write(tmp_path / "checkpoint", {"w": Loud()}, {})
    with pytest.raises(Exception, match=r"weights_only|Unsupported|GLOBAL"):
        checkpoint.read(tmp_path / "checkpoint")


def test_a_kill_at_any_moment_leaves_the_former_checkpoint_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = set()
    write(tmp_path / "checkpoint", 1)
    for _ in kills(tmp_path / "checkpoint", 2, monkeypatch):
        number = number_in(tmp_path / "checkpoint")
        seen.add(number)
        write(tmp_path / "checkpoint", 1)
        assert number_in(tmp_path / "checkpoint") == 1
    assert seen == {1, 2}


def test_a_second_kill_at_any_moment_does_no_more_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # for power failures, and slow
    write(tmp_path / "checkpoint", 0)
    with killed_after(1000, monkeypatch) as operations:
        write(tmp_path / "checkpoint", 1)
    seen = set()
    for first, second in product(range(len(operations) + 1), repeat=2):
        folder = tmp_path / f"{first}-{second}" / "checkpoint"
        write(folder, 1)
        for number, n in ((2, first), (3, second)):
            with killed_after(n, monkeypatch), suppress(Killed):
                write(folder, number)
        seen.add(number_in(folder))
        write(folder, 4)
        assert number_in(folder) == 4
    assert seen == {1, 2, 3}


def test_a_kill_before_the_first_checkpoint_is_whole_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for _ in kills(tmp_path / "checkpoint", 1, monkeypatch):
        assert number_in(tmp_path / "checkpoint") in (None, 1)
        checkpoint.remove(tmp_path / "checkpoint")


def test_removing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "checkpoint", 1)
    for _ in kills(tmp_path / "checkpoint", 2, monkeypatch):
        checkpoint.remove(tmp_path / "checkpoint")
        assert not list(tmp_path.iterdir())
        write(tmp_path / "checkpoint", 1)
