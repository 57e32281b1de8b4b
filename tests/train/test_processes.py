import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from whatwhere.core import InputError, Share, joint_count, joint_sum, shared
from whatwhere.experiments import starting
from whatwhere.experiments.job import Machine
from whatwhere.train.processes import Processes

TOGETHER = Path(__file__).with_name("together.py")
EXACT = ("one_player", "several_players", "labels", "lbfgs", "chains", "closed_form")
IMAGES = ("swwae", "swwae_unlabeled", "swwae_without_decoder")
FOLDED = ("sparse", "sparse_rule", "stacked")
WHITE = ("whitening", "whitening_contrast")
MACHINES = ("rbm", "dbm", "dbm_pairs", "dbn", "dbn_up_down")
NOT_COMPARED = ("stage", "seconds", "images_per_second", "waiting")
FIT = ("fit", "digits", "--labels", "50", "--device", "cpu", "--set", "architecture=(4)3c-2p")

Made = dict[str, Any]


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> tuple[Made, list[Made]]:
    """Return what one process made of all procedures, and what each of two did."""
    folder = tmp_path_factory.mktemp("together")
    subprocess.run([sys.executable, TOGETHER, folder], check=True, env=quiet())

    def read(n: int, rank: int) -> Made:
        return torch.load(folder / str(n) / f"{rank}.pt", weights_only=True)

    one = read(1, 0) | torch.load(folder / "resumed.pt", weights_only=True)
    return one, [read(2, rank) for rank in range(2)]


def quiet() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((float((one[k].double() - other[k].double()).abs().max()) for k in one), default=0)


def is_recorded_alike(one: Made, other: Made) -> bool:
    """Compare all that was recorded but times; terms are added up in float32."""
    pairs = zip(one["history"], other["history"], strict=True)
    told = [[{k: v for k, v in r.items() if k not in NOT_COMPARED} for r in pair] for pair in pairs]
    return all(a == pytest.approx(b, rel=1e-5, abs=1e-6) for a, b in told)


# The law: two processes learn what one learns with the joined batch.


@pytest.mark.parametrize("name", EXACT)
def test_two_processes_learn_what_one_learns_with_the_joined_batch(made, name: str):
    one, (first, second) = made
    assert distance(one[name]["state"], first[name]["state"]) < 1e-7
    assert distance(second[name]["state"], first[name]["state"]) == 0


@pytest.mark.parametrize("name", IMAGES)
def test_so_does_equation_7_on_images_few_of_which_are_labeled(made, name: str):
    one, (first, second) = made
    assert distance(one[name]["state"], first[name]["state"]) < 1e-5
    assert distance(second[name]["state"], first[name]["state"]) == 0


@pytest.mark.parametrize("name", FOLDED)
def test_so_do_auto_encoders_whose_running_averages_are_those_of_the_joint_batch(made, name: str):
    one, (first, second) = made
    assert distance(one[name]["state"], first[name]["state"]) < 1e-5
    assert distance(second[name]["state"], first[name]["state"]) == 0


@pytest.mark.parametrize("name", WHITE)
def test_so_does_whitening_by_sums(made, name: str):
    one, (first, second) = made
    assert distance(one[name]["state"], first[name]["state"]) < 1e-4  # of numbers up to 10
    assert distance(second[name]["state"], first[name]["state"]) == 0


@pytest.mark.parametrize("name", [*EXACT, *IMAGES, *FOLDED, *WHITE])
def test_what_is_recorded_is_the_mean_over_all_processes(made, name: str):
    one, (first, _) = made
    assert is_recorded_alike(one[name], first[name])


def test_persistent_chains_are_shared_out_and_gathered_again(made):
    one, (first, second) = made
    chains = one["chains"]["objective"]["chains"]
    assert chains.shape == (7, 3)
    assert distance(one["chains"]["objective"], first["chains"]["objective"]) < 1e-7
    assert distance(second["chains"]["objective"], first["chains"]["objective"]) == 0


@pytest.mark.parametrize("name", ["one_player", "chains"])
@pytest.mark.parametrize("by", [1, 2])
def test_another_number_of_processes_goes_on_with_a_checkpoint(made, name: str, by: int):
    one, (first, _) = made
    resumed = (one if by == 1 else first)[f"{name}_resumed"]
    assert 0 < resumed["resumed_at"] < len(resumed["history"])
    assert distance(one[name]["state"], resumed["state"]) < 1e-7
    assert distance(one[name]["objective"], resumed["objective"]) < 1e-7
    assert is_recorded_alike(one[name], resumed)


