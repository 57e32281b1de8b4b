"""``python -m whatwhere`` is the command line."""

from whatwhere.cli import main

main()
