import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from whatwhere import CNN, ExemplarCNN
from whatwhere.core import UNLABELED, Batch, Encodes, HasFilters, HasLevels, InputError
from whatwhere.data.rows import Rows
from whatwhere.data.transformations import Transformations
from whatwhere.learner import Spec
from whatwhere.models.exemplar import (
    Clustering,
    ExemplarModule,
    SeedRows,
    SeedSearch,
    Surrogates,
    energy,
    slide,
    surrogate_loss,
)
from whatwhere.nn.pooling import quadrants
from whatwhere.train.stage import InOrder, Stage
from whatwhere.train.trainer import Trainer, one_process

NET = "(4)3c-2p-8fc"


def images(n: int = 40, c: int = 3, side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, c, side, side), dtype=np.uint8)


def learner(**params: Any) -> Any:
    given: dict[str, Any] = {"patch": 8, "n_seeds": 12, "epochs": 2, "batch_size": 6}
    given |= {"random_state": 0} | params
    return ExemplarCNN(NET, **given)


def module(**params: Any) -> ExemplarModule:
    n = params.pop("n_samples", 40)
    shape = params.pop("shape", (3, 16, 16))
    return learner(**params).build(Spec(shape, n))


def batch_of(x: np.ndarray) -> Batch:
    rows = torch.arange(len(x))
    return Batch(torch.from_numpy(x) / 255, torch.full((len(x),), UNLABELED), rows)


def searched(x: np.ndarray, n_seeds: int, **params: Any) -> Any:
    """Return a module that has looked for its seeds, and learned nothing."""
    params = {"n_seeds": n_seeds, "stage_epochs": {"surrogates": 0}} | params
    return learner(**params).fit(x).module_


# The view.


def test_a_patch_has_the_number_of_its_seed_as_its_class():
    net = module(n_seeds=3)
    net.seed_rows.copy_(torch.tensor([2, 5, 7]))
    batch = Surrogates(net, Transformations())(batch_of(images(9)))
    assert batch.y.tolist() == [-1, -1, 0, -1, -1, 1, -1, 2, -1]
    assert batch.x.shape == (9, 3, 8, 8)
    assert batch.rows.tolist() == list(range(9))


def test_without_transformations_a_patch_is_what_its_box_shows():
    net = module(n_seeds=2)
    # In images of 16 x 16, 8 x 8 pixels from row 4 and column 8 on.
    net.seed_boxes.copy_(torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]]))
    batch = batch_of(images(2))
    patches = Surrogates(net, Transformations(()))(batch).x
    torch.testing.assert_close(patches, batch.x[:, :, 4:12, 8:16], rtol=0, atol=1e-5)


def test_new_copies_differ_each_time_and_kept_ones_are_so_many():
    net = module(n_seeds=1)
    batch = batch_of(np.repeat(images(1), 1, axis=0))

    def met(copies: int | None) -> int:
        view = Surrogates(net, Transformations(), copies=copies)
        torch.manual_seed(0)
        return len({view(batch).x.numpy().tobytes() for _ in range(60)})

    assert met(None) == 60
    assert met(3) == 3


def test_kept_copies_are_the_same_whoever_makes_them():
    net, batch = module(n_seeds=2), batch_of(images(2))
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        made.append(Surrogates(net, Transformations(), copies=4, seed=7)(batch).x)
    assert torch.equal(*made)


def test_in_the_clustered_variant_the_class_is_the_cluster():
    net = module(n_seeds=4)
    net.clusters.copy_(torch.tensor([1, 0, 1, 2]))
    batch = Surrogates(net, Transformations(), clustered=True)(batch_of(images(6)))
    assert batch.y.tolist() == [1, 0, 1, 2, -1, -1]


def test_the_loss_is_the_cross_entropy_of_the_seeds():
    net, batch = module(dropout=0.0, batch_norm=False).eval(), batch_of(images(12))
    net.mean.copy_(torch.tensor([0.2, 0.4, 0.6]))
    seen = Surrogates(net, Transformations())(batch)
    top = net.encoder(seen.x - net.mean[:, None, None]).top
    layer = net.surrogates[1]
    assert isinstance(layer, nn.Linear)
    logits = top @ layer.weight.T + layer.bias
    wanted = -logits.log_softmax(dim=1)[torch.arange(12), seen.y].mean()
    torch.testing.assert_close(surrogate_loss(net, seen)["surrogate"], wanted)


