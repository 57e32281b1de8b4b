"""The documents say what is true."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from whatwhere import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["model"].transform(names["X"]).shape == (1797, 128)
    assert names["what"][0].shape == (1797, 16, 4, 4)


def commands():
    lines = [line.split("#")[0] for block in blocks("sh") for line in block.splitlines()]
    return [line.strip() for line in lines if line.startswith("whatwhere ")]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_is_understood(command, monkeypatch, capsys):
    _, name, *words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", ["whatwhere", name, "--help"])
    cli.main()
    told = capsys.readouterr().out
    for word in words:
        if word.startswith("--"):
            assert word in told, f"{name} has no {word}"


def test_the_tables_are_those_of_the_recorded_results():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    for name in tables.DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert tables.BLOCK.search(text)
        assert tables.filled(text) == text, f"run make tables: {name} is behind results/"


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
