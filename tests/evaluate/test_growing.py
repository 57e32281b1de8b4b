import json
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from whatwhere import CNN, DBM, DBN, RBM
from whatwhere.evaluate import growing
from whatwhere.evaluate.growing import CHAINS, MOST_ROWS, Growing, shown
from whatwhere.learner import Spec

SHAPE = (1, 4, 4)
SPEC = Spec(SHAPE, 40, 0, 0, 0)


def modules(n: int, learner=RBM, size=6) -> list[nn.Module]:
    """Return a machine as it is after each of n epochs."""
    found = []
    for epoch in range(n):
        module = learner(size).build(SPEC).eval()
        with torch.random.fork_rng():
            torch.manual_seed(epoch)
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.1 * epoch)
        found.append(module)
    return found


def picture(folder: Path) -> np.ndarray:
    return np.asarray(Image.open(folder / "growing.png"))


@pytest.mark.parametrize("epochs", [1, 2, 9, 11, 12, 13, 40, 200, 1000])
def test_rows_are_few_evenly_spaced_and_never_missing_later(epochs):
    rows = shown(epochs)
    assert rows[0] == 1
    assert rows[-1] == epochs
    assert len(rows) <= MOST_ROWS
    assert len(rows) >= min(epochs, MOST_ROWS // 2)
    steps = {high - low for low, high in pairwise(rows[1:-1])}
    assert len(steps) <= 1
    kept: set[int] = set()
    for epoch in range(1, epochs + 1):
        kept = (kept | {epoch}) & set(shown(epoch))
    assert kept == set(rows)


@pytest.mark.parametrize(
    "learner", [RBM, partial(DBN, "6fc-4fc"), partial(DBM, "6fc-4fc")], ids=["rbm", "dbn", "dbm"]
)
def test_every_model_that_walks_gets_a_row_an_epoch_and_a_column_a_chain(tmp_path, learner):
    draw = Growing(tmp_path, SHAPE)
    heights = []
    for epoch in range(3):
        module = (learner(6) if learner is RBM else learner()).build(SPEC).eval()
        nn.init.constant_(next(module.parameters()), 0.1 * epoch)
        assert draw(module) == {}
        draw.draw()
        heights.append(len(picture(tmp_path)))
    assert heights[1] == 2 * heights[0]
    assert heights[2] == 3 * heights[0]
    words = json.loads((tmp_path / "growing.json").read_text())
    assert words["caption"].startswith(f"{CHAINS} chains of Gibbs sampling")


def test_a_model_that_does_not_walk_is_left_alone(tmp_path):
    Growing(tmp_path / "panels", SHAPE)(CNN("4fc").build(Spec(SHAPE, 40, 2, 40, 0)))
    assert not (tmp_path / "panels").exists()


def test_chains_follow_the_machine(tmp_path):
    module = RBM(6).build(SPEC).eval()
    draw = Growing(tmp_path, SHAPE)
    for bias in (-20.0, 20.0, -20.0):  # all pixels off, on, and off
        nn.init.constant_(module.visible_bias, bias)
        draw(module)
    draw.finish()
    shades = picture(tmp_path)[:, growing.strips.MARGIN :]
    first, second, third = np.split(shades, 3)
    assert np.array_equal(first, third)
    assert not (first == 255).all()
    assert (second == 255).all()


def test_a_run_that_is_resumed_draws_the_same_and_an_epoch_seen_twice_counts_once(tmp_path):
    epochs = modules(15)
    for module in epochs:
        Growing(tmp_path / "stopped", SHAPE)(module)  # a new process each time
        Growing(tmp_path / "stopped", SHAPE)(module)  # killed before the checkpoint
    whole = Growing(tmp_path / "whole", SHAPE)
    for module in epochs:
        whole(module)
    whole.draw()
    assert np.array_equal(picture(tmp_path / "stopped"), picture(tmp_path / "whole"))
    other = Growing(tmp_path / "other", SHAPE, seed=1)
    for module in epochs:
        other(module)
    other.draw()
    assert not np.array_equal(picture(tmp_path / "other"), picture(tmp_path / "whole"))


def test_training_goes_on_as_if_nothing_had_looked(tmp_path):
    module = modules(2)[1]
    torch.manual_seed(5)
    state, weights = torch.get_rng_state(), [p.clone() for p in module.parameters()]
    Growing(tmp_path, SHAPE)(module)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, weights, module.parameters()))


def test_what_is_kept_for_a_later_epoch_goes_at_the_end_and_the_picture_stays(tmp_path):
    draw = Growing(tmp_path, SHAPE)
    for module in modules(3):
        draw(module)
    assert draw.kept.exists()
    early = picture(tmp_path)  # later ones of the same seconds are not drawn yet
    draw.finish()
    assert len(picture(tmp_path)) == 3 * len(early)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["growing.json", "growing.png"]


def test_a_run_of_another_kind_of_model_ends_without_a_picture(tmp_path):
    Growing(tmp_path, SHAPE).finish()
    assert list(tmp_path.iterdir()) == []
