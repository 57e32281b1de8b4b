import os
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from whatwhere.core import InputError
from whatwhere.data.sources import NAMES, load
from whatwhere.data.sources.silhouettes import FILE, NAME


def put(folder: Path) -> np.ndarray:
    """Write a file of the published form: the object 0, an image column by column."""
    objects = np.random.default_rng(0).integers(0, 2, (6, 28, 28), dtype=np.uint8)
    (folder / NAME).mkdir()
    names = np.empty((1, 2), object)
    names[0, :] = ["chair", "cup"]
    held = {
        "X": 1 - objects.transpose(0, 2, 1).reshape(6, 784),
        "Y": np.array([[1, 2, 1, 2, 1, 2]], np.uint8),
        "classnames": names,
    }
    savemat(folder / NAME / FILE.name, held)
    return objects


def test_objects_are_white_and_stand_upright(tmp_path: Path):
    objects = put(tmp_path)
    found = load(NAME, data_dir=tmp_path)
    assert found.test is None
    np.testing.assert_array_equal(found.train.x[:, 0], 255 * objects)
    assert found.train.y.tolist() == [0, 1, 0, 1, 0, 1]
    assert found.train.classes == ("chair", "cup")


def test_a_test_part_is_cut_off_where_it_is_asked_for(tmp_path: Path):
    put(tmp_path)
    found = load(NAME, data_dir=tmp_path, test_fraction=1 / 3)
    assert found.test is not None and (len(found.train), len(found.test)) == (4, 2)


def test_a_file_that_is_not_there_or_not_itself_is_told_in_a_line(tmp_path: Path):
    with pytest.raises(InputError, match=f"data download {NAME}"):
        load(NAME, data_dir=tmp_path)
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / FILE.name).write_bytes(b"something else, and long enough to be read" * 10)
    assert NAMES[NAME].present(tmp_path)
    with pytest.raises(InputError, match="is not the file that it should be; remove it"):
        load(NAME, data_dir=tmp_path)


@pytest.mark.skipif(
    not (Path(os.environ.get("WHATWHERE_DATA", "")) / NAME).is_dir(),
    reason="WHATWHERE_DATA does not name a folder with the real data sets",
)
def test_the_real_set_has_8671_binary_images_of_101_classes():
    found = load(NAME).train
    assert found.x.shape == (8671, 1, 28, 28)
    assert sorted(np.unique(found.x)) == [0, 255]
    assert sorted(np.unique(found.y)) == list(range(101))
