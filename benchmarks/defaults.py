"""Which settings work on a few thousand images with few labels: what the defaults are chosen by.

    python benchmarks/defaults.py [--json FILE] [--data-dir DIR]

Images, labels and validation images all come from training parts. One thread. A row is written as
soon as it is measured; rows that FILE has are kept, so that a run that was stopped goes on.
"""

import argparse
import json
import time
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from whatwhere import runs
from whatwhere.data import sources
from whatwhere.data.images import Images, draw_labels, draw_validation, hide_labels
from whatwhere.evaluate import probes
from whatwhere.models import learner_class

N, N_VALIDATION, COMPONENTS = 5000, 2000, 50
NETS = {
    "WIDE": "(32)5c-2p-(64)3c-2p",
    "TWO": "(16)5c-2p-(32)3c-2p",
    "THREE": "(16)5c-2p-(32)3c-2p-(64)3c-2p",
    "WIDER": "(32)5c-2p-(64)3c-2p-(128)3c-2p",
    "COARSE": "(16)5c-4p-(32)3c-2p-(64)3c-2p",
    "FOUR": "(16)5c-2p-(32)3c-2p-(64)3c-2p-(128)3c-2p",
}
# So that a row does not change its meaning when a default does.
SHARED = {"batch_size": 100, "labeled_share": 0.5, "learning_rate": 6e-3, "decay_from": 0.5}
SHARED |= {"dropout": 0.5, "shift": 0}
DECODED = {"reconstruction": 1.0, "middle": 0.2, "noise": 0.0}
PLAN = """
fashion_mnist/200 svm,svm+pca 0,1
fashion_mnist/200 swwae,cnn 0 WIDE epochs=5
fashion_mnist/200 swwae 0 TWO epochs=5
fashion_mnist/200 swwae,cnn 0,1 THREE epochs=5
fashion_mnist/200 swwae,cnn 0,1 THREE epochs=5 shift=2
fashion_mnist/200 swwae 0 THREE epochs=2
fashion_mnist/200 swwae 0 THREE epochs=10
fashion_mnist/200 swwae 0 THREE epochs=5 noise=0.15
fashion_mnist/200 swwae 0 THREE epochs=8 labeled_share=0.2
fashion_mnist/200 swwae 0 THREE epochs=5 learning_rate=0.002
fashion_mnist/200 swwae 1 WIDE epochs=5
cifar10/200 svm,svm+pca 0,1
cifar10/200 swwae,cnn 0 WIDE epochs=5
cifar10/200 swwae,cnn 0 THREE epochs=5
cifar10/200 swwae,cnn 0,1 THREE epochs=5 shift=2
cifar10/200 swwae 0 THREE epochs=10 shift=2
cifar10/200 swwae 0 WIDER epochs=5 shift=2
orl/200 svm,svm+pca 0,1
orl/200 swwae,cnn 0 FOUR epochs=20 batch_size=32
orl/200 swwae 0 COARSE epochs=20 batch_size=32
orl/200 swwae,cnn 0,1 COARSE epochs=10 batch_size=32
orl/200 swwae 0 COARSE epochs=20 batch_size=100
orl/200 swwae 0 COARSE epochs=10 batch_size=32 shift=2
orl/200 swwae 0 COARSE epochs=10 batch_size=16
"""
Row = tuple[str, str, int, dict[str, Any]]  # set/labels, method, seed, settings


def plan() -> list[Row]:
    """Return what PLAN asks for."""
    rows: list[Row] = []
    for name, models, seeds, *said in map(str.split, PLAN.strip().splitlines()):
        settings: dict[str, Any] = {"architecture": NETS[said[0]]} if said else {}
        settings |= {key: json.loads(text) for key, text in (pair.split("=") for pair in said[1:])}
        each = product(models.split(","), seeds.split(","))
        rows += [(name, model, int(seed), settings) for model, seed in each]
    return rows


