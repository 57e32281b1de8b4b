import csv
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from whatwhere import cli


@pytest.fixture
def say(monkeypatch, capsys):
    """Run a command in this process; return its exit code, its stdout and its stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["whatwhere", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def refused(say):
    """Run a command that must be refused with exit code 2 and one line; return the line."""

    def run(*words):
        code, _, err = say(*words)
        assert code == 2, err
        lines = [line for line in err.splitlines() if line.startswith("whatwhere:")]
        assert len(lines) == 1 == len(err.strip().splitlines()), err
        return lines[0]

    return run


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """Keep decoded images where no other test, and no user, looks for them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def photos():
    """What makes and reads folders: `digits`, `write_images`, `write_labels`, `rows_of`."""
    return SimpleNamespace(
        digits=digits, write_images=write_images, write_labels=write_labels, rows_of=rows_of
    )


def digits(n=120):
    """Return digits as bytes (n, 8, 8), and what they are called."""
    images, y = load_digits(return_X_y=True)
    images = np.round(images[:n].reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    return images, [f"digit {label % 3}" for label in y[:n]]


def write_images(folder: Path, images, names) -> None:
    for image, name in zip(images, names, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def write_labels(path: Path, rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    return path


@pytest.fixture
def folder(tmp_path):
    """A flat folder of 120 digits, and a table with the labels of the first 60."""
    images, labels = digits()
    names = [f"{row:03}.png" for row in range(len(images))]
    write_images(tmp_path / "photos", images, names)
    write_labels(tmp_path / "labels.csv", list(zip(names, labels, strict=True))[:60])
    return tmp_path / "photos"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
