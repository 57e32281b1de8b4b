"""The door: which commands there are, and how they end."""

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

import whatwhere
from whatwhere.cli import lists, probing, training, using
from whatwhere.cli.words import MENDABLE, STOPPED, USERS_ERRORS, Ended, reason
from whatwhere.core import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Learn image representations without labels, or with few.",
    epilog="DATA is a named set (see [b]whatwhere data[/b]), a folder of images, or an .npz file. "
    "Start with: [b]whatwhere demo[/b]",
)
for command in (
    *(training.demo, training.fit, using.evaluate, using.predict, using.embed),
    *(using.reconstruct, using.denoise, using.complete, using.sample),
    *(using.outliers, using.export, probing.probe),
    *(training.compare, training.reproduce),
    *(lists.report, lists.models, lists.experiments),
):
    app.command()(command)
app.add_typer(lists.data, name="data")


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Say the version and stop.")] = False,
) -> None:
    """Answer --version."""
    if show:
        typer.echo(f"whatwhere {whatwhere.__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line: exit 0, 2 for what the user can mend, 130 after Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
        if code == STOPPED:  # the parser keeps a Ctrl-C to itself
            end("stopped", STOPPED)
    except InputError as error:
        end(str(error), MENDABLE)
    except typer.TyperException as error:
        # The parser has words for everything that it refuses, but for no word at all.
        said = error.format_message().replace("Value error, ", "")
        end(said or "name a command; see whatwhere --help", MENDABLE)
    except Ended as error:
        end(str(error), error.code)
    except (KeyboardInterrupt, typer.Abort):
        end("stopped", STOPPED)
    except OSError as error:
        if error.errno not in USERS_ERRORS:
            raise
        end(f"{reason(error)}; what was written before is whole", MENDABLE)
    leave_if_one_of_several(0)


def end(line: str, code: int) -> NoReturn:
    """Say one line on stderr and leave; of several processes, the first on each node says it."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"whatwhere: {' '.join(line.split())}", file=sys.stderr)
    leave_if_one_of_several(code)
    sys.exit(code)


def leave_if_one_of_several(code: int) -> None:
    """Leave, where torchrun or srun started this process and others."""
    from whatwhere.experiments import starting

    if starting.are_started():
        starting.leave(code)
