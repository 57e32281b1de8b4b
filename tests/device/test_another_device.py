"""Every method, on a device that is not the host: what a GPU asks of the code, without a GPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from whatwhere.models import CONTENTS

EVERYTHING = Path(__file__).with_name("everything.py")
CLOSE = 1e-4  # rounding after some steps: the device's pools do not add up as the host's do

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the script wrote; a process of its own, for the device changes torch."""
    folder = tmp_path_factory.mktemp("device")
    command = [sys.executable, str(EVERYTHING), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


def cases(found: Found, model: str) -> Found:
    """Return those of a method; none of them failed."""
    own = {name: case for name, case in found.items() if name.split()[0] == model}
    assert own, f"everything.py has no case of {model}"
    for name, case in own.items():
        assert case["error"] is None, f"{name}\n{case['error']}"
    return own


@pytest.mark.parametrize("model", sorted(CONTENTS))
def test_a_method_learns_there_what_it_learns_on_the_host(found: Found, model: str):
    for name, case in cases(found, model).items():
        assert case["left behind"] == [], name
        for how, differences in case["differences"].items():
            assert differences, name
            for output, difference in differences.items():
                assert difference <= CLOSE, (name, how, output)  # and is a number


@pytest.mark.parametrize("model", sorted(CONTENTS))
def test_no_step_of_a_method_makes_the_host_wait(found: Found, model: str):
    for name, case in cases(found, model).items():
        assert case["waits"] == [], name


def test_what_makes_the_host_wait_is_counted(found: Found):
    counted = {name: case for name, case in found.items() if name.startswith("waits for")}
    assert len(counted) > 10
    for name, case in counted.items():
        assert case["error"] is None, case["error"]
        # Between the first step and the last, the last included.
        expected = 0 if name == "waits for nothing" else case["steps"] - 1
        assert len(case["waits"]) == expected, name