# The seeds.


def test_energy_is_the_mean_squared_gradient():
    ramp = torch.arange(5.0).expand(1, 2, 4, 5)  # 1 along each row, 0 along each column
    wanted = (2 * 4 * 4) / (2 * 4 * 5)
    torch.testing.assert_close(energy(ramp), torch.tensor([wanted]))
    assert float(energy(3 * ramp)) == pytest.approx(9 * wanted)
    assert float(energy(torch.ones(1, 1, 4, 4))) == 0


def test_an_image_without_gradient_is_no_seed():
    x = images(30)
    x[::2] = 128
    net = searched(x, 15)
    assert net.seed_rows.tolist() == list(range(1, 30, 2))


def test_a_seed_lies_where_there_is_something_to_see():
    x = np.full((40, 3, 32, 32), 100, np.uint8)
    x[:, :, :, :6] = images(40, side=32)[:, :, :, :6]  # noise along the left border, gray elsewhere
    net = searched(x, 15)
    y, left, zoom = net.seed_boxes.unbind(1)
    # No patch that shows gray alone is taken: each begins in the noise, or a pixel beside it.
    assert ((left + 1) * 16 - 4 * zoom < 6 + zoom).all()
    assert y.std() > 0.2


def test_images_are_drawn_in_proportion_to_their_gradient():
    # Two kinds of images, one with four times the energy: of few seeds four fifths are of it.
    x = np.full((4000, 1, 8, 8), 100, np.uint8)
    x[:, 0, ::2, ::2] += 20
    x[::2, 0, ::2, ::2] += 20
    net = searched(x, 200)
    strong = int((net.seed_rows % 2 == 0).sum())
    assert abs(strong - 160) < 5 * (200 * 0.8 * 0.2) ** 0.5


def test_seeds_stay_within_their_images():
    net = searched(images(40, side=20), 40)
    y, x, zoom = net.seed_boxes.unbind(1)
    assert (zoom >= 1).all() and (zoom <= 20 / 8 + 1e-6).all() and zoom.max() > 1.5
    for center in (y, x):
        assert (center.abs() + zoom * 8 / 20 <= 1 + 1e-6).all()


def test_of_images_no_larger_than_a_patch_the_whole_is_the_seed():
    net = searched(images(20, c=1, side=7), 12)
    assert net.patch == (7, 7)
    assert torch.equal(net.seed_boxes, torch.tensor([0.0, 0.0, 1.0]).expand(12, 3))


def test_colors_are_mean_and_principal_components_of_all_pixels():
    x = images(30)
    x[:, 1] = x[:, 0] // 2 + 40
    net = searched(x, 5)
    pixels = x.transpose(0, 2, 3, 1).reshape(-1, 3) / 255
    np.testing.assert_allclose(net.mean.numpy(), pixels.mean(axis=0), atol=1e-6)
    values, vectors = np.linalg.eigh(np.cov(pixels.T, bias=True))
    for row, vector in zip(net.principal.numpy(), vectors.T[::-1], strict=True):
        assert abs(row @ vector) == pytest.approx(1, abs=1e-4)
    assert values[0] < 1e-3  # two channels are one


def test_there_are_no_more_seeds_than_images():
    assert len(searched(images(10), 10).seed_rows) == 10
    with pytest.raises(InputError, match="n_seeds=11 are more than the 10 images"):
        searched(images(10), 11)
    assert ExemplarCNN().choose(Spec((1, 28, 28), 60_000))["n_seeds"] == 2000
    assert ExemplarCNN().choose(Spec((3, 32, 32), 50_000))["n_seeds"] == 2000
    assert ExemplarCNN().choose(Spec((3, 32, 32), 500))["n_seeds"] == 500


def test_an_epoch_shows_each_seed_once():
    net = module(n_seeds=4)
    net.seed_rows.copy_(torch.tensor([3, 8, 20, 30]))
    y = torch.full((40,), UNLABELED)
    batches = SeedRows(net)(y, 3, torch.Generator().manual_seed(0))
    # A row that would be left alone joins the batch before.
    assert [len(rows) for rows in batches] == [4]
    assert sorted(torch.cat(list(batches)).tolist()) == [3, 8, 20, 30]


