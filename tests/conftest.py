import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# What a shell starts in the background ignores Ctrl-C, and so would the processes of tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Several threads add up in other orders, and on a busy machine with few cores they are slower.
torch.set_num_threads(1)

# A busy machine misses any deadline; examples are the same in every run, so a failure stays one.
settings.register_profile("laws", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("laws")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Undo what a test may have set for the whole process."""
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def data_dir() -> Path:
    """The folder of the real data sets."""
    folder = os.environ.get("WHATWHERE_DATA")
    if not folder:
        pytest.skip("WHATWHERE_DATA does not name a folder with the real data sets")
    path = Path(folder)
    if not path.is_dir():
        pytest.skip(f"WHATWHERE_DATA={folder} is no folder")
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
