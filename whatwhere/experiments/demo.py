"""The demo: what unlabeled images add on small digits, in about a minute."""

import json
from pathlib import Path
from typing import Any

from whatwhere import runs
from whatwhere.experiments.fitting import fit
from whatwhere.experiments.job import Job
from whatwhere.experiments.table import TABLE, Watch

LABELS = 50
SETTINGS = {"architecture": "(16)3c-2p-(32)3c-4p", "epochs": 30, "learning_rate": 0.01}
OWN = {"swwae": {"reconstruction": 1.0, "middle": 0.1, "noise": 0.15}, "cnn": {}}
ROWS = {"swwae": "SWWAE, 50 labels and the rest unlabeled", "cnn": "the same net on the 50 labels"}


def run(out: Path, watch: Watch, command: str) -> dict[str, Any]:
    """Fit a semi-supervised SWWAE and the same net on the labels alone, beside the floor.

    Parameters
    ----------
    out : Path
        New folder: a run folder for each net, and the table of all.
    watch : callable (name) -> sequence of Watcher
    command : str

    Returns
    -------
    dict
        The table.
    """
    runs.create(out)
    results: dict[str, dict[str, Any]] = {}
    floors: dict[str, dict[str, Any]] = {}
    for model, row in ROWS.items():
        job = Job(data="digits", model=model, labels=str(LABELS), settings=SETTINGS | OWN[model])
        fit(job, out / model, watch=watch(model), command=command)
        told = json.loads((out / model / runs.EVALUATION).read_text(encoding="utf-8"))
        results[row] = told
        floors |= {floor["name"]: floor for floor in told["floors"]}
    table = {
        "title": "Digits with 50 labels",
        "caption": f"Test error on {told['n']} images of 8 x 8 pixels that no net has seen, with "
        "its 95 % interval. 50 training images have a label, 5 of each digit.",
        "command": command,
        "unit": "test error, %",
        "columns": [f"{LABELS} labels"],
        "rows": [
            {
                "label": row,
                "cells": [
                    {
                        "mean": told["error"],
                        "sd": None,
                        "n": 1,
                        "interval": told["interval"],
                        "published": None,
                    }
                ],
            }
            for row, told in (results | floors).items()
        ],
        "differences": [],
        "notes": [],
    }
    runs.write_json(out / TABLE, table)
    return table