# The clusters.


def test_seeds_that_look_alike_become_one_class():
    kinds = images(5)
    x = np.repeat(kinds, 8, axis=0)
    x = np.clip(x.astype(int) + np.random.default_rng(0).integers(-3, 4, x.shape), 0, 255)
    net = module(n_seeds=40, clusters=5).eval()
    seeds = Surrogates(net, Transformations(()))
    search = Stage("clusters", [Clustering(net, 5, 0)], 1, 16, seeds, SeedRows(net, shuffled=False))
    Trainer().run(net, [search], Rows(x.astype(np.uint8)), seed=0)
    groups = net.clusters.view(5, 8)
    assert (groups == groups[:, :1]).all()
    assert len(groups[:, 0].unique()) == 5


def test_the_clustered_variant_learns_in_two_legs():
    model = learner(clusters=3).fit(images())
    assert [stage["name"] for stage in model.stages_] == [
        "seeds",
        "surrogates",
        "clusters",
        "clustered",
    ]
    assert model.module_.clusters.max() <= 2
    assert np.isfinite(model.transform(images())).all()
    with pytest.raises(InputError, match="clusters=12 of 12 seeds"):
        learner(clusters=12).fit(images())


def test_seeds_that_do_not_differ_have_no_clusters():
    with pytest.raises(InputError, match="the same for all seeds"):
        learner(clusters=3, epochs=1).fit(np.zeros((20, 3, 8, 8), np.uint8))


# The features.


def test_it_is_what_its_protocols_say():
    net = module()
    assert isinstance(net, Encodes) and isinstance(net, HasLevels) and isinstance(net, HasFilters)


def test_a_dense_layer_slides_over_larger_maps():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(5, affine=False)
    dense = nn.Sequential(nn.Linear(2 * 3 * 4, 5), norm, nn.ReLU()).eval()
    assert norm.running_mean is not None
    norm.running_mean.normal_()
    maps = torch.randn(2, 2, 5, 7)
    out = slide(dense, (2, 3, 4), maps)
    assert out.shape == (2, 5, 3, 4)
    for i in range(3):
        for j in range(4):
            window = maps[:, :, i : i + 3, j : j + 4].flatten(1)
            torch.testing.assert_close(out[:, :, i, j], dense(window))


def test_on_images_of_the_patchs_size_the_top_is_the_nets_own():
    net = module(shape=(3, 8, 8), n_seeds=5).eval()
    x = batch_of(images(6, side=8)).x
    levels = net.levels(x)
    assert list(levels) == ["level1", "level2"]
    torch.testing.assert_close(levels["level2"], net.encoder(x).top)
    torch.testing.assert_close(levels["level1"], net.encoder(x).what[0])


def test_features_are_the_maxima_of_the_quarters_of_all_levels():
    net = module().eval()
    x = batch_of(images(4)).x
    maps = net.encoder.steps[0](x)
    pooled = F.max_pool2d(maps.relu(), 2)
    top = slide(net.encoder.steps[2], net.encoder.shapes[2], pooled)
    wanted = torch.cat([quadrants(pooled).flatten(1), quadrants(top).flatten(1)], dim=1)
    torch.testing.assert_close(net.encode(x), wanted)
    assert net.encode(x).shape == (4, 4 * 4 + 8 * 4)


def test_features_of_larger_images_come_from_the_same_net():
    x = images(6, side=8)
    model = learner(enlarge=2, n_seeds=6, epochs=1).fit(x)
    found = model.transform(x)
    larger = F.interpolate(torch.from_numpy(x) / 255, scale_factor=2, mode="bilinear")
    model.module_.enlarge = 1
    with torch.no_grad():
        wanted = model.module_.encode(larger).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert found.shape == (6, 4 * 4 + 8 * 4)


