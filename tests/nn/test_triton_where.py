from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from whatwhere.nn import where
from whatwhere.nn.where import WhatWhere

FILE = Path(where.__file__).with_name("triton_where.py")
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
SHAPES = [(2, 3, 6, 6), (1, 8, 5, 7), (3, 1, 1, 17)]


@pytest.fixture
def kernels(monkeypatch) -> Any:
    """The module of kernels, to be run by Triton's interpreter on a CPU."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed: it comes with torch for GPUs alone")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # is read when a kernel is defined
    spec = spec_from_file_location("interpreted_where", FILE)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def values(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return numbers with many ties, some zeros, infinite ones and ones that are none."""
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=draws).round(decimals=1)
    odd = torch.rand(shape, generator=draws)
    z[odd < 0.04] = torch.nan
    z[odd > 0.96] = -torch.inf
    return z.to(dtype)


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(
        one.double().nan_to_num(nan=0.123), other.double().nan_to_num(nan=0.123)
    )


@pytest.mark.parametrize("size", [1, 2, 3, 12, 16])  # signed, unsigned and in two bytes
def test_the_kernels_agree_with_torchs_operations_to_the_bit(kernels, size: int):
    cases = product(SHAPES, DTYPES, (False, True))
    for shape, dtype, rectify in list(cases)[:: 1 if size < 12 else 7]:  # large ones are slow
        pool, region = WhatWhere(size), shape[2:]
        z = values(shape, dtype).requires_grad_()
        what, at = pool.pool(z, rectify=rectify)
        found = kernels.pool(z.detach(), size, rectify)
        assert same(found[0], what.detach()) and same(found[1], at)

        above = values(tuple(what.shape), dtype).requires_grad_()
        rebuilt = pool.unpool(above, at, region)
        assert same(kernels.write(above.detach(), at, *region, size), rebuilt.detach())

        below = values(shape, dtype)
        (of_what,) = torch.autograd.grad(rebuilt, above, below)
        assert same(kernels.read(below, at, size), of_what)
        (of_z,) = torch.autograd.grad(what, z, above.detach())
        assert same(kernels.write(above.detach(), at, *region, size), of_z)


@pytest.mark.parametrize("size", [2, 3])
def test_pools_that_use_the_kernels_have_the_gradients_of_small_differences(
    kernels, size: int, monkeypatch, rng
):
    monkeypatch.setattr(where, "_kernels", lambda *_: kernels)
    pool = WhatWhere(size)
    # Numbers 0.1 apart: small differences change no maximum.
    z = torch.from_numpy(rng.permutation(12).reshape(1, 1, 3, 4) * 0.1 - 0.55)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: pool.pool(z, rectify=True)[0], z)
    what, at = pool.pool(z.detach(), rectify=True)
    what.requires_grad_()
    assert torch.autograd.gradcheck(lambda what: pool.unpool(what, at, (3, 4)), what)


def test_kernels_are_tried_before_they_are_used(kernels, monkeypatch):
    cpu = torch.device("cpu")
    assert kernels.agree(cpu)
    monkeypatch.setattr(kernels, "read", lambda maps, at, size: torch.zeros(at.shape))
    assert not kernels.agree(cpu)


def test_torchs_operations_do_what_kernels_cannot(monkeypatch):
    class Broken:
        @staticmethod
        def agree(device: torch.device) -> bool:
            raise RuntimeError("no compiler")

    monkeypatch.setattr(where, "import_module", lambda name: Broken)
    where._tried.cache_clear()
    assert where._tried(torch.device("cpu")) is None
    where._tried.cache_clear()
