from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from whatwhere.core import Batch, Terms, joint_sum
from whatwhere.train.trainer import one_process

PROCEDURE = Path(__file__).with_name("procedure.py")


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return one_process()


class Whitening(nn.Module):
    """Holds W with W Σ W' = 1 and the mean, once they are known."""

    mean: Tensor
    map: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("map", torch.eye(n, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.map


class Moments:
    """An update without a gradient: gathers moments in `step`, solves in `end_epoch`."""

    name, every = "moments", 1

    def __init__(self, module: Whitening) -> None:
        self.module = module

    def start(self, fabric: Fabric) -> None:
        n = len(self.module.mean)
        self.sums: dict[str, Tensor] = {
            "n": torch.zeros((), dtype=torch.float64),
            "x": torch.zeros(n, dtype=torch.float64),
            "xx": torch.zeros(n, n, dtype=torch.float64),
        }

    def step(self, batch: Batch, progress: float) -> Terms:
        own = {
            "n": batch.x.new_tensor(len(batch.x)),
            "x": batch.x.sum(0),
            "xx": batch.x.T @ batch.x,
        }
        for name, value in own.items():
            self.sums[name] += joint_sum(value)
        return {"rows": self.sums["n"].clone()}

    def begin_epoch(self) -> None:
        pass

    def end_epoch(self) -> Mapping[str, float]:
        n, mean = self.sums["n"], self.sums["x"] / self.sums["n"]
        covariance = self.sums["xx"] / n - mean.outer(mean)
        values, vectors = torch.linalg.eigh(covariance)
        self.module.mean.copy_(mean)
        self.module.map.copy_(vectors / values.sqrt() @ vectors.T)
        return {"smallest_variance": float(values[0])}

    def evaluating(self) -> AbstractContextManager[None]:
        return nullcontext()

    def finish(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return dict(self.sums)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums = {name: value.clone() for name, value in state.items()}

    def __str__(self) -> str:
        return "moments: closed form"


@pytest.fixture(scope="session")
def procedure() -> Any:
    """The module `procedure.py` beside this file; tests are no package."""
    spec = spec_from_file_location("procedure", PROCEDURE)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def procedure_file() -> Path:
    return PROCEDURE


@pytest.fixture
def whitening() -> Callable[[int], tuple[Whitening, Moments]]:
    def make(n: int) -> tuple[Whitening, Moments]:
        module = Whitening(n)
        return module, Moments(module)

    return make
