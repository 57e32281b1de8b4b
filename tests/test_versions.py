import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def floors() -> dict[NormalizedName, str]:
    """Return the lowest version that is allowed of each package that users may install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    texts = project["dependencies"] + [t for name in extras if name != "dev" for t in extras[name]]
    found = {}
    for one in map(Requirement, texts):
        (lowest,) = [part.version for part in one.specifier if part.operator == ">="]
        found[canonicalize_name(one.name)] = lowest
    return found


def test_the_lowest_versions_that_are_tested_are_those_that_are_allowed():
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(name): version
        for name, version in (line.split("==") for line in lines if "==" in line)
    }
    assert pins.keys() == floors().keys()
    for name, lowest in floors().items():
        assert Version(pins[name]) == Version(lowest), name
