import json

import numpy as np
from PIL import Image

from whatwhere import CNN, ExemplarCNN
from whatwhere.data.images import Images
from whatwhere.evaluate import surrogates


def images(n: int = 20, side: int = 12) -> Images:
    x = np.random.default_rng(0).integers(0, 256, (n, 3, side, side), dtype=np.uint8)
    return Images(x, np.full(n, -1), ())


def test_seeds_stand_beside_their_copies(tmp_path):
    train = images()
    learner = ExemplarCNN("(4)3c-2p", patch=8, n_seeds=5, epochs=1, random_state=0).fit(train.x)
    seeds, copies = learner.copies_of(train.x, 8, 3)
    assert seeds.shape == (5, 3, 8, 8) and copies.shape == (5, 3, 3, 8, 8)
    assert np.array_equal(copies, learner.copies_of(train.x, 8, 3)[1])
    # A copy is nearer to its own seed than to the others, on average.
    far = np.abs(copies[:, :, None] - seeds[None, None]).mean(axis=(3, 4, 5))
    own = np.eye(5, dtype=bool)[:, None].repeat(3, axis=1)
    assert far[own].mean() < far[~own].mean()
    surrogates.write(tmp_path, learner, train)
    told = json.loads((tmp_path / "surrogates.json").read_text("utf-8"))
    assert told["caption"].startswith("5 of the seeds")
    with Image.open(tmp_path / "surrogates.png") as picture:
        assert picture.width > picture.height


def test_without_transformations_a_copy_is_its_seed():
    train = images()
    asked = ExemplarCNN("(4)3c-2p", patch=8, n_seeds=4, epochs=1, transformations="none")
    learner = asked.fit(train.x)
    seeds, copies = learner.copies_of(train.x, 4, 2)
    assert np.array_equal(copies, seeds[:, None].repeat(2, axis=1))


def test_others_have_no_such_picture(tmp_path):
    train = images()
    surrogates.write(tmp_path, CNN("(4)3c-2p", epochs=1).fit(train.x), train)
    assert not list(tmp_path.iterdir())