def test_it_learns_what_stays_under_the_transformations():
    """Seeds of noise are told from one another, and a net that has not learned cannot."""
    x = images(20, c=1, side=8)
    params = {"n_seeds": 20, "epochs": 150, "batch_size": 20, "learning_rate": 0.01}
    model = learner(dropout=0.0, transformations="translation+contrast", **params).fit(x)
    loss = [epoch["surrogates/surrogate"] for epoch in model.history_ if epoch["stage"] != "seeds"]
    assert loss[0] > 2.5  # ln 20 = 3.0
    assert np.mean(loss[-5:]) < 0.6 * loss[0]


def test_a_net_with_labels_begins_with_its_encoder():
    x = images(24, side=8)
    model = learner(epochs=1).fit(x)
    y = np.arange(24) % 3
    tuned: Any = CNN(NET, epochs=1, learning_rate=1e-30, random_state=1).fit(x, y, start=model)
    theirs = model.module_.encoder.state_dict()
    for name, value in tuned.module_.encoder.named_parameters():
        torch.testing.assert_close(value, theirs[name])


def test_a_net_that_begins_with_it_sees_what_it_saw():
    x = images(24, side=8)
    model = learner(epochs=3).fit(x)
    begun: Any = CNN(NET, stage_epochs={"joint": 0}, random_state=1)
    net = begun.fit(x, np.arange(24) % 3, start=model).module_
    batch = batch_of(x).x
    theirs = model.module_.levels(batch)
    for name, level in net.levels(batch).items():
        torch.testing.assert_close(level, theirs[name])


def test_of_another_exemplar_net_the_encoder_alone_is_begun_with():
    former = learner(n_seeds=8, clusters=3, epochs=1).fit(images())
    given: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-30, "random_state": 3}
    new = learner(**given).fit(images(seed=1), start=former)
    for name, value in new.module_.encoder.named_parameters():
        torch.testing.assert_close(value, former.module_.encoder.state_dict()[name])
    assert len(new.module_.seed_rows) == 12
    alone = learner(**given).fit(images(seed=1))
    for name in ("seed_rows", "seed_boxes", "surrogates.1.weight"):
        assert torch.equal(new.module_.state_dict()[name], alone.module_.state_dict()[name])


def test_a_convolution_that_no_pool_follows_is_a_level():
    net = ExemplarCNN("(4)3c-2p-(5)3c-6fc", patch=8).build(Spec((1, 8, 8), 10)).eval()
    levels = net.levels(torch.rand(2, 1, 8, 8))
    assert [level.shape[1] for level in levels.values()] == [4, 5, 6]


def test_the_optimizer_is_the_one_that_was_asked_for():
    asked = learner(optimizer="sgd", learning_rate=0.02, weight_decay=0.1, dropout=0.25)
    net = asked.build(Spec((3, 16, 16), 40))
    update = asked.stages(net, Spec((3, 16, 16), 40))[1].updates[0]
    update.start(one_process())
    (group,) = update._optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.9, 0.1)
    assert net.surrogates[0].p == 0.25


def test_two_processes_need_no_warning():
    net = module(n_seeds=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert net.seeds(torch.arange(10)[1::2]).tolist() == [1, 3, -1, -1, -1]


def test_search_and_clustering_say_what_they_do():
    net = module()
    assert str(SeedSearch(net, 40)) == "12 seeds, drawn by their mean squared gradient"
    assert str(Clustering(net, 5, 0)).startswith("5 clusters of what the net gives")
    view = Surrogates(net, Transformations.read("color"), copies=3)
    assert str(view) == (
        "patches transformed at random: color, 3 copies of each; the class of a patch is its seed"
    )
    assert str(InOrder()) == "every row once, in order"


def test_wrong_words_are_refused():
    with pytest.raises(InputError, match="there is no transformation 'hue'"):
        learner(transformations="hue").fit(images())
    with pytest.raises(InputError, match="n_seeds"):
        learner(n_seeds=1).fit(images())


def test_copies_are_shown_of_the_images_that_it_was_fitted_to():
    model = learner(epochs=1).fit(x := images())
    seeds, copies = model.copies_of(x, 99, 2)
    assert len(seeds) == 12 and copies.shape == (12, 2, *seeds.shape[1:])
    with pytest.raises(InputError, match="39 images, but the seeds are rows of the 40"):
        model.copies_of(x[1:], 3, 2)
    with pytest.raises(InputError, match="one or more of each"):
        model.copies_of(x, 0, 2)