def test_each_process_draws_numbers_of_its_own(made):
    one, (first, second) = made
    alone, together = (made["drawing"]["history"][0]["loss/noise"] for made in (one, first))
    assert alone != together  # the mean of other numbers
    assert second["drawing"]["history"][0]["loss/noise"] == together


def test_with_batch_norm_and_dropout_processes_still_end_in_the_same_net(made):
    one, (first, second) = made
    name = "swwae_normalized"
    assert distance(second[name]["state"], first[name]["state"]) == 0
    assert 0 < distance(one[name]["state"], first[name]["state"]) < 1


@pytest.mark.parametrize("name", MACHINES)
def test_machines_whose_chains_are_shared_out_end_alike_in_all_processes(made, name: str):
    one, (first, second) = made
    assert distance(second[name]["state"], first[name]["state"]) == 0
    # Other draws than those of one process, of the same distribution.
    assert 0 < distance(one[name]["state"], first[name]["state"]) < 0.5
    pixels = {key for key in one[name]["state"] if key.startswith("pixels.")}
    parts = [{key: run[name]["state"][key] for key in pixels} for run in (one, first)]
    assert distance(*parts) < 1e-6


def test_only_the_first_process_tells_its_watchers(made):
    one, (first, second) = made
    assert one["one_player"]["told"] and first["one_player"]["told"]
    assert not second["one_player"]["told"]


# Shares.


@pytest.mark.parametrize("n_rows", [1, 3, 4, 5, 11])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_means_over_shares_are_the_mean(n_rows: int, n: int):
    values = torch.randn(n_rows, dtype=torch.float64)
    some = torch.arange(n_rows) % 3 == 0
    rows = torch.arange(n_rows)
    held = [Processes(rank, n).own(rows)[0] for rank in range(n)]
    copies = sum(len(own) for own in held) // n_rows
    assert copies == (n if n_rows < 2 * n else 1)

    counts = [some[own].sum() for own in held]

    def add(x: Tensor) -> Tensor:  # each process holds what it gives, here all at once
        return torch.stack(counts).sum() / copies

    plain, partial = 0.0, 0.0
    for own, count in zip(held, counts, strict=True):
        share = Share(len(own) / n_rows, copies, n, add)
        with shared(share):
            assert joint_sum(count) == some.sum()
            plain += share.factor * float(values[own].mean()) / n
            partial += share.factor * float(values[own][some[own]].sum() / joint_count(count)) / n
    assert plain == pytest.approx(float(values.mean()))
    assert partial == pytest.approx(float(values[some].mean()), rel=1e-6)


def test_a_sum_is_given_back_to_the_process_that_it_is_of():
    gathered = torch.tensor([1.0, 2.0, 6.0])
    assert [float(Processes(rank, 3).returned(gathered)) for rank in range(3)] == [1.0, 2.0, 6.0]
    assert float(Processes(1, 2).returned(gathered)) == 3.0  # of others, each has the mean


def test_alone_a_count_is_the_count_or_1():
    assert joint_count(torch.tensor(3)) == 3
    assert joint_count(torch.tensor(0)) == 1
    assert joint_sum(torch.tensor(3)) == 3


# From the command line.


def command(*words: object, by: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *(by or ("-m", "whatwhere")), *map(str, words)]


def finish(words: list[str], code: int) -> tuple[str, str]:
    done = subprocess.run(words, env=quiet(), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "whatwhere")


@pytest.mark.slow
def test_torchrun_and_devices_give_the_same_bits_and_say_all_once(tmp_path: Path):
    for out, by, more in (("own", (), ("--devices", "2")), ("torchrun", TORCHRUN, ())):
        stdout, stderr = finish(
            command(*FIT, "--epochs", "2", *more, "--out", tmp_path / out, by=by), 0
        )
        assert stdout.count("599 test images") == 1
        assert stderr.count("joint epoch 2") == stderr.count("1,198 images") == 1
        config = json.loads((tmp_path / out / "config.json").read_text())
        assert config["processes"] == 2
        assert len((tmp_path / out / "metrics.jsonl").read_text().splitlines()) == 2
    own, other = (
        (tmp_path / out / "model.safetensors").read_bytes() for out in ("own", "torchrun")
    )
    assert own == other


