"""Write what was recorded into the documents: nobody types a number into a table.

``<!-- results: NAME -->`` or ``<!-- benchmark: NAME -->`` begins a block, ``<!-- end -->`` ends it.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from whatwhere.experiments.table import TABLE, markdown

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "docs/results.md",
    "docs/export.md",
    "docs/deep_autoencoder.md",
    "docs/sparse_autoencoder.md",
    "docs/whitening.md",
    "docs/rbm.md",
    "docs/exemplar_cnn.md",
    "docs/experiment_1.md",
)
BLOCK = re.compile(
    r"(<!-- (?P<kind>results|benchmark): (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.S
)


def results(name: str) -> str:
    """Return a recorded table with its notes."""
    table = _read(ROOT / "results" / name / TABLE)
    notes = "\n".join(f"- {note}" for note in table["notes"])
    return f"{table['caption']}\n\n{markdown(table)}\n\n{notes}"


def benchmark(name: str) -> str:
    """Return what a benchmark recorded, as it prints it."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    module = __import__(name)
    lines = module.lines(_read(ROOT / "results" / "benchmarks.json")[name])
    return "\n".join(["```", *lines, "```"])


def filled(text: str) -> str:
    """Return a document with each block holding what is recorded now."""
    kinds = {"results": results, "benchmark": benchmark}

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n{kinds[match['kind']](match['name'])}\n\n{match[4]}"

    return BLOCK.sub(block, text)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name in DOCUMENTS:
        document = ROOT / name
        document.write_text(filled(document.read_text(encoding="utf-8")), encoding="utf-8")
