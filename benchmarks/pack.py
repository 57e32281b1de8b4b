"""Pack what a machine without a network needs to run the benchmarks: wheels and data.

    python benchmarks/pack.py [--out carry] [--python 3.12] [--sets mnist] [--data-dir DIR]

There, with torch installed already:

    pip install --no-index --find-links carry/wheels whatwhere
    WHATWHERE_DATA=carry/data python benchmarks/card.py

The folder `carry` is not kept by git. Wheels are those of constraints.txt that whatwhere needs;
torch, and what only torch needs, are left to the machine, whose build of it suits its devices.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from whatwhere.data import sources

ROOT = Path(__file__).parent.parent
LEFT_TO_THE_MACHINE = "torch"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")


def needed(name: str, extras: Iterable[str] = (), seen: set[str] | None = None) -> set[str]:
    """Return the packages that one needs, itself and those of its needs included."""
    seen = set() if seen is None else seen
    name = canonicalize_name(name)
    asked = {f"{name}[{extra}]" for extra in extras} | {name}
    if asked <= seen or name == LEFT_TO_THE_MACHINE:
        return seen
    try:
        wanted = [Requirement(text) for text in requires(name) or ()]
    except PackageNotFoundError:  # needed on other systems only
        return seen
    seen |= asked
    for one in wanted:
        marker = one.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            needed(one.name, one.extras, seen)
    return seen


def pinned(names: Iterable[str]) -> list[str]:
    """Return the lines of constraints.txt for these packages."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins: dict[str, str] = {
        canonicalize_name(re.split("==", line)[0]): line for line in lines if "==" in line
    }
    return sorted(pins[name] for name in names if name in pins)


def pip(*words: str) -> None:
    """Run pip, and leave with its code if it fails."""
    done = subprocess.run([sys.executable, "-m", "pip", *words, "--quiet"], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "carry", help="folder; made anew")
    parser.add_argument("--python", default="3.12", help="version on that machine")
    parser.add_argument("--sets", default="mnist", help="named sets, by commas")
    parser.add_argument("--data-dir", help="folder of the data sets; else WHATWHERE_DATA")
    asked = parser.parse_args()
    shutil.rmtree(asked.out, ignore_errors=True)
    wheels = asked.out / "wheels"
    wheels.mkdir(parents=True)
    pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    others = pinned(needed("whatwhere") - {"whatwhere"})
    pip(
        *("download", "--no-deps", "--only-binary=:all:", "--python-version", asked.python),
        *(*platforms, "--dest", str(wheels), *others),
    )
    for name in filter(None, asked.sets.split(",")):
        folder = sources.data_folder(asked.data_dir) / name
        shutil.copytree(folder, asked.out / "data" / name)
    size = sum(path.stat().st_size for path in asked.out.rglob("*") if path.is_file())
    held = f"{len(others) + 1} wheels and {asked.sets or 'no data'}"
    print(f"{held} in {asked.out}: {size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
