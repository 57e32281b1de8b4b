from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from whatwhere import SparseAutoencoder
from whatwhere.core import UNLABELED, Batch, InputError
from whatwhere.learner import Spec
from whatwhere.models.sparse_autoencoder import (
    KLargest,
    SparseLoss,
    SparsifyingLogistic,
    kl_divergence,
)
from whatwhere.nn.mirror import Mirror

RHO, BETA, LAMBDA = 0.1, 3.0, 0.9


def batch(n: int = 7, seed: int = 0) -> Batch:
    x = torch.rand(n, 1, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Batch(x, torch.full((n,), UNLABELED), torch.arange(n))


def net(units: int = 5) -> Mirror:
    return SparseAutoencoder(f"{units}fc").build(Spec((1, 3, 3), 20)).double()


def loss(sparsity: str = "kl", average: float = LAMBDA) -> SparseLoss:
    return SparseLoss("cross_entropy", 5, sparsity, RHO, BETA, average).double()


def test_the_divergence_is_0_at_the_target_alone_and_grows_away_from_it():
    means = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    values = torch.stack([kl_divergence(0.3, m[None]) for m in means])
    assert float(values[29]) == pytest.approx(0, abs=1e-12)
    assert (values[:29].diff() < 0).all() and (values[30:].diff() > 0).all()


def test_the_divergence_is_that_of_two_coins():
    p, q = (torch.distributions.Bernoulli(torch.tensor(v).double()) for v in (0.3, 0.6))
    expected = torch.distributions.kl_divergence(p, q)
    torch.testing.assert_close(kl_divergence(0.3, torch.tensor([0.6]).double()), expected)


def test_units_that_never_or_always_fire_cost_a_finite_price():
    mean = torch.tensor([0.0, 1.0], requires_grad=True)
    cost = kl_divergence(RHO, mean)
    cost.backward()
    assert cost.isfinite() and mean.grad is not None
    assert mean.grad[0] < -100 and mean.grad[1] > 100  # and are pushed back


def test_the_gradient_is_the_textbooks():
    # δ_j = β (-ρ / ρ̂_j + (1 - ρ) / (1 - ρ̂_j)) f'(u_j), a mean over images, with the running ρ̂.
    module, objective = net(), loss()
    first, second = batch(seed=1), batch(seed=2)
    objective(module, first)
    module.zero_grad()
    objective(module, second)["sparsity"].backward()
    h_1, h_2 = (module.encode(b.x).detach() for b in (first, second))
    running = LAMBDA * h_1.mean(0) + (1 - LAMBDA) * h_2.mean(0)
    torch.testing.assert_close(objective.mean, running)
    slope = BETA * (-RHO / running + (1 - RHO) / (1 - running))
    delta = slope * h_2 * (1 - h_2) / len(h_2)
    weight = module.encoder[0].get_parameter("affine.weight")
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, delta.t() @ second.x.flatten(1))


def test_without_a_running_average_the_gradient_is_autograds():
    module, objective = net(), loss(average=0.0)
    objective(module, batch(seed=1))
    weight = module.encoder[0].get_parameter("affine.weight")
    terms = objective(module, batch(seed=2))
    (found,) = torch.autograd.grad(terms["sparsity"], weight)
    mean = module.encode(batch(seed=2).x).mean(0)
    (expected,) = torch.autograd.grad(BETA * kl_divergence(RHO, mean), weight)
    torch.testing.assert_close(found, expected)


def test_looking_moves_no_average():
    module, objective = net(), loss()
    with torch.no_grad():
        objective(module, batch())
    assert not objective.mean.any()


def test_l1_is_the_sum_of_sizes_a_mean_over_images():
    module, b = net(), batch()
    expected = BETA * module.encode(b.x).abs().sum(1).mean()
    torch.testing.assert_close(loss("l1")(module, b)["sparsity"], expected)


