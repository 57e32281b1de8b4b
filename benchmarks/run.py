"""Run the benchmarks, each in a process of its own, and keep what they found in one file.

    python benchmarks/run.py [NAME ...]

Without a name: all but `defaults`, which takes an hour. What is not run again stays as it was.
Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FILE = HERE.parent / "results" / "benchmarks.json"
NAMES, LONG = (
    (
        "engine",
        "kernels",
        "export",
        "processes",
        "precision",
        "whitening",
        "rbm",
        "transformations",
    ),
    ("defaults",),
)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES + LONG)}")
    asked = parser.parse_args().names or NAMES
    for name in asked:
        if name not in NAMES + LONG:
            parser.error(f"there is no benchmark {name}: there are {', '.join(NAMES + LONG)}")
    found = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for name in asked:
        print(f"# {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "found.json"
            command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(out)]
            subprocess.run(command, check=True, env=os.environ | ONE_THREAD)
            found[name] = json.loads(out.read_text(encoding="utf-8"))
        FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
