from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere import CNN, SWWAE
from whatwhere.core import UNLABELED, Batch
from whatwhere.learner import Spec
from whatwhere.models.swwae import SWWAEModule, WhatWhereLoss, mean_square
from whatwhere.nn.conv import Code, Rebuilt
from whatwhere.nn.where import inactive
from whatwhere.train.stage import Mixed, Shuffled
from whatwhere.train.update import GradientUpdate

DEEP = "(4)3c-2p-(6)3c-2p"
SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 8, "random_state": 0}
SPEC = Spec((1, 8, 8), n_samples=24, n_classes=3, n_labeled=8)


def images(n: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)


def labels(kind: str, n: int = 24) -> np.ndarray:
    y = np.arange(n) % 3
    return {
        "all": y,
        "most": np.where(np.arange(n) < 2 * n // 3, y, UNLABELED),
        "few": np.where(np.arange(n) < n // 4, y, UNLABELED),
    }[kind]


def batch(kind: str = "most") -> Batch:
    x = torch.from_numpy(images()).float() / 255
    return Batch(x, torch.from_numpy(labels(kind)), torch.arange(24))


def built(architecture: str = DEEP, **params) -> SWWAEModule:
    return SWWAE(architecture, **params).build(SPEC)


def gradients(net: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in net.named_parameters()
    }


# It is the CNN where nothing is reconstructed.


@pytest.mark.parametrize("kind", ["all", "most", "few"])
@pytest.mark.parametrize("architecture", [DEEP, "(4)3c-2p-5fc", "(4)3c-2p-3fc"])
def test_without_reconstruction_it_learns_the_bits_of_the_cnn(kind: str, architecture: str):
    cnn = CNN(architecture, **SMALL).fit(images(), labels(kind))
    swwae = SWWAE(architecture, reconstruction=0, middle=0, **SMALL).fit(images(), labels(kind))
    weights = swwae.module_.state_dict()
    for name, value in cnn.module_.state_dict().items():
        assert torch.equal(weights[name], value), name
    for ours, theirs in zip(swwae.history_, cnn.history_, strict=True):
        assert ours["loss/nll"] == theirs["loss/nll"]
    np.testing.assert_array_equal(swwae.predict_proba(images()), cnn.predict_proba(images()))


@pytest.mark.parametrize("kind", ["all", "most", "few"])
def test_without_reconstruction_losses_and_gradients_are_the_cnns(kind: str):
    learners = CNN(DEEP), SWWAE(DEEP, reconstruction=0, middle=0)
    found = []
    for learner in learners:
        net = learner.build(SPEC).train()
        torch.manual_seed(0)
        terms = learner.objective()(net, batch(kind))
        assert list(terms) == ["nll"]
        found.append((terms["nll"], gradients(net, terms["nll"])))
    (theirs, their_gradients), (ours, our_gradients) = found
    assert torch.equal(ours, theirs)
    for name, gradient in their_gradients.items():
        assert torch.equal(our_gradients[name], gradient), name


def test_without_reconstruction_the_decoder_is_not_run():
    learner = SWWAE(DEEP, reconstruction=0, middle=0, noise=0.5)
    net = learner.build(SPEC)

    def run(*_: object) -> None:
        raise AssertionError("the decoder was run")

    net.decoder.register_forward_hook(run)
    learner.objective()(net, batch())["nll"].backward()
    assert all(p.grad is None for p in net.decoder.parameters())


def test_encoder_and_class_layer_start_as_those_of_the_cnn():
    cnn, swwae = CNN(DEEP).build(SPEC), built()
    weights = swwae.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in cnn.state_dict().items())


# Equation 7.


def by_hand(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Return scores, x̃, x_m and x̃_m of (2)3c-2p-(3)3c-2p-4fc, with torch's own pooling.

    A window without activation has no *where*: nothing is unpooled there.
    """
    p = {name: value.detach() for name, value in net.named_parameters()}

    def up(layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        u = F.conv2d(x, p[f"encoder.{layer}.weight"], p[f"encoder.{layer}.bias"], padding=1)
        return F.max_pool2d(u.relu(), 2, return_indices=True)

    def down(layer: str, x: Tensor) -> Tensor:
        weight, bias = p[f"decoder.{layer}.weight"], p[f"decoder.{layer}.bias"]
        return F.conv_transpose2d(x, weight, bias, padding=1)

    x_1, where_1 = up("steps.0.0", x)
    x_2, where_2 = up("steps.2.0", x_1)
    top = (x_2.flatten(1) @ p["encoder.steps.4.0.weight"].T + p["encoder.steps.4.0.bias"]).relu()
    scores = top @ p["head.1.weight"].T + p["head.1.bias"]
    again_2 = (top @ p["decoder.steps.0.0.weight"].T + p["decoder.steps.0.0.bias"]).relu()
    again_2 = again_2.view(x_2.shape)
    again_1 = down("steps.2.0", F.max_unpool2d(again_2 * (x_2 > 0), where_2, [2, 2])).relu()
    image = down("steps.4", F.max_unpool2d(again_1 * (x_1 > 0), where_1, [2, 2]))
    return scores, image, [x_1, x_2], [again_1, again_2]


def mean_of_squares(a: Tensor, b: Tensor, rows: list[int]) -> float:
    one, other = a.numpy(), b.numpy()
    squares = [
        (float(one[row].flat[i]) - float(other[row].flat[i])) ** 2
        for row in rows
        for i in range(one[row].size)
    ]
    return sum(squares) / len(squares)


@pytest.mark.parametrize("reconstruct_labeled", [True, False])
def test_the_terms_are_those_of_equation_7(reconstruct_labeled: bool):
    learner = SWWAE(
        "(2)3c-2p-(3)3c-2p-4fc", nll=0.7, reconstruction=1.3, middle=0.4, batch_norm=False,
        reconstruct_labeled=reconstruct_labeled, dropout=0.0,
    )  # fmt: skip
    net, (x, y, rows) = learner.build(SPEC).double(), batch("few")
    x = x.double()
    scores, image, maps, again = by_hand(net, x)
    known = [row for row in range(24) if y[row] != UNLABELED]
    counted = [row for row in range(24) if reconstruct_labeled or row not in known]

    nll = sum(-float(scores[row].log_softmax(0)[y[row]]) for row in known) / len(known)
    reconstruction = mean_of_squares(image, x, counted)
    middle = sum(mean_of_squares(a, b, counted) for a, b in zip(maps, again, strict=True))

    with torch.no_grad():
        terms = learner.objective()(net, Batch(x, y, rows))
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(
        {"nll": 0.7 * nll, "reconstruction": 1.3 * reconstruction, "middle": 0.4 * middle}, rel=1e-9
    )


def test_rows_of_a_class_are_weighted_in_the_nll_alone():
    learner, weights = SWWAE(DEEP, nll=0.7), (0.5, 1.0, 2.0)
    net = learner.build(SPEC).eval()
    plain, weighted = (learner.objective(w)(net, batch()) for w in ((), weights))
    y = batch().y
    known = y != UNLABELED
    losses = F.cross_entropy(net.logits(batch().x)[known], y[known], reduction="none")
    expected = 0.7 * (torch.tensor(weights)[y[known]] * losses).mean()
    torch.testing.assert_close(weighted["nll"], expected)
    for term in ("reconstruction", "middle"):
        assert torch.equal(weighted[term], plain[term])


def test_a_level_counts_as_much_as_another_whatever_its_size():
    code = Code(torch.zeros(2, 3), [torch.zeros(2, 1, 9, 9), torch.zeros(2, 7, 1, 1)], [])
    maps: list[Tensor | None] = [torch.full((2, 1, 9, 9), 2.0), torch.full((2, 7, 1, 1), 3.0)]
    again = Rebuilt(torch.zeros(2, 1, 4, 4), maps)
    net: Any = SimpleNamespace(encoder=lambda x: code, decoder=lambda code: again, head=None)
    loss = WhatWhereLoss(nll=1, reconstruction=1, middle=0.5)
    x = torch.ones(2, 1, 4, 4)
    terms = loss(net, Batch(x, torch.full((2,), UNLABELED), torch.arange(2)))
    assert {name: float(value) for name, value in terms.items()} == {
        "reconstruction": 1.0,
        "middle": 0.5 * (4 + 9),
    }


@pytest.mark.parametrize(
    ("architecture", "terms"),
    [
        ("(4)3c-2p", ["nll", "reconstruction"]),  # the only pooled map is the code
        (DEEP, ["nll", "reconstruction", "middle"]),
        ("(4)3c-2p-5fc", ["nll", "reconstruction", "middle"]),
        ("(4)3c", ["nll", "reconstruction"]),
    ],
)
def test_there_is_a_middle_term_where_a_pooled_map_is_rebuilt(architecture: str, terms: list[str]):
    learner = SWWAE(architecture)
    assert list(learner.objective()(learner.build(SPEC), batch())) == terms


def test_without_classes_there_is_no_nll():
    learner = SWWAE(DEEP)
    net = learner.build(SPEC._replace(n_classes=0, n_labeled=0))
    assert list(learner.objective()(net, batch())) == ["reconstruction", "middle"]


def test_mean_square_is_a_mean_over_the_elements_of_the_rows():
    a, b = torch.arange(12.0).view(3, 2, 2), torch.zeros(3, 2, 2)
    assert mean_square(a, b) == (a**2).mean()
    some = torch.tensor([True, False, True])
    assert mean_square(a, b, some) == (a[some] ** 2).mean()
    assert mean_square(a, b, torch.ones(3, dtype=torch.bool)) == (a**2).mean()
    assert mean_square(a, b, torch.zeros(3, dtype=torch.bool)) == 0


# Its readings.


def test_labeled_rows_may_be_left_out_of_the_reconstruction():
    learner = SWWAE(DEEP, reconstruct_labeled=False)
    net = learner.build(SPEC).eval()
    one = batch("few")
    other = one._replace(x=torch.where((one.y != UNLABELED).view(-1, 1, 1, 1), 0.5, one.x))
    first, second = (learner.objective()(net, part) for part in (one, other))
    assert first["nll"] != second["nll"]
    for name in ("reconstruction", "middle"):
        torch.testing.assert_close(first[name], second[name])


def test_a_batch_of_labeled_rows_alone_then_moves_no_decoder():
    learner = SWWAE(DEEP, reconstruct_labeled=False)
    net = learner.build(SPEC)
    terms = learner.objective()(net, batch("all"))
    assert terms["reconstruction"] == terms["middle"] == 0
    moved = gradients(net, torch.stack(list(terms.values())).sum())
    assert not any(moved[name].any() for name in moved if name.startswith("decoder"))
    assert any(moved[name].any() for name in moved if name.startswith("encoder"))


@pytest.mark.parametrize(("target", "pulled"), [("stop-gradient", False), ("joint", True)])
def test_the_maps_of_the_encoder_are_pulled_to_those_of_the_decoder_or_not(target, pulled: bool):
    learner = SWWAE(DEEP, middle_target=target, middle=1.0, reconstruction=0.0)
    net = learner.build(SPEC)
    code = net.encoder(batch().x)
    fixed = Rebuilt(torch.zeros_like(batch().x), [torch.ones_like(code.what[0]), None])
    blind = SimpleNamespace(encoder=lambda x: code, decoder=lambda code: fixed, head=None)
    middle = learner.objective()(blind, batch())["middle"]
    assert middle > 0
    assert middle.requires_grad == pulled


@pytest.mark.parametrize("target", ["stop-gradient", "joint"])
def test_a_pull_or_none_is_the_only_difference_of_the_two(target: str):
    learner = SWWAE(DEEP, middle_target=target, middle=0.3)
    net = learner.build(SPEC).eval()
    code = net.encoder(batch().x)
    again = net.decoder(code).what[0]
    x_1 = code.what[0].detach() if target == "stop-gradient" else code.what[0]
    expected = gradients(net, 0.3 * (again - x_1).square().mean())
    found = gradients(net, learner.objective()(net, batch())["middle"])
    assert found["encoder.steps.0.0.weight"].any()  # by way of the decoder at least
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)


def test_noise_is_on_what_the_encoder_sees_and_not_on_the_targets():
    learner = SWWAE(DEEP, noise=0.3, nll=2.0, middle=0.7)
    net, (x, y, _) = learner.build(SPEC).eval(), batch()
    torch.manual_seed(4)
    terms = learner.objective()(net, batch())
    torch.manual_seed(4)
    code, clean = net.encoder(x + 0.3 * torch.randn_like(x)), net.encoder(x)
    again = net.decoder(code)
    torch.testing.assert_close(terms["reconstruction"], F.mse_loss(again.image, x))
    # The top pooled map is the code: there it is the noisy one that is compared.
    levels = F.mse_loss(again.what[0], clean.what[0]) + F.mse_loss(code.what[1], clean.what[1])
    torch.testing.assert_close(terms["middle"], 0.7 * levels)
    nll = F.cross_entropy(net.classify(code.top), y, ignore_index=UNLABELED)
    torch.testing.assert_close(terms["nll"], 2.0 * nll)


def test_without_noise_no_random_number_is_drawn():
    learner = SWWAE(DEEP, dropout=0.0)
    net = learner.build(SPEC)
    before = torch.get_rng_state()
    learner.objective()(net, batch())
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_for_the_class_layer_and_leaves_the_decoder_its_code():
    whole, dropped = (SWWAE(DEEP, dropout=dropout) for dropout in (0.0, 0.9))
    first, second = (
        learner.objective()(learner.build(SPEC).train(), batch()) for learner in (whole, dropped)
    )
    assert first["nll"] != second["nll"]
    assert torch.equal(first["reconstruction"], second["reconstruction"])


@pytest.mark.parametrize(
    ("kind", "reconstruction", "sampler"),
    [
        ("few", 1.0, Mixed(4)),
        ("few", 0.0, Mixed(4, unlabeled=False)),
        ("most", 1.0, Shuffled()),
        ("most", 0.0, Shuffled(unlabeled=False)),
        ("all", 1.0, Shuffled()),
    ],
)
def test_few_labels_are_cycled_and_many_are_met_as_they_come(kind, reconstruction, sampler):
    learner = SWWAE(DEEP, batch_size=8, reconstruction=reconstruction, middle=0.0)
    spec = SPEC._replace(n_labeled=int((labels(kind) != UNLABELED).sum()))
    assert learner.sampler(spec) == sampler


# What it gives.


@pytest.mark.parametrize(
    ("architecture", "shapes", "windows"),
    [
        (DEEP, [(4, 4, 4), (6, 2, 2)], [2, 2]),
        ("(4)3c-3p-(6)3c-2p-5fc", [(4, 3, 3), (6, 2, 2)], [3, 2]),
        ("(4)3c-5fc", [], []),
    ],
)
def test_what_and_where_are_listed_lowest_level_first(architecture: str, shapes, windows):
    model = SWWAE(architecture, **SMALL).fit(images(), labels("few"))
    what, where = model.what_where(images())
    assert [level.shape[1:] for level in what] == [level.shape[1:] for level in where] == shapes
    for maxima, places, size in zip(what, where, windows, strict=True):
        silent = inactive(torch.from_numpy(places)).numpy()
        assert len(maxima) == 24 and maxima.dtype == np.float32 and places.dtype == np.int8
        assert ((places >= 0) & (places < size**2))[~silent].all()
        assert (maxima[silent] == 0).all() and (maxima[~silent] > 0).all()


def test_the_top_what_is_what_transform_gives():
    model = SWWAE(DEEP, **SMALL).fit(images(), labels("few"))
    what, _ = model.what_where(images())
    np.testing.assert_array_equal(model.transform(images()), what[-1].reshape(24, -1))


def test_an_image_is_rebuilt_from_its_what_and_where_alone():
    model = SWWAE(DEEP, **SMALL).fit(images(), labels("few"))
    levels = model.what_where(images())
    what, where = ([torch.from_numpy(level) for level in part] for part in levels)
    with torch.no_grad():
        assert isinstance(model.module_, SWWAEModule)
        again = model.module_.decoder(Code(what[-1], what, where)).image.numpy()
    np.testing.assert_array_equal(model.reconstruct(images()), again)


def test_reconstruction_is_the_same_each_time_and_for_each_image_alone():
    model = SWWAE(DEEP, noise=0.3, **SMALL).fit(images(), labels("few"))
    whole = model.reconstruct(images())
    np.testing.assert_array_equal(model.reconstruct(images()), whole)
    alone = np.concatenate([model.reconstruct(images()[row : row + 1]) for row in range(24)])
    np.testing.assert_allclose(alone, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["none", "few"])
def test_it_learns_to_reconstruct(kind: str):
    # Bright crosses in random places: a mean image tells little of them.
    rng = np.random.default_rng(0)
    X = np.zeros((120, 8, 8), np.float32)
    for image, (row, column) in zip(X, rng.integers(0, 8, (120, 2)), strict=True):
        image[row], image[:, column] = 0.8, 0.8
    y = None if kind == "none" else np.where(np.arange(120) < 12, np.arange(120) % 2, UNLABELED)
    model = SWWAE("(8)3c-2p", epochs=10, batch_size=20, learning_rate=0.01, random_state=0)
    error = ((model.fit(X, y).reconstruct(X)[:, 0] - X) ** 2).mean()
    assert error < 0.25 * X.var(axis=0).mean()


def test_its_one_stage_says_what_it_is():
    learner = SWWAE(DEEP, epochs=3, batch_size=8, learning_rate=0.002, shift=2, patience=4)
    (stage,) = learner.stages(learner.build(SPEC), SPEC)
    (update,) = stage.updates
    assert isinstance(update, GradientUpdate) and not update.parts
    assert stage.describe() == {
        "name": "joint",
        "updates": [
            "loss: Adam (lr 0.002) on all; schedule constant, then linearly to 0 from 50% of the "
            "stage"
        ],
        "epochs": 3,
        "batch_size": 8,
        "sampler": "4 labeled rows a batch, cycled and class-balanced; the rest unlabeled",
        "view": "shift by up to 2 pixels",
    }
    assert stage.early_stopping is not None and stage.early_stopping.patience == 4
