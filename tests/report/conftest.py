"""Run folders as training leaves them, small, with numbers of a realistic size."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def stage(name: str, epochs: int) -> dict[str, Any]:
    return {
        "name": name,
        "updates": ["loss: Adam on all"],
        "epochs": epochs,
        "batch_size": 100,
        "sampler": "mixed: 50 labeled + 50 unlabeled",
        "view": "identity",
        "steps_per_epoch": 1200,
    }


def config(stages: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {
        "format": 1,
        "model": "swwae",
        "params": {
            "architecture": "(16)5c-2p-(32)3c-2p",
            "reconstruction": 1.0,
            "middle": 0.2,
            "learning_rate": 0.002,
            "batch_norm": True,
            "dropout": 0.5,
            "reconstruct_labeled": True,
            "middle_target": "stop-gradient",
        },
        "spec": {"shape": [1, 28, 28], "n_samples": 60000, "n_classes": 10},
        "classes": list(range(10)),
        "parameters": {"encoder": 5056, "decoder": 5042, "classifier": 15690},
        "stages": stages or [stage("joint", 20)],
        "data": {
            "name": "mnist",
            "fingerprint": "ab12cd34ef567890",
            "n_train": 60000,
            "n_test": 10000,
            "n_labeled": 100,
            "labels": "100",
            "label_seed": 0,
            "n_validation": 0,
            "validation_use": "nothing",
        },
        "seed": 0,
        "versions": {"python": "3.11.7", "torch": "2.13.0", "whatwhere": "0.1.0"},
        "hardware": {"processor": "x86_64", "cores": 2, "device": "cpu"},
        "threads": 1,
        "precision": "32-true",
        "command": "whatwhere fit mnist --model swwae --labels 100 --out runs/swwae-100",
    }


def metrics(stages: list[dict[str, Any]], validation: bool = False) -> list[dict[str, Any]]:
    """Losses that fall like a power of the epoch, with a little noise."""
    random = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for one in stages:
        for epoch in range(one["epochs"]):
            far = len(lines) + 1
            noise = 1 + 0.05 * random.standard_normal(3)
            line = {
                "stage": one["name"],
                "epoch": epoch,
                "seconds": 12.5,
                "images_per_second": 4800.0,
                "waiting": 0.03,
                "learning_rate": 0.002 * 0.9**far,
                "loss/reconstruction": 0.05 * far**-0.8 * noise[0],
                "loss/middle": 0.31 * far**-0.4 * noise[1],
                "loss/nll": 1.9 * far**-1.6 * noise[2],
            }
            if validation:
                line["validation/error"] = 9 + 40 * far**-1.3
            lines.append(line)
    return lines


def confusion(n_classes: int, each: int, error: float) -> list[list[int]]:
    random = np.random.default_rng(1)
    likeness = random.dirichlet(np.full(n_classes, 0.3), n_classes)
    matrix = [random.multinomial(round(each * error * 2 * random.random()), p) for p in likeness]
    for i, row in enumerate(matrix):
        row[i] = each - (row.sum() - row[i])
    return [[int(count) for count in row] for row in matrix]


def evaluation(n_classes: int = 10, each: int = 1000) -> dict[str, Any]:
    counts = confusion(n_classes, each, 0.09)
    return {
        "n": n_classes * each,
        "accuracy": 0.9096,
        "error": 9.04,
        "interval": [8.49, 9.62],
        "reconstruction_mse": 0.003182,
        "confusion": counts,
        "classes": list(range(n_classes)),
        "floors": [
            {
                "name": "CNN on the labels alone, same 100 labels",
                "error": 20.31,
                "interval": [19.53, 21.11],
            },
            {
                "name": "SVM on raw pixels, same 100 labels",
                "error": 22.53,
                "interval": [21.72, 23.36],
            },
        ],
    }


def panels(folder: Path) -> None:
    """Three pictures of blurred noise, and their words."""
    random = np.random.default_rng(2)

    def picture(name: str, high: int, wide: int, size: int, **words: Any) -> None:
        tiles = random.random((high, wide, size, size)).cumsum(-1).cumsum(-2)
        tiles -= tiles.min((-1, -2), keepdims=True)
        tiles /= tiles.max((-1, -2), keepdims=True)
        tiles = np.pad(tiles, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=1)
        sheet = (255 * tiles.transpose(0, 2, 1, 3).reshape(high * (size + 2), -1)).astype("uint8")
        scale = max(1, 900 // sheet.shape[1])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet.repeat(scale, 0).repeat(scale, 1)).save(folder / f"{name}.png")
        save(folder / f"{name}.json", words)

    picture(
        "reconstructions", 2, 16, 28, title="Reconstructions", order=10,
        caption="Above the test image, below what the model rebuilds from its what and where.",
    )  # fmt: skip
    picture(
        "filters", 2, 8, 5, title="First-layer filters", order=20,
        caption="Each square is one filter of the first layer; middle gray is zero.",
    )  # fmt: skip
    picture(
        "mistakes", 3, 8, 28, title="The most confident mistakes", order=5,
        caption="Test images given a wrong class, the most confident first.",
        rows=[
            {"row": 1247 + i, "true": 4, "predicted": 9, "probability": 0.998 - 0.01 * i}
            for i in range(24)
        ],
    )  # fmt: skip


def sheet(n: int, tile: int = 32, columns: int = 30) -> Image.Image:
    """Return `n` gray thumbnails, `columns` a row."""
    rows = -(-n // columns)
    shades = np.random.default_rng(3).integers(0, 255, (rows, columns), dtype="uint8")
    return Image.fromarray(shades.repeat(tile, 0).repeat(tile, 1))


def map_words(n: int = 40, n_classes: int = 10) -> dict[str, Any]:
    """Return the words of a map: of every fifth image the class is not known."""
    places = np.random.default_rng(4).random((n, 2))
    return {
        "title": "Map of the images",
        "caption": "Images that are described alike lie near each other.",
        "order": 15,
        "kind": "map",
        "method": "t-SNE",
        "tile": 32,
        "columns": 30,
        "points": [
            {
                "x": float(x),
                "y": float(y),
                "tile": i,
                "file": f"test/kind {i % n_classes}/{i}.png",
                "class": None if i % 5 == 0 else str(i % n_classes),
                "predicted": str((i + (i % 7 == 0)) % n_classes),
                "probability": 0.875,
            }
            for i, (x, y) in enumerate(places)
        ],
    }


def worth_labelling_words(n: int = 24) -> dict[str, Any]:
    return {
        "title": "Images most worth labelling next",
        "caption": "The model is least sure of these.",
        "order": 35,
        "kind": "worth_labelling",
        "rows": [
            {"file": f"unlabeled/{i}.png", "guess": "4", "probability": 0.41, "second": "9"}
            for i in range(n)
        ],
    }


def folder_config() -> dict[str, Any]:
    """Return the config of a run on a folder of images, with all that a run can record."""
    found = config()
    found["job"] = {
        "data": "/home/me/my scans",
        "labels": "all",
        "split": "train",
        "image_size": 28,
        "fit": "pad",
        "keep_depth": False,
    }
    found["data"] |= {
        "name": "my scans",
        "n_skipped": 3,
        "skipped": [{"file": f"odd/{i}.png", "reason": "cut short"} for i in range(2)],
        "labels_by_class": {str(i): 91 if i == 0 else 1 for i in range(10)},
    }
    found["params"]["class_weight"] = "balanced"
    found["chosen"] = {"architecture": "(16)5c-2p-(32)3c-2p", "batch_size": 100, "epochs": 20}
    found["start"] = "runs/earlier"
    return found


def calibration(n_validation: int = 120) -> dict[str, Any]:
    return {
        "temperature": 1.43 if n_validation else 1.0,
        "n_validation": n_validation,
        "error_before": 9.2,
        "error": 3.1 if n_validation else 9.2,
        "nll_before": 0.61,
        "nll": 0.52 if n_validation else 0.61,
    }


def table() -> dict[str, Any]:
    def cell(mean: float, sd: float, published: str | None = None) -> dict[str, Any]:
        half = 4.303 * sd / 3**0.5
        return {
            "mean": mean,
            "sd": sd,
            "n": 3,
            "interval": [round(mean - half, 2), round(mean + half, 2)],
            "published": published,
            "note": "",
        }

    return {
        "title": "Semi-supervised MNIST",
        "caption": "How much do 59,900 images without labels help? Test error of the same small "
        "network with and without them.",
        "command": "whatwhere reproduce swwae-mnist --seeds 3 --out results/swwae-mnist",
        "unit": "test error, %",
        "columns": ["100 labels", "600 labels", "1000 labels", "3000 labels"],
        "rows": [
            {
                "label": "SWWAE",
                "cells": [
                    cell(8.14, 0.61, "8.71 ± 0.34"),
                    cell(3.22, 0.2, "3.31 ± 0.40"),
                    cell(2.71, 0.11, "2.83 ± 0.10"),
                    cell(2.04, 0.05, "2.10 ± 0.22"),
                ],
            },
            {
                "label": "CNN on the labels alone",
                "cells": [cell(17.9, 1.2), cell(5.61, 0.3), cell(4.43, 0.2), cell(2.61, 0.1)],
            },
            {
                "label": "SVM on raw pixels",
                "cells": [cell(22.5, 2.0), cell(8.5, 0.4), cell(6.7, 0.2), None],
            },
        ],
        "differences": [
            {
                "label": "labels alone minus SWWAE",
                "cells": [
                    {"mean": 9.76, "interval": [6.9, 12.6], "n": 3},
                    {"mean": 2.39, "interval": [1.6, 3.2], "n": 3},
                    {"mean": 1.72, "interval": [1.1, 2.3], "n": 3},
                    {"mean": 0.57, "interval": [-0.1, 1.2], "n": 3},
                ],
            }
        ],
        "notes": ["Loss weights were chosen on 1,000 validation images of the training set."],
    }


class Folders:
    """Writes folders below `root`, and gives the parts they are made of."""

    stage = staticmethod(stage)
    config = staticmethod(config)
    metrics = staticmethod(metrics)
    evaluation = staticmethod(evaluation)
    folder_config = staticmethod(folder_config)
    calibration = staticmethod(calibration)
    map_words = staticmethod(map_words)
    save = staticmethod(save)

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(
        self,
        name: str = "run",
        *,
        config: dict[str, Any] | None = None,
        metrics: list[dict[str, Any]] | None = None,
        evaluation: dict[str, Any] | None = None,
        pictures: bool = True,
        weights: bool = True,
        checkpoint: bool = False,
    ) -> Path:
        """Write a run; a part that is not given is realistic, an empty one is left out."""
        folder = self.root / name
        config = self.config() if config is None else config
        metrics = self.metrics(config["stages"]) if metrics is None else metrics
        evaluation = self.evaluation() if evaluation is None else evaluation
        save(folder / "config.json", config)
        if metrics:
            text = "".join(json.dumps(line) + "\n" for line in metrics)
            (folder / "metrics.jsonl").write_text(text)
        if evaluation:
            save(folder / "evaluation.json", evaluation)
        if pictures:
            panels(folder / "panels")
        if weights:
            (folder / "model.safetensors").write_bytes(b"")
        if checkpoint:
            (folder / "checkpoint").mkdir()
        return folder

    def practitioner(self, name: str = "scans") -> Path:
        """Write a run on a folder of images, with every part that a run can have."""
        measured = self.evaluation() | {"balanced_error": 12.5, "calibration": self.calibration()}
        measured["confusion"][1] = [n // 5 for n in measured["confusion"][1]]
        folder = self.run(name, config=self.folder_config(), evaluation=measured)
        self.map(folder)
        sheet(24, 64, 8).save(folder / "panels" / "worth_labelling.png")
        save(folder / "panels" / "worth_labelling.json", worth_labelling_words())
        (folder / "label-next.csv").write_text("file,label\nunlabeled/0.png,\n")
        return folder

    def map(self, folder: Path, **changes: Any) -> dict[str, Any]:
        """Write a map into a run, and return its words."""
        words = map_words() | changes
        (folder / "panels").mkdir(exist_ok=True)
        sheet(len(words["points"])).save(folder / "panels" / "map.png")
        save(folder / "panels" / "map.json", words)
        return words

    def table(self, name: str = "comparison", **changes: Any) -> Path:
        """Write a comparison with a table of three rows and four columns."""
        folder = self.root / name
        save(folder / "table.json", table() | changes)
        return folder


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


class Page(HTMLParser):
    """A page taken apart: its text, its elements with their attributes, and what is not closed.

    A browser mends what is wrong; here it is listed in `faults`.
    """

    EMPTY = frozenset({"meta", "link", "img", "br", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes nothing")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def module_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Folders]:
    return lambda name: Folders(tmp_path_factory.mktemp(name))


@pytest.fixture
def page() -> type[Page]:
    return Page