@pytest.mark.slow
def test_a_refusal_ends_all_processes_with_one_line(tmp_path: Path):
    (tmp_path / "note").touch()
    _, stderr = finish(command(*FIT, "--devices", "2", "--out", tmp_path), 2)
    assert stderr.startswith("whatwhere: ") and "is not empty" in stderr
    assert len(stderr.strip().splitlines()) == 1, stderr
    _, stderr = finish(command(*FIT, "--out", tmp_path, by=TORCHRUN), 1)  # torchrun's own code
    assert stderr.count("whatwhere: ") == 1 and "is not empty" in stderr


def break_at_the_end(refuse: bool, stop: Any) -> None:
    # As a thread does that outlives the interpreter.
    atexit.register(os.write, 2, b"terminate called\n")
    print("done", end="")
    if refuse:
        raise InputError("no")


@pytest.mark.parametrize("refuse", [False, True])
def test_how_an_interpreter_is_taken_down_does_not_matter_once_the_work_is_done(capfd, refuse):
    with pytest.raises(InputError, match="no") if refuse else nullcontext():
        starting.start(Machine(device="cpu", devices=2), break_at_the_end, refuse)
    said = capfd.readouterr()
    assert not said.err and "done" in said.out


def started_by(process: int) -> list[int]:
    """Return the processes that it spawned, in their order."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of two processes that has a checkpoint, in `tmp_path`/run."""
    words = command(*FIT, "--epochs", "300", "--devices", "2", "--out", tmp_path / "run")
    with subprocess.Popen(words, env=quiet(), stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (tmp_path / "run" / "checkpoint").exists():
                assert process.poll() is None
                time.sleep(0.1)
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_and_one_alone_goes_on(running, tmp_path: Path):
    run = tmp_path / "run"
    first, second = started_by(running.pid)
    os.kill(second, signal.SIGKILL)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 1
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("whatwhere: process 2 of 2 died (SIGKILL)")
    assert last.endswith(f"whatwhere fit --resume {run}")
    assert not Path(f"/proc/{first}").exists()
    config = json.loads((run / "config.json").read_text())
    config["job"]["settings"]["epochs"] = "12"  # enough of it
    (run / "config.json").write_text(json.dumps(config))
    stdout, _ = finish(command("fit", "--resume", run, "--devices", "1"), 0)
    assert "599 test images" in stdout
    config = json.loads((run / "config.json").read_text())
    assert config["processes"] == 1 and "up to rounding" in config["processes_changed"]


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_with_a_checkpoint(running, tmp_path: Path):
    children = started_by(running.pid)
    for process in (*children, running.pid):  # as a terminal does
        os.kill(process, signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "keeps what was learned" in stderr.strip().splitlines()[-1]
    assert (tmp_path / "run" / "checkpoint").exists()
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert not any(Path(f"/proc/{child}").exists() for child in children)


# Who starts them.


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch):
    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_what_torchrun_started_is_counted(launched):
    launched(TORCHELASTIC_RUN_ID="x", LOCAL_WORLD_SIZE="4", WORLD_SIZE="8", LOCAL_RANK="1")
    found = starting.placed(Machine())
    assert (found.devices, found.num_nodes) == (4, 2)
    assert not starting.are_to_start(found)
    assert starting.placed(Machine(devices=4, num_nodes=2)) == found
    with pytest.raises(InputError, match="torchrun started 4 processes on each of 2 nodes"):
        starting.placed(Machine(devices=2))


def test_what_srun_started_is_counted(launched):
    launched(SLURM_STEP_NUM_TASKS="8", SLURM_STEP_NUM_NODES="2", SLURM_PROCID="3")
    found = starting.placed(Machine())
    assert (found.devices, found.num_nodes) == (4, 2)
    assert not starting.are_to_start(found)
    assert not starting.is_first()


def test_a_batch_script_of_slurm_without_srun_is_one_process(launched):
    launched(SLURM_NTASKS="8", SLURM_NNODES="2", SLURM_PROCID="0")
    assert starting.placed(Machine()) == Machine()
    assert starting.is_first()


def test_nodes_that_nobody_started_are_refused():
    with pytest.raises(InputError, match="torchrun or srun"):
        starting.placed(Machine(num_nodes=2))


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Machine("cuda", devices=2).check() == "cuda"
    with pytest.raises(InputError, match="use --devices 2"):
        Machine("cuda", devices=3).check()


def test_without_a_compiler_compile_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="no-such-compiler"):
        Machine("cpu", compile=True).check()
