"""Within an epoch the host waits for nothing: what would make it wait for a GPU is counted here.

On a CPU the same calls are seen; they only cost nothing there.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from whatwhere.core import Batch, Terms
from whatwhere.data.rows import Rows
from whatwhere.models.cnn import CNN
from whatwhere.models.exemplar import ExemplarCNN
from whatwhere.models.swwae import SWWAE
from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Place, Record, Trainer
from whatwhere.train.update import GradientUpdate

# Adam keeps its number of steps on the CPU, wherever the weights are, and reads it there.
ON_THE_CPU_ANYWAY = str(Path(torch.optim.__file__).parent)
TORCH = Path(torch.__file__).parent
BETWEEN = (__file__, str(TORCH / "_dynamo"), str(TORCH / "_compile.py"))  # a caller and its count
READS = ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__float__", "__int__")
READS += ("__index__", "argwhere", "unique", "tensor", "as_tensor", "from_numpy")


class Functions(TorchFunctionMode):
    """Counts calls that bring numbers to the host, or from it."""

    def __init__(self, waiting: "Waiting") -> None:
        super().__init__()
        self.waiting = waiting

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        moved = name == "to" and any(str(arg) == "cpu" for arg in (*args, *(kwargs or {}).values()))
        if name in READS or moved:
            self.waiting.note(name)
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Counts operations whose result, or its size, the host has to know."""

    def __init__(self, waiting: "Waiting") -> None:
        super().__init__()
        self.waiting = waiting

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(
            isinstance(one, Tensor) and one.dtype == torch.bool
            for arg in args
            if isinstance(arg, list | tuple)
            for one in arg
        )
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2") or masks:
            self.waiting.note(name)
        return func(*args, **(kwargs or {}))


class Waiting:
    """A watcher that counts between the first step of each epoch and its last."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.counting, self.n_steps = False, 0

    def note(self, name: str) -> None:
        if self.counting:
            frames = [frame.filename for frame in traceback.extract_stack()]
            caller = next(file for file in reversed(frames) if not file.startswith(BETWEEN))
            if not caller.startswith(ON_THE_CPU_ANYWAY):
                self.calls[name] += 1

    def begin(self, stages: Sequence[Stage], history: Sequence[Record]) -> None:
        pass

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        self.counting = place.step < n_steps
        self.n_steps += 1

    def epoch(self, record: Record) -> None:
        pass

    def end(self) -> None:
        pass


@pytest.fixture
def counted() -> Callable[[Callable[[Trainer], object]], Waiting]:
    def count(train: Callable[[Trainer], object]) -> Waiting:
        waiting = Waiting()
        with Functions(waiting), Operations(waiting):
            train(Trainer(watch=[waiting]))
        assert waiting.n_steps > 3
        return waiting

    return count


def images(n_labeled: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    y = np.arange(60) % 4
    y[n_labeled:] = -1
    return x, y


SOME = partial(SWWAE, reconstruct_labeled=False, noise=0.1, shift=1)
PULLED = partial(SWWAE, middle_target="joint", class_weight={0: 2.0})
NETS = (SOME, PULLED, partial(SWWAE, batch_norm=False), partial(CNN, shift=1))


@pytest.mark.parametrize("learner", NETS)
@pytest.mark.parametrize("n_labeled", [12, 50])  # mixed batches, and shuffled ones
def test_no_step_makes_the_host_wait(counted, learner: Callable[..., Any], n_labeled: int):
    x, y = images(n_labeled)

    def train(trainer: Trainer) -> None:
        learner("(4)3c-2p", epochs=2, batch_size=10, random_state=0, trainer=trainer).fit(x, y)

    waiting = counted(train)
    assert waiting.calls == {}


@pytest.mark.parametrize("copies", [None, 3])
def test_patches_are_made_without_waiting(counted, copies: int | None):
    x, _ = images(0)
    given = {"copies": copies, "epochs": 2, "batch_size": 10, "random_state": 0}

    def train(trainer: Trainer) -> None:
        ExemplarCNN("(4)3c-2p", patch=4, trainer=trainer, **given).fit(x)

    assert counted(train).calls == {}


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))


def reads(how: Callable[[Tensor], object], module: Mean, batch: Batch) -> Terms:
    how(batch.x)
    return {"w": module.w * batch.x.mean()}


@pytest.mark.parametrize(
    "how",
    [
        lambda x: float(x.mean()),
        lambda x: x.mean().item(),
        lambda x: x.sum() > 0 and None,
        lambda x: x[x > 0.5],
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.sum().tolist(),
        lambda x: torch.tensor([1.0], device=x.device),
    ],
)
def test_an_objective_that_makes_the_host_wait_is_caught(counted, how):
    x, y = images(12)
    net = Mean()
    update = GradientUpdate(net, partial(reads, how), partial(SGD, lr=0.1))
    stage = Stage("one", [update], 1, 10)
    rows = Rows(x[:, None], y)
    waiting = counted(lambda trainer: trainer.run(net, [stage], rows, seed=0))
    assert sum(waiting.calls.values()) >= waiting.n_steps - 1
