"""The tutorial does what it says: its blocks are run in their order, on fewer images."""

import csv
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from whatwhere import cli

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"
BLOCK = re.compile(r"```(python|sh)\n(.*?)```", re.DOTALL)


def run(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    cli.main()


@pytest.mark.slow
@pytest.mark.data
def test_every_block_of_the_tutorial_runs_and_leaves_what_it_promises(
    data_dir, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("WHATWHERE_DATA", str(data_dir.resolve()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))
    assert len(blocks) >= 8
    for language, text in blocks:
        if language == "python":
            exec(compile(text.replace("range(1000)", "range(300)"), TUTORIAL.name, "exec"), {})
            continue
        for command in text.splitlines():
            run(command, monkeypatch)
    written = {path.name for path in tmp_path.iterdir()}
    tables = {"predictions.csv", "outliers.csv", "outliers.png", "predictions-2.csv"}
    assert tables | {"embeddings.npz", "completed.png", "pairs.png"} <= written
    for name in ("clothes", "clothes-2"):
        page = (tmp_path / "runs" / name / "report.html").read_text(encoding="utf-8")
        assert "How to go on" in page
    with Path("predictions-2.csv").open(newline="", encoding="utf-8") as file:
        said = list(csv.DictReader(file))
    assert len(said) == 300
    with Path("labels.csv").open(newline="", encoding="utf-8") as file:
        known = {row["file"]: row["label"] for row in csv.DictReader(file)}
    right = np.mean([row["label"] == known[row["file"]] for row in said if row["file"] in known])
    assert right > 0.9, "it has learned its own labels"
    told = capsys.readouterr().err
    assert "chosen for these images" in told
