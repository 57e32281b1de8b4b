"""The command line. Torch is imported when a command needs it, never for --help."""

from whatwhere.cli.entry import main

__all__ = ["main"]
