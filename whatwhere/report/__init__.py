"""Run folders and comparison folders as one self-contained HTML page.

The page is a pure function of the folder: it needs neither the data nor the model, opens offline,
and runs no script.
"""

from whatwhere.report.page import render, write

__all__ = ["render", "write"]