def test_no_more_than_k_units_of_an_image_are_kept_and_they_are_the_largest():
    code = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    kept = KLargest(4)(code)
    assert ((kept != 0).sum(1) == 4).all()
    assert torch.equal(kept[kept != 0], code[kept != 0])
    for row, all_of_it in zip(kept, code, strict=True):
        assert row[row != 0].min() >= all_of_it[row == 0].max()
    assert torch.equal(KLargest(20)(code), code)


def test_only_units_that_are_kept_get_a_gradient():
    code = torch.randn(6, 9, requires_grad=True)
    kept = KLargest(4)(code)
    (slope,) = torch.autograd.grad(kept.sum(), code)
    assert torch.equal(slope != 0, kept != 0)


def test_the_sparsifying_logistic_is_ranzatos_quotient():
    rule = SparsifyingLogistic(3, 0.2).double()
    rule.log_zeta.copy_(torch.tensor([0.5, -1.0, 2.0]))
    h = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rule.eval()
    on = 0.2 * h.exp()
    torch.testing.assert_close(rule(h), on / (on + 0.8 * rule.log_zeta.exp()))


def test_the_threshold_follows_the_mean_of_the_batches():
    rule = SparsifyingLogistic(3, 0.2).double().train()
    h = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = 0.2 * h.exp().mean(0) + 0.8
    rule(h)
    torch.testing.assert_close(rule.log_zeta.exp(), expected)
    rule(h + 500)
    assert rule.log_zeta.isfinite().all()


def test_a_unit_that_fires_always_comes_to_fire_about_as_often_as_eta():
    rule = SparsifyingLogistic(1, 0.1).train()
    h = torch.full((8, 1), 3.0)
    seen: list[Tensor] = [rule(h) for _ in range(200)]
    assert float(seen[0].mean()) > 0.5
    assert float(seen[-1].mean()) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("sparsity", ["kl", "l1", "k-sparse", "sparsifying-logistic"])
def test_each_form_makes_the_code_sparser(sparsity: str):
    x = np.random.default_rng(0).random((200, 6, 6), dtype=np.float32)
    free = SparseAutoencoder("20fc", weight=0.0, epochs=30, learning_rate=0.02, random_state=0)
    held = SparseAutoencoder(
        "20fc", sparsity=sparsity, target=0.1, weight=20.0, epochs=30, learning_rate=0.02,
        random_state=0,
    )  # fmt: skip
    active = [(abs(model.fit(x).transform(x)) > 0.3).mean() for model in (free, held)]
    assert active[1] < 0.5 * active[0]


def test_mean_activations_come_near_the_target():
    x = np.random.default_rng(0).random((300, 6, 6), dtype=np.float32)
    model = SparseAutoencoder("20fc", target=0.2, weight=50.0, learning_rate=0.005, random_state=0)
    np.testing.assert_allclose(model.fit(x).transform(x).mean(axis=0), 0.2, atol=0.05)


def test_mean_activations_need_logistic_units():
    with pytest.raises(InputError, match=r"code_activation='relu'.*logistic"):
        SparseAutoencoder(code_activation="relu").check()
    SparseAutoencoder(code_activation="relu", sparsity="l1").check()


def test_maps_are_as_sparse_as_their_places_together():
    x = torch.rand(2, 1, 3, 3).double()
    maps = SparseAutoencoder("(4)3c").build(Spec((1, 3, 3), 20)).double()
    objective = SparseLoss("cross_entropy", 4, "kl", RHO, 1.0, 0.0).double()
    terms = objective(maps, Batch(x, torch.full((2,), UNLABELED), torch.arange(2)))
    expected = kl_divergence(RHO, maps.code(x).mean((0, 2, 3)))
    torch.testing.assert_close(terms["sparsity"], expected)
    rho = torch.full((4,), RHO).double()
    assert float(kl_divergence(RHO, rho)) == pytest.approx(0, abs=1e-12)
    assert float(kl_divergence(RHO, rho / 2)) == pytest.approx(
        4 * (RHO * log(2) + (1 - RHO) * log((1 - RHO) / (1 - RHO / 2)))
    )
