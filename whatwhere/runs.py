"""The run folder: all that training and viewing share.

``config.json`` (learner, data, seeds, versions, machine), ``model.safetensors``, ``metrics.jsonl``
(a line an epoch), ``evaluation.json``, ``panels/``, ``report.html``, where images come from files
``label-next.csv`` and ``skipped.csv``, and, while training, ``checkpoint/``. Nothing in it is ever
unpickled.
"""

import csv
import io
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whatwhere.core import InputError

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1
DESCRIBED = ("seed", "classes", "n_features_in", "spec.shape", "spec.n_samples")
CONFIG, WEIGHTS, METRICS, EVALUATION = (
    "config.json",
    "model.safetensors",
    "metrics.jsonl",
    "evaluation.json",
)
PANELS, CHECKPOINT, REPORT = "panels", "checkpoint", "report.html"
SKIPPED, LABEL_NEXT = "skipped.csv", "label-next.csv"


def create(folder: Path) -> Path:
    """Make the folder; one that holds something is refused, so that nothing is lost.

    Raises
    ------
    InputError
        If it is not empty, is a file, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; choose another --out"
        ) from None
    if taken:
        raise InputError(f"{folder} is not empty; choose another --out, or move it away first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write to {folder}: read-only; choose another --out")
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    os.close(number)
    fresh = Path(name)
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a person can read, whole or not at all; numpy's numbers become plain ones."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=lambda number: number.item())
    write_text(path, text + "\n")


def write_rows(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as CSV, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def write_weights(folder: Path, module: "nn.Module") -> None:
    """Write the module's state as safetensors, whole or not at all."""
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    fresh = folder / f"{WEIGHTS}.tmp"
    try:
        fresh.write_bytes(save(state))  # by Python, which says plainly that a disk is full
        fresh.replace(folder / WEIGHTS)
    finally:
        fresh.unlink(missing_ok=True)


def has_weights(folder: Path) -> bool:
    """Return whether something was learned and kept."""
    return (folder / WEIGHTS).exists()


def has_checkpoint(folder: Path) -> bool:
    """Return whether training has not ended."""
    return any(folder.glob(f"{CHECKPOINT}*"))


def require_weights(folder: Path) -> None:
    """Raise an `InputError` that says how to go on where nothing was learned and kept."""
    if not has_weights(folder):
        if (folder / EVALUATION).exists() or "job" not in read_config(folder):
            raise InputError(
                f"{folder} has no {WEIGHTS}, though it has ended; copy the run again, or fit anew"
            )
        raise InputError(
            f"{folder} has no {WEIGHTS}: training has not ended; "
            f"finish it with: whatwhere fit --resume {folder}"
        )


def read_weights(folder: Path, module: "nn.Module") -> None:
    """Put the weights in the folder into the module.

    Raises
    ------
    InputError
        If the file is missing, truncated, or of another net.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read ({reason}); copy it again, or fit anew") from None


def read_config(folder: Path) -> dict[str, Any]:
    """Return what the run says of itself.

    Raises
    ------
    InputError
        If this is no run folder, or one of a version that this program does not know.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = "has no config.json" if folder.is_dir() else "does not exist"
        raise InputError(
            f"{folder} is not a run folder: it {there}; name the --out of a whatwhere fit"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy the run again") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise InputError(
            f"{path} has format {found!r}, and this version reads {FORMAT}; "
            "use the whatwhere version that wrote it"
        )
    return config


def check_config(config: Mapping[str, Any], folder: Path, **known: set[str]) -> None:
    """Refuse what a run says of its learner where this version cannot build it from that.

    Parameters
    ----------
    config : dict
        As `read_config` returns it.
    folder : Path
    **known : set of str
        The names that a part of it, ``params`` say, may have. Those that it has not are as they
        were before they came.

    Raises
    ------
    InputError
        Naming what is missing, or not known.
    """
    path = folder / CONFIG
    for part, names in known.items():
        if not isinstance(config.get(part), dict):
            raise InputError(f"{path} has no {part}; copy the run again, or fit anew")
        if strange := sorted(config[part].keys() - names):
            wrote = dict(config.get("versions") or {}).get("whatwhere", "that wrote it")
            raise InputError(
                f"{path} has {part}.{strange[0]}, which this version does not know; use the "
                f"whatwhere version {wrote}"
            )
    there = {*config, *(f"{part}.{name}" for part in known for name in config[part])}
    for name in DESCRIBED:
        if name not in there:
            raise InputError(f"{path} has no {name}; copy the run again, or fit anew")


def write_metrics(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write all records, a line each."""
    write_text(folder / METRICS, "".join(json.dumps(record) + "\n" for record in records))


def append_metrics(folder: Path, record: Mapping[str, Any]) -> None:
    """Write one more record."""
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the records; a last line that a kill cut short is left out."""
    path, records = folder / METRICS, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    names = ("whatwhere", "torch", "numpy", "scikit-learn", "lightning-fabric")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def hardware() -> dict[str, Any]:
    """Return the machine, as far as results and times depend on it."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        processor = found[1] if found else processor
    return {"processor": processor, "cores": os.cpu_count(), "system": platform.system()}


def snake_case(name: str) -> str:
    """Return a class name as the command line writes it: SparseCoding is sparse_coding."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
