import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whatwhere import CNN, SWWAE
from whatwhere.learner import Spec, defaults
from whatwhere.nn.architecture import Conv, Pool, parse
from whatwhere.nn.where import cells

SIDES = st.integers(8, 256)


def shapes_of(shape: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Return the shape below each layer of the chosen net, and that of the top."""
    found = [shape]
    for layer in parse(defaults.architecture(shape)):
        maps, height, width = found[-1]
        if isinstance(layer, Conv):
            maps = layer.maps
        else:
            assert isinstance(layer, Pool)
            height, width = (cells(length, layer.size, layer.size) for length in (height, width))
        found.append((maps, height, width))
    return found


@pytest.mark.parametrize(
    ("sides", "net"),
    [
        ((8, 8), "(16)5c-2p-(32)3c-2p"),
        ((28, 28), "(16)5c-2p-(32)3c-2p-(64)3c-2p"),
        ((32, 32), "(16)5c-2p-(32)3c-2p-(64)3c-2p"),
        ((112, 92), "(16)5c-4p-(32)3c-2p-(64)3c-2p"),
    ],
)
def test_images_have_the_net_that_was_measured_on_their_size(sides, net: str):
    assert defaults.architecture((1, *sides)) == net


def test_the_top_of_every_size_has_neither_few_nor_very_many_features():
    for height in range(8, 257):
        for width in range(height, 257):  # one on its side has the same net
            maps, h, w = shapes_of((3, height, width))[-1]
            assert 100 <= maps * h * w <= 10_000, (height, width)


def test_no_pool_is_wider_than_the_map_below_it_is_long():
    for shape in [(1, 8, 8), (1, 8, 256), (1, 64, 9), (1, 256, 256), (1, 1, 3), (2, 1, 50_000)]:
        shapes, layers = shapes_of(shape), parse(defaults.architecture(shape))
        for (_, *sides), layer in zip(shapes, layers, strict=False):
            assert not isinstance(layer, Pool) or max(sides) >= layer.size, shape


@given(SIDES, SIDES)
def test_an_image_on_its_side_has_the_same_net(height: int, width: int):
    one, other = (defaults.architecture((1, *pair)) for pair in ((height, width), (width, height)))
    assert one == other


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (1, 5, 7), (1, 1, 3000), (3, 8, 8)])
def test_small_images_and_rows_of_a_table_have_a_net_too(shape: tuple[int, int, int]):
    net = SWWAE().build(Spec(shape, 500, n_classes=2))
    assert net.reconstruct(torch.rand(3, *shape)).shape == (3, *shape)
    assert net.logits(torch.rand(3, *shape)).shape == (3, 2)


@pytest.mark.parametrize(
    ("shape", "n_classes"), [((1, 8, 8), 2), ((3, 33, 65), 200), ((1, 112, 92), 40),
                             ((3, 256, 256), 2), ((1, 8, 256), 10)],
)  # fmt: skip
def test_every_net_that_is_chosen_classifies_and_rebuilds(shape, n_classes: int):
    net = SWWAE().build(Spec(shape, 500, n_classes)).eval()
    x = torch.rand(1, *shape)
    with torch.no_grad():
        assert net.logits(x).shape == (1, n_classes)
        assert net.reconstruct(x).shape == x.shape


@given(SIDES, SIDES, st.integers(2, 200), st.integers(2, 60_000), st.floats(0, 1))
def test_what_is_chosen_is_json_and_the_same_for_both_nets(height, width, n_classes, n, share):
    spec = Spec((3, height, width), n, n_classes, n_labeled=int(share * n))
    chosen = SWWAE().choose(spec)
    assert chosen == CNN().choose(spec) == json.loads(json.dumps(chosen))
    assert chosen.keys() == {"architecture", "batch_size", "epochs"}
    CNN(**chosen).check()


def test_what_is_given_is_not_chosen():
    spec = Spec((1, 28, 28), 500)
    assert CNN("(4)3c", epochs=3, batch_size=8).choose(spec) == {}
    assert CNN("(4)3c", epochs=3).choose(spec) == {"batch_size": 50}
    # 500 rows, 5 a batch, are 100 steps an epoch.
    assert CNN("(4)3c", batch_size=5).choose(spec) == {"epochs": 5}


@given(st.integers(320, 60_000))
def test_an_epoch_has_ten_steps_or_about_so_many(n: int):
    size = defaults.batch_size(n)
    assert 32 <= size <= 100
    assert n // size >= 10


def test_the_smallest_sets_have_batches_that_can_be_normalized():
    assert defaults.batch_size(2) == defaults.batch_size(319) == 32


@given(st.integers(2, 3000), st.integers(0, 200))
def test_few_labels_have_the_updates_that_were_measured_and_one_epoch_more_at_most(steps, labels):
    taken = steps * defaults.epochs(steps, labels)
    assert taken >= 200
    assert taken < 200 + steps or defaults.epochs(steps, labels) == 5


@given(st.integers(10, 600), st.integers(200, 60_000))
def test_four_times_the_labels_have_twice_the_updates(steps: int, labels: int):
    once, twice = (steps * defaults.epochs(steps, n) for n in (labels, 4 * labels))
    if defaults.epochs(steps, labels) > 5 and defaults.epochs(steps, 4 * labels) < 100:
        assert abs(twice - 2 * once) <= 2 * steps


def test_epochs_are_bounded():
    assert defaults.epochs(1, 0) == defaults.epochs(0, 0) == 100
    assert defaults.epochs(10**6, 50) == 5


@pytest.mark.parametrize("n_labeled", [0, 30, 200])
def test_the_updates_are_those_of_the_batches_that_are_drawn(n_labeled: int):
    spec = Spec((1, 28, 28), 500, 10 if n_labeled else 0, n_labeled)
    learner = SWWAE()
    (stage,) = learner.stages(learner.build(spec), spec)
    y = torch.where(torch.arange(500) < n_labeled, torch.arange(500) % 10, -1)
    batches = stage.sampler(y, stage.batch_size, torch.Generator().manual_seed(0))
    assert 200 <= len(batches) * stage.epochs < 200 + len(batches)
