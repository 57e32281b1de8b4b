import pytest
import torch
from torch import nn

from whatwhere.core import InputError
from whatwhere.nn.units import ACTIVATIONS, activation, initialize


def test_the_logistic_function_is_odd_about_one_half():
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)
    torch.testing.assert_close(activation("logistic")(x) + activation("logistic")(-x), x * 0 + 1)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_grows_but_for_a_dip_that_gelu_has(name: str):
    x = torch.linspace(0, 5, 50)
    assert (activation(name)(x).diff() >= 0).all()


def test_an_unknown_activation_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean logistic"):
        activation("logistics")


@pytest.mark.parametrize("name", ["relu", "tanh", "logistic"])
def test_modern_weights_keep_gradients_alive_where_historic_ones_let_them_fade(name: str):
    torch.manual_seed(0)
    sizes = {}
    for how in ("modern", "historic"):
        x = torch.randn(200, 100, requires_grad=True)
        h = x
        for _ in range(6):
            layer = nn.Linear(100, 100)
            initialize(layer, name, how)
            h = activation(name)(layer(h))
        h.backward(torch.randn_like(h))
        assert x.grad is not None
        sizes[how] = float(x.grad.norm() / x.norm().detach())
    assert sizes["historic"] < 1e-3 * sizes["modern"]


def test_biases_begin_at_0_and_weights_have_the_deviation_that_is_said():
    torch.manual_seed(0)
    layer = nn.Linear(300, 500)
    initialize(layer, "tanh", "modern")
    assert float(layer.weight.detach().std()) == pytest.approx((2 / 800) ** 0.5, rel=0.02)
    assert not layer.bias.any()
    initialize(layer, "tanh", "historic")
    assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.02)


def test_another_initialization_is_refused():
    with pytest.raises(InputError, match="modern or historic"):
        initialize(nn.Linear(2, 2), "tanh", "lucky")
