"""Starting processes: one a device, watched over by the one that the user started.

They are spawned, not started by the command line once more: whoever called (the console script,
``python -m whatwhere``, a test) need not be found again, and the one that waits can say why another
ended. What torchrun or srun started is taken as it is.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

from whatwhere.core import InputError
from whatwhere.experiments.job import Machine
from whatwhere.experiments.stopping import LOOK_EVERY, stoppable

GRACE = 5.0  # seconds for the parent to see who ended first; bounds the end of a broken run too
RANK, LOCAL_RANK, PORT = "RANK", "LOCAL_RANK", "MASTER_PORT"
SLURM = "SLURM_STEP_NUM_TASKS"  # srun sets it, and sbatch alone does not


class Lost(Exception):
    """A process among several ended without a word, and the others cannot go on."""


def placed(machine: Machine) -> Machine:
    """Return the machine with as many processes as torchrun or srun started, if one of them did.

    Raises
    ------
    InputError
        If the machine names other numbers, or nodes that nobody started.
    """
    found, by = None, ""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local, by = int(os.environ["LOCAL_WORLD_SIZE"]), "torchrun"
        found = local, int(os.environ["WORLD_SIZE"]) // local
    elif int(os.environ.get(SLURM, "1")) > 1:
        nodes, by = int(os.environ["SLURM_STEP_NUM_NODES"]), "srun"
        found = int(os.environ[SLURM]) // nodes, nodes
    if found is None:
        if machine.num_nodes > 1:
            raise InputError(
                f"--num-nodes {machine.num_nodes} needs torchrun or srun on each of them; "
                "see docs/clusters.md"
            )
        return machine
    asked = machine.devices, machine.num_nodes
    if asked not in ((1, 1), found):
        raise InputError(
            f"{by} started {found[0]} processes on each of {found[1]} nodes, and --devices "
            f"{asked[0]} --num-nodes {asked[1]} were asked for; leave them out"
        )
    return replace(machine, devices=found[0], num_nodes=found[1])


def is_first() -> bool:
    """Say whether this is the process that writes and speaks, or the only one."""
    slurm = os.environ.get("SLURM_PROCID", "0") if SLURM in os.environ else "0"
    return int(os.environ.get(RANK, slurm)) == 0


def are_started() -> bool:
    """Say whether torchrun or srun started this process and others beside it."""
    return placed(Machine()) != Machine()


def are_to_start(machine: Machine) -> bool:
    """Say whether the processes of a placed machine are still to be started."""
    return machine.devices > 1 and not {LOCAL_RANK, SLURM} & set(os.environ)


@contextmanager
def missing_others() -> Iterator[None]:
    """Raise `Lost` where another process does not answer any more."""
    try:
        yield
    except RuntimeError as error:
        # Not all of torch's errors of this kind have a class of their own.
        if not any(word in str(error) for word in ("gloo", "NCCL", "TCPStore")):
            raise
        told = str(error).splitlines()[0]
        raise Lost(f"another process does not answer any more ({told})") from None


@contextmanager
def together(fabric: Any) -> Iterator[None]:
    """Raise in all processes what the block refuses in one, so that none waits for another."""
    refused = ""
    try:
        yield
    except InputError as error:
        if fabric.world_size == 1:
            raise
        refused = str(error)
    if fabric.world_size > 1:
        from torch.distributed import all_gather_object

        said = [""] * fabric.world_size
        all_gather_object(said, refused)
        if any(said):
            raise InputError(next(filter(None, said)))


def start(machine: Machine, function: Callable[..., object], *args: Any) -> None:
    """Run ``function(*args, stop=...)`` in a process for each device, and wait for all.

    Parameters
    ----------
    machine : Machine
    function : callable
        Of a module, as its arguments are: they are pickled.

    Raises
    ------
    InputError, Interrupted, Diverged, OSError, KeyboardInterrupt
        As one of the processes did.
    Lost
        If one was killed; the others are ended then.
    """
    from torch.multiprocessing import get_context
    from torch.multiprocessing.spawn import (
        ProcessExitedException,
        ProcessRaisedException,
        start_processes,
    )

    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    context = get_context("spawn")
    stop, told = context.Event(), context.SimpleQueue()
    given = (free_port(), os.getpid(), stop, told, function, args)
    running = start_processes(_begin, given, machine.devices, join=False, start_method="spawn")
    assert running is not None
    try:
        with stoppable() as asked:
            while not running.join(LOOK_EVERY, GRACE):
                if asked():
                    stop.set()
    except ProcessRaisedException:  # a bug of ours: its traceback is the message
        if told.empty():
            raise
    except ProcessExitedException as end:
        if told.empty():
            how = end.signal_name or f"exit code {end.exit_code}"
            raise Lost(f"process {end.error_index + 1} of {machine.devices} died ({how})") from None
    finally:
        for process in running.processes:
            if process is not None:
                process.kill()
    if not told.empty():
        raise told.get()


def _begin(
    rank: int,
    port: int,
    parent: int,
    stop: Any,
    told: Any,
    function: Callable[..., object],
    args: tuple[Any, ...],
) -> None:
    """Be one of the processes."""
    from whatwhere.train.trainer import Diverged, Interrupted

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C: the parent tells us
    os.environ |= {RANK: str(rank), LOCAL_RANK: str(rank), PORT: str(port)}
    try:
        function(*args, stop=lambda: stop.is_set() or os.getppid() != parent)
    except (Interrupted, Diverged, KeyboardInterrupt) as error:
        if rank == 0:  # all are alike; the first may still be writing
            told.put(error)
    except (InputError, OSError) as error:
        told.put(error)
        leave(1)
    except Lost:
        time.sleep(GRACE)  # the parent has to see first whose end broke this one
        raise
    leave(0)


def leave(code: int) -> NoReturn:
    """End this process, one of several, without taking its interpreter down.

    The threads with which processes ask each other outlive their group, for torch's DDP does not
    let go of it. One that drops what was last asked when the interpreter is half gone ends the
    process with SIGABRT ("terminate called without an active exception").
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def free_port() -> int:
    """Return a port of this machine that nobody uses."""
    from lightning_fabric.plugins.environments.lightning import find_free_network_port

    return find_free_network_port()
