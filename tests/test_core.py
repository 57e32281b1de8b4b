import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.core import Classifies, Encodes, HasFilters, InputError, Reconstructs, key, seeded

COUNTERS = st.lists(st.integers(0, 10**6) | st.text(max_size=5), min_size=1, max_size=5).map(tuple)


@given(COUNTERS, COUNTERS)
def test_other_counters_give_another_key(one: tuple, other: tuple):
    assert (key(*one) == key(*other)) == (one == other)


def test_a_key_is_the_same_in_every_version_and_process():
    # Old checkpoints go on, and recorded results stay, only while this number does.
    assert key(0, 1, 2, "view") == 5186065862518300992


@given(COUNTERS)
def test_a_key_seeds_a_generator(counters: tuple):
    assert 0 <= key(*counters) < 2**63
    torch.Generator().manual_seed(key(*counters))


def test_counters_do_not_run_into_one_another():
    assert len({key(1, 23), key(12, 3), key(123), key("1", 23), key("1, 23")}) == 5


def test_seeded_draws_depend_on_the_counters_alone():
    def draw(*counters: int | str) -> list[float]:
        with seeded(*counters):
            return torch.rand(3).tolist()

    first = draw(0, "encoder")
    torch.rand(7)
    assert draw(0, "encoder") == first
    assert draw(0, "decoder") != first
    assert draw(1, "encoder") != first


def test_seeded_draws_leave_the_callers_stream_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    before = torch.rand(2)
    with pytest.raises(RuntimeError, match="in the block"), seeded(0):
        torch.rand(100)
        raise RuntimeError("in the block")
    assert torch.equal(torch.cat([before, torch.rand(2)]), expected)


def test_what_the_user_can_mend_is_a_value_error():
    assert issubclass(InputError, ValueError)


def test_a_module_is_able_to_do_what_it_has_methods_for():
    class Half:
        def encode(self, x):
            return x

    assert isinstance(Half(), Encodes)
    assert not isinstance(Half(), Classifies | Reconstructs | HasFilters)


@pytest.mark.parametrize("module", ["whatwhere", "whatwhere.models", "whatwhere.cli"])
def test_nothing_heavy_is_imported_before_it_is_needed(module: str):
    heavy = ("torch", "sklearn", "matplotlib", "lightning_fabric")
    code = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
