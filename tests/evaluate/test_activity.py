import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from whatwhere import RBM, Whitening
from whatwhere.data.images import hide_labels
from whatwhere.data.sources import load
from whatwhere.evaluate import activity


@pytest.fixture(scope="module")
def images():
    return load("digits").train.take(np.arange(120))


def caption(folder):
    return json.loads((folder / "activity.json").read_text(encoding="utf-8"))["caption"]


def test_the_words_count_units_that_say_nothing(tmp_path, images):
    model = RBM(6, epochs=1, random_state=0).fit(images.x)
    module: Any = model.module_
    bias = module.hidden.bias.data
    bias[0], bias[1], bias[2] = -99.0, -99.0, 99.0
    activity.write(tmp_path, model, images)
    assert "2 are as good as never on, 1 as good as always" in caption(tmp_path)
    assert "on 100 images, a row each, sorted by class" in caption(tmp_path)
    with Image.open(tmp_path / "activity.png") as picture:
        assert picture.size == (900, 576)


def test_images_without_labels_are_not_said_to_be_sorted(tmp_path, images):
    model = RBM(6, epochs=1, random_state=0).fit(images.x)
    nothing: list[int] = []
    activity.write(tmp_path, model, hide_labels(images, nothing))
    assert "a row each: white is on" in caption(tmp_path)


def test_codes_beyond_0_and_1_are_no_activities(tmp_path, images):
    activity.write(tmp_path, Whitening().fit(images.x), images)
    assert not list(tmp_path.iterdir())


def test_units_stand_from_the_least_active_on():
    codes = np.array([[1.0, 0.0], [1.0, 0.0]])
    one, other = activity.plot(codes.mean(0), codes), activity.plot(codes[0, ::-1], codes[:, ::-1])
    assert (one == other).all()
    below = one[len(one) // 2 :]
    assert below[100, 200].tolist() == [0, 0, 0]  # the unit that is off, to the left
    assert below[100, 700].tolist() == [255, 255, 255]
