"""Runs on the Hugging Face hub: ``config.json``, ``model.safetensors`` and a model card.

What is published is what the learner is, not the whole run folder: paths, file names, the machine
and the command stay at home.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from whatwhere import runs
from whatwhere.core import InputError

if TYPE_CHECKING:
    from whatwhere.learner import Learner


def push_to_hub(run: str | Path, repo_id: str, *, private: bool = True) -> str:
    """Upload a run, as who is logged in (``hf auth login``).

    Parameters
    ----------
    run : str or Path
        A run folder.
    repo_id : str
        ``USER/NAME``; it is made if it is not there.
    private : bool
        Whether a repository that is made can be seen by its owner only.

    Returns
    -------
    str
        The address of the commit.

    Raises
    ------
    InputError
        If the run is not finished, huggingface_hub is missing, or the hub does not answer or
        refuses.
    """
    with _hub(f"cannot upload {run} to {repo_id}"):
        from whatwhere.export.mixin import HubRun

        return str(
            HubRun(Path(run)).push_to_hub(
                repo_id,
                private=private,
                commit_message="Upload a whatwhere run",
                model_card_kwargs={"repo_id": repo_id},
            )
        )


def save_pretrained(run: str | Path, folder: str | Path) -> None:
    """Write into a new folder what `push_to_hub` would upload.

    Raises
    ------
    InputError
        If the run is not finished, huggingface_hub is missing, or the folder holds something.
    """
    with _hub(f"cannot write {folder}"):
        from whatwhere.export.mixin import HubRun

        hub_run = HubRun(Path(run))
        hub_run.save_pretrained(runs.create(Path(folder)))


def from_pretrained(name: str | Path, *, revision: str | None = None) -> "Learner":
    """Return the fitted learner of a repository on the hub, or of a folder.

    Nothing is unpickled: of a repository only ``config.json`` and ``model.safetensors`` are read.

    Parameters
    ----------
    name : str or Path
        ``USER/NAME``, or a folder that `save_pretrained` wrote.
    revision : str, optional
        Branch, tag or commit. Default: the newest.

    Raises
    ------
    InputError
        If there is no such repository or folder, it holds no whatwhere run, huggingface_hub is
        missing, or the hub does not answer and the repository has not been downloaded before.
    """
    there = Path(name).is_dir()
    no_folder = "" if there else ", and there is no such folder here"
    with _hub(f"cannot load {name}{no_folder}"):
        from whatwhere.export.mixin import HubRun

        if there:
            runs.read_config(Path(name))
        return HubRun.from_pretrained(str(name), revision=revision).learner


@contextmanager
def _hub(failed: str) -> Iterator[None]:
    """Turn what may go wrong with the hub into one line that begins with `failed`."""
    if find_spec("huggingface_hub") is None:
        raise InputError(f"{failed}: huggingface_hub is missing; pip install 'whatwhere[hub]'")
    from httpx2 import HTTPError
    from huggingface_hub import errors

    refused = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
    try:
        yield
    except errors.HFValidationError as error:
        raise InputError(f"{failed}: {_line(error)}; it takes USER/NAME, or a folder") from None
    except refused:
        raise InputError(
            f"{failed}: the hub has no such repository or revision, or does not show it to you; "
            "look at the name, and log in with: hf auth login"
        ) from None
    except errors.HfHubHTTPError as error:
        raise InputError(
            f"{failed}: the hub refused ({_line(error)}); log in with: hf auth login"
        ) from None
    except (HTTPError, errors.LocalEntryNotFoundError, ConnectionError):
        raise InputError(
            f"{failed}: the hub cannot be reached; look at the network, or load from a folder that "
            "was copied here"
        ) from None


def _line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].rstrip(".")
