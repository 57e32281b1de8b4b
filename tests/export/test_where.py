import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from whatwhere.export.where import Disjoint, Overlapping, Replay, exportable, replaying
from whatwhere.nn.architecture import parse
from whatwhere.nn.conv import Encoder
from whatwhere.nn.where import WhatWhere, inactive

OVERLAPPING = [(size, stride) for size in range(2, 6) for stride in range(1, size)]


@st.composite
def maps(draw, least: int = 1) -> Tensor:
    """Maps (B, C, H, W) of any size from `least` pixels on, in which many values are equal."""
    batch, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    height, width = draw(st.integers(least, 13)), draw(st.integers(least, 13))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    values = rng.choice([-1.0, 0.0, 0.5, 2.0], size=(batch, channels, height, width))
    return torch.from_numpy(values.astype(np.float32))


def places(where: Tensor) -> Tensor:
    """Return *where* as both have it: whole numbers, -1 where inactive."""
    if where.dtype == torch.float32:
        return where.long()
    return where.long().masked_fill(inactive(where), -1)


def agrees(own: WhatWhere, form: WhatWhere, z: Tensor, rectify: bool, other: Tensor) -> None:
    what, where = own.pool(z, rectify=rectify)
    said, place = form.pool(z, rectify=rectify)
    assert torch.equal(said, what)
    assert torch.equal(places(place), places(where))
    size = (z.shape[2], z.shape[3])
    for values in (what, other.expand(what.shape)):  # a decoder writes values of its own
        assert torch.equal(form.unpool(values, place, size), own.unpool(values, where, size))


@given(maps(), st.integers(1, 16), st.booleans())
def test_disjoint_windows_have_the_same_bits_in_other_operations(z, size, rectify):
    agrees(WhatWhere(size), Disjoint(size, size, []), z, rectify, torch.tensor(-3.0))


@pytest.mark.parametrize(("size", "stride"), OVERLAPPING)
@given(maps(least=5), st.booleans())
def test_windows_that_overlap_have_the_same_bits_in_other_operations(size, stride, z, rectify):
    agrees(WhatWhere(size, stride), Overlapping(size, stride, []), z, rectify, torch.tensor(1.5))


@given(maps(least=5), st.sampled_from([(1, 1), (2, 2), (5, 5), *OVERLAPPING]), st.booleans())
def test_a_replay_of_what_was_done_is_the_same_and_falls_short_by_nothing(z, window, rectify):
    size, stride = window
    what, where = WhatWhere(size, stride).pool(z, rectify=rectify)
    shortfalls: list[float] = []
    replay = Replay(size, stride, [places(where)], shortfalls)
    again = replay.pool(z, rectify=rectify)
    assert torch.equal(again[0], what)
    assert torch.equal(again[1], where)
    assert shortfalls == [0.0]


@pytest.mark.parametrize(
    ("place", "shortfall"),
    [(3, 0.0), (2, 0.25), (0, 3.0), (-1, 1.0)],
    ids=["the maximum", "another", "the minimum", "none"],
)
def test_a_replay_tells_how_far_below_the_maximum_a_place_is(place, shortfall):
    z = torch.tensor([[[[-4.0, 0.5], [1.5, 2.0]]]])
    shortfalls: list[float] = []
    replay = Replay(2, 2, [torch.tensor([[[[place]]]])], shortfalls)
    replay.pool(z, rectify=True)
    assert shortfalls == [shortfall]  # in units of the largest maximum, 2


def test_a_place_in_a_silent_window_falls_short_by_what_it_holds():
    z = torch.tensor([[[[-4.0, -1e-6], [-1.5, -2.0]]]])
    for place, shortfall in [(1, 1e-6), (0, 4.0), (-1, 0.0)]:
        shortfalls: list[float] = []
        Replay(2, 2, [torch.tensor([[[[place]]]])], shortfalls).pool(z, rectify=True)
        assert shortfalls == [pytest.approx(shortfall)]


@pytest.mark.parametrize("place", [-2, 1, 4])
def test_a_place_that_no_window_has_falls_short_without_end(place):
    z = torch.ones(1, 1, 1, 1)  # its window is clipped to one place, 0
    shortfalls: list[float] = []
    replay = Replay(2, 2, [torch.full((1, 1, 1, 1), place)], shortfalls)
    what, where = replay.pool(z)
    assert shortfalls == [torch.inf]
    assert not replay.unpool(what, where, (1, 1)).any()


def net() -> Encoder:
    return Encoder(parse("(4)3c-2p-(4)3c-3p"), (1, 7, 9)).eval()


def test_a_copy_that_can_be_exported_tells_its_wheres_in_order_and_leaves_the_net():
    own = net()
    copy, wheres = exportable(own)
    x = torch.rand(3, 1, 7, 9)
    code = own(x)
    copy(x)
    assert [places(where).tolist() for where in wheres] == [
        places(where).tolist() for where in code.where
    ]
    assert [type(step) for step in own.steps if isinstance(step, WhatWhere)] == [WhatWhere] * 2


def test_other_kinds_of_where_are_left_as_they_are():
    class Other(WhatWhere):
        pass

    kept = nn.ModuleList([Other(2), WhatWhere(2), WhatWhere(3, 2)])
    copy, _ = exportable(kept)
    assert isinstance(copy, nn.ModuleList)
    assert [type(step) for step in copy] == [Other, Disjoint, Overlapping]


def test_a_copy_that_replays_is_the_net_itself_with_its_own_wheres():
    own = net()
    x = torch.rand(3, 1, 7, 9)
    code = own(x)
    copy, given_, shortfalls = replaying(own)
    given_[:] = [places(where) for where in code.where]
    with torch.no_grad():
        assert torch.equal(copy(x).top, code.top)
    assert shortfalls == [0.0, 0.0]
