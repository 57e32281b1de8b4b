"""Commands that list what there is, fetch it, and write reports."""

from pathlib import Path
from typing import Annotated

import typer

from whatwhere.cli.options import DataDir
from whatwhere.cli.words import tell


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN_OR_DIR", help="A run, or a comparison.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE.html", help="New page.")] = None,
) -> None:
    """Write one page about a run or a comparison, from its files alone."""
    from whatwhere import report as room

    typer.echo(room.write(folder, out))


def models() -> None:
    """List the learners and their hyper-parameters."""
    from whatwhere import models as room
    from whatwhere.experiments.job import GIVEN_BY_DATA, STAGE_EPOCHS

    width = max(map(len, room.CONTENTS))
    for name, (_, _, what) in room.CONTENTS.items():
        typer.echo(f"{name:{width}}  {what}")
        learner = room.learner_class(name)()
        for key, value in learner.hyper_parameters().items():
            if key not in (*GIVEN_BY_DATA, STAGE_EPOCHS):
                typer.echo(f"  --set {key}={value}")


def experiments() -> None:
    """List the published tables that reproduce knows."""
    from whatwhere import experiments as room

    width = max(map(len, room.CONTENTS))
    for name, (_, what) in room.CONTENTS.items():
        typer.echo(f"{name:{width}}  {what}")


data = typer.Typer(help="List the named sets, or download one.")


@data.callback(invoke_without_command=True)
def list_data(context: typer.Context, data_dir: DataDir = None) -> None:
    """List the named sets, and where they are looked for."""
    if context.invoked_subcommand is not None:
        return
    from whatwhere.data import sources
    from whatwhere.data.sources.named import how_to_fetch

    folder = sources.data_folder(data_dir)
    width = max(map(len, sources.NAMES))
    for name, source in sources.NAMES.items():
        told = source.describe()
        typer.echo(f"{name:{width}}  {told['images']} images, {told['size']}, {told['licence']}")
        if not source.present(folder):
            typer.echo(f"  not here; {how_to_fetch(name, folder, source.page)}")
    typer.echo(f"looked for in {folder} (--data-dir, or WHATWHERE_DATA)")


@data.command()
def download(
    name: Annotated[str, typer.Argument(help="Which set; see whatwhere data.")],
    data_dir: DataDir = None,
) -> None:
    """Fetch the original files of a named set; a second call fetches what is missing."""
    from whatwhere.data import download as room
    from whatwhere.data import sources

    folder = room.download(name, data_dir, tell)
    if sources.NAMES[name].downloads:
        typer.echo(f"{name} in {folder}")
