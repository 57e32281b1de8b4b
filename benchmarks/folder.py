"""From a folder of images to a labelled table, timed: what a practitioner does, by the commands.

    python benchmarks/folder.py [--sets fashion_mnist,cifar10,orl_faces] [--draws N] [--json FILE]

A folder of PNG files is written (5,000 training images of Fashion-MNIST or CIFAR-10 with 20 labels
a class, or the 400 faces of ORL with 5 labels a person) beside a table of labels. Then

    whatwhere fit FOLDER --labels LABELS.csv      every setting as the program chooses it
    whatwhere predict RUN FOLDER --out PREDICTIONS.csv

and the predictions of the images without a label are held against their true classes. Beside it
stand support vector machines on raw pixels and on principal components with the same labels, and
the seconds of each command, from its start to its end.

Faces are read from `orl_faces/orl_faces.npz` (images, subject) in the data folder.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from whatwhere import runs
from whatwhere.core import UNLABELED
from whatwhere.data import sources
from whatwhere.data.images import Images, draw_labels, hide_labels
from whatwhere.data.sources.npz import read_arrays
from whatwhere.evaluate import measures, probes

SETS = {"fashion_mnist": (5_000, 200), "cifar10": (5_000, 200), "orl_faces": (400, 200)}
ROWS = {"swwae": "whatwhere fit, predict", "svm": "SVM on raw pixels", "pca": "SVM on PCA"}
TIMES = {"fit": "seconds of fit", "predict": "seconds of predict"}


def images_of(name: str, draw: int) -> Images:
    """Return the images of a set, in an order and with classes that tell nothing."""
    n, _ = SETS[name]
    if name == "orl_faces":
        arrays = read_arrays(sources.data_folder() / name / f"{name}.npz")
        y = arrays["subject"].astype(np.int64) - 1
        whole = Images(
            arrays["images"][:, np.newaxis], y, tuple(f"s{k + 1:02d}" for k in range(40))
        )
    else:
        whole = sources.load(name).train
    return whole.take(np.random.default_rng(draw).permutation(len(whole))[:n])


def write_folder(folder: Path, images: Images, shown: Images) -> Path:
    """Write each image as a PNG, and a table of the labels that are shown."""
    folder.mkdir()
    labels = folder.with_suffix(".csv")
    rows = [("file", "label")]
    for row, (x, label) in enumerate(zip(images.x, shown.y.tolist(), strict=True)):
        name = f"{row:05d}.png"
        Image.fromarray(np.squeeze(x.transpose(1, 2, 0))).save(folder / name)
        if label != UNLABELED:
            rows.append((name, str(images.classes[label])))
    runs.write_rows(labels, rows)
    return labels


def seconds_of(*words: Any) -> float:
    """Run a command; return its seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "whatwhere", *map(str, words)], check=True)
    return time.perf_counter() - began


def run(name: str, draw: int, place: Path) -> dict[str, Any]:
    """Return errors (percent, of the images without a label) and seconds of one draw."""
    images = images_of(name, draw)
    shown = hide_labels(images, draw_labels(images, SETS[name][1], seed=draw))
    folder = place / f"{name}-{draw}"
    labels = write_folder(folder, images, shown)
    out, said = place / f"{name}-{draw}-run", place / f"{name}-{draw}-said.csv"
    told: dict[str, Any] = {
        "fit": seconds_of("fit", folder, "--labels", labels, "--seed", draw, "--out", out),
        "predict": seconds_of("predict", out, folder, "--out", said),
    }
    with said.open(encoding="utf-8", newline="") as file:
        predicted = np.array([row["label"] for row in csv.DictReader(file)])
    hidden = shown.y == UNLABELED
    names = np.array([str(label) for label in images.classes])
    truth = images.y[hidden]
    told["swwae"] = 100 * float(np.mean(predicted[hidden] != names[truth]))
    for row, floor in (("svm", probes.floor_svm), ("pca", probes.floor_pca)):
        told[row] = 100 * float(np.mean(floor(shown.x, shown.y, images.x[hidden]) != truth))
    config = runs.read_config(out)
    told |= {"name": name, "draw": draw, "chosen": config["chosen"], "threads": config["threads"]}
    print({key: value for key, value in told.items() if key != "chosen"}, flush=True)
    return told


def table(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what was found as a table of the documents."""
    names = list(dict.fromkeys(one["name"] for one in found))

    def cells(key: str) -> list[dict[str, Any]]:
        each = [[one[key] for one in found if one["name"] == name] for name in names]
        return [measures.mean_interval(values) | {"published": None} for values in each]

    machine = runs.hardware()
    chosen = {one["name"]: one["chosen"] for one in found}
    return {
        "title": "From a folder of images to a labelled table",
        "caption": "Error in percent of the images without a label, and seconds of each command "
        "from its start to its end; mean ± deviation over (so many) draws of images and labels.",
        "command": "python benchmarks/folder.py",
        "unit": "error, %",
        "columns": [f"{name}: {SETS[name][0]:,} files, {SETS[name][1]} labels" for name in names],
        "rows": [{"label": label, "cells": cells(key)} for key, label in (ROWS | TIMES).items()],
        "differences": [],
        "notes": [
            f"Machine: {machine['processor']}, {found[0]['threads']} thread(s).",
            *(
                f"Chosen for {name}: {', '.join(f'{k} {v}' for k, v in values.items())}."
                for name, values in chosen.items()
            ),
        ],
        "found": found,
    }


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS), help="which sets, by commas")
    parser.add_argument("--draws", type=int, default=3, help="of images and labels")
    parser.add_argument("--json", type=Path, help="where to write the table")
    asked = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = str(Path(place) / "cache")  # every start is a first one
        for name in asked.sets.split(","):
            for draw in range(asked.draws):
                found.append(run(name, draw, Path(place)))
                if asked.json is not None:
                    asked.json.parent.mkdir(parents=True, exist_ok=True)
                    runs.write_json(asked.json, table(found))


if __name__ == "__main__":
    main()
