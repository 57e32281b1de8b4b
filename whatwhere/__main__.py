"""``python -m whatwhere`` is the command line."""

from whatwhere.cli import main

if __name__ == "__main__":  # a process of its own for a cell imports this file again
    main()
