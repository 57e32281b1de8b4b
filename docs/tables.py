"""Write the recorded results into the documents: nobody types a number into a table.

Between ``<!-- results: NAME -->`` and ``<!-- end -->`` stands ``results/NAME/table.json``.
"""

import json
import re
from pathlib import Path

from whatwhere.experiments.table import TABLE, markdown

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md",)
BLOCK = re.compile(r"(<!-- results: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """Return a document with each block holding the table as it is recorded now."""

    def block(match: re.Match[str]) -> str:
        table = json.loads((ROOT / "results" / match["name"] / TABLE).read_text(encoding="utf-8"))
        return f"{match[1]}\n{markdown(table)}\n\n{match[3]}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    for name in DOCUMENTS:
        document = ROOT / name
        document.write_text(filled(document.read_text(encoding="utf-8")), encoding="utf-8")
