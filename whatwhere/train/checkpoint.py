"""Checkpoints: one folder, renamed into place, that a killed run goes on from."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

STATE, PLACE = "state.pt", "place.json"


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(folder.name + suffix)


def write(folder: Path, state: dict[str, Any], place: dict[str, Any]) -> None:
    """Write tensors and the place in the run; a kill at any moment leaves one whole checkpoint.

    Parameters
    ----------
    folder : Path
        The checkpoint; a former one is replaced.
    state : dict
        Tensors and plain values, as `torch.load(weights_only=True)` reads them.
    place : dict
        What a person may want to read, as JSON.
    """
    fresh, former = _beside(folder, ".new"), _beside(folder, ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    content = io.BytesIO()
    torch.save(state, content)
    (fresh / STATE).write_bytes(content.getvalue())  # torch would not say that a disk is full
    (fresh / PLACE).write_text(json.dumps(place))
    for part in fresh.iterdir():
        with part.open("rb") as file:
            os.fsync(file.fileno())
    # Where an earlier kill fell between the two renames, `former` is the only one: it stays until
    # `fresh` has its place.
    if folder.exists():
        shutil.rmtree(former, ignore_errors=True)
        folder.rename(former)
    fresh.rename(folder)
    shutil.rmtree(former, ignore_errors=True)


def find(folder: Path) -> Path | None:
    """Return where the last whole checkpoint lies, or None where there is none.

    `folder` is missing only before the first checkpoint and between two renames of `write`; in the
    second case the former one still lies beside it.
    """
    former = _beside(folder, ".old")
    return next((place for place in (folder, former) if place.exists()), None)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return (state, place) of the last whole checkpoint, or None where there is none."""
    found = find(folder)
    if found is None:
        return None
    state = torch.load(found / STATE, weights_only=True, map_location="cpu")
    return state, json.loads((found / PLACE).read_text())


def remove(folder: Path) -> None:
    """Remove the checkpoint and what a kill may have left beside it."""
    for suffix in ("", ".new", ".old"):
        shutil.rmtree(_beside(folder, suffix), ignore_errors=True)