@cache
def images(name: str, data_dir: str | None) -> Images:
    """Return training images; `orl` has no loader, and no test part."""
    if name != "orl":
        return sources.load(name, data_dir=data_dir).train
    with np.load(sources.data_folder(data_dir) / "orl_faces" / "orl_faces.npz") as arrays:
        x, subject = arrays["images"][:, None], arrays["subject"].astype(np.int64)
    return Images(np.ascontiguousarray(x), subject - 1, tuple(range(1, 41)))


def task(name: str, seed: int, data_dir: str | None) -> tuple[Images, Images]:
    """Return images to learn from and others to validate on; of few, all and the unlabeled."""
    source, _, labels = name.partition("/")  # such as fashion_mnist/200
    whole = images(source, data_dir)
    shown = draw_labels(whole, int(labels), seed=seed)
    others = np.setdiff1d(np.arange(len(whole)), shown)
    if len(whole) < N + N_VALIDATION:
        return hide_labels(whole, shown), whole.take(others)
    held_out = draw_validation(whole, N_VALIDATION, keep=shown, seed=seed)
    free = np.setdiff1d(others, held_out)
    rest = np.random.default_rng(seed).permutation(free)[: N - len(shown)]
    return hide_labels(whole, shown).take(np.concatenate([shown, rest])), whole.take(held_out)


def predicted(model: str, settings: dict[str, Any], seed: int, train: Images, x: Any) -> Any:
    """Return the classes that a method gives the images x."""
    if model == "svm":
        return probes.floor_svm(train.x, train.y, x)
    if model == "svm+pca":
        pixels = probes.raw_pixels(train.x), probes.raw_pixels(x)
        pca = PCA(COMPONENTS, random_state=seed).fit(pixels[0])  # the SVM sees labeled rows alone
        return probes.svm().fit(pca.transform(pixels[0]), train.y).predict(pca.transform(pixels[1]))
    settings = SHARED | (DECODED if model == "swwae" else {}) | settings
    learner: Any = learner_class(model)(**settings, random_state=seed)
    return learner.fit(train.x, train.y).predict(x)


def measure(row: Row, train: Images, validation: Images) -> dict[str, Any]:
    """Return a row of the table."""
    name, model, seed, settings = row
    wall, processor = time.perf_counter(), time.process_time()
    wrong = predicted(model, settings, seed, train, validation.x) != validation.y
    of = {"set": name, "model": model, "seed": seed, "settings": settings}
    of |= {"n": len(train), "shape": train.shape, "labels": train.n_labeled}
    took = {"minutes": (time.perf_counter() - wall) / 60}
    took |= {"processor_minutes": (time.process_time() - processor) / 60}
    error = {"validation_error": 100.0 * float(wrong.mean()), "n_validation": len(wrong)}
    return of | error | took


def lines(told: dict[str, Any]) -> list[str]:
    """Return what was measured as text, the draws of one setting together."""
    draws: dict[str, list[dict[str, Any]]] = {}
    for row in told["rows"]:
        settings = " ".join(str(value) if key == "architecture" else f"{key}={value}"
                            for key, value in row["settings"].items())  # fmt: skip
        draws.setdefault(f"{row['set']:18} {row['model']:8} {settings:66}", []).append(row)
    found = [f"{'set/labels':18} {'method':8} {'settings':66} validation error, %  processor s"]
    for name, rows in sorted(draws.items()):
        errors = ", ".join(f"{row['validation_error']:.1f}" for row in rows)
        seconds = 60 * sum(row["processor_minutes"] for row in rows) / len(rows)
        found.append(f"{name} {errors:19} {seconds:12.0f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--data-dir", help="folder of the data sets; else WHATWHERE_DATA")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    told: dict[str, Any] = {"machine": runs.hardware(), "versions": runs.versions()}
    told |= {"shared": SHARED, "shared_by_swwae": DECODED, "rows": []}
    if arguments.json and arguments.json.exists():
        told = json.loads(arguments.json.read_text())
    done = [tuple(row[key] for key in ("set", "model", "seed", "settings")) for row in told["rows"]]
    for row in filter(lambda row: row not in done, plan()):
        told["rows"] += [new := measure(row, *task(row[0], row[2], arguments.data_dir))]
        print(*row, f"{new['validation_error']:.1f} %, {new['minutes']:.1f} min", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
