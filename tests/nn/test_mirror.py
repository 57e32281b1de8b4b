import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from whatwhere.nn.architecture import parse
from whatwhere.nn.mirror import Mirror


def mirror(
    architecture: str, shape: tuple[int, ...] = (1, 6, 6), *, unit="tanh", output="identity", **more
) -> Mirror:
    torch.manual_seed(0)
    return Mirror(
        parse(architecture), shape, unit=unit, code_unit=unit, output=output, **more
    ).double()


def images(n: int = 5, shape: tuple[int, ...] = (1, 6, 6)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


ARCHITECTURES = ["4fc", "7fc-3fc", "(3)3c", "(3)2c-2p-(4)3c-4p", "2p-(2)3c", "(2)3c-2p-2p-5fc"]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 7)])
def test_what_goes_up_comes_down_in_its_own_shape(
    architecture: str, shape: tuple[int, ...], tied: bool
):
    net, x = mirror(architecture, shape, tied=tied), images(shape=shape)
    code = net.encode(x)
    assert code.ndim == 2
    torch.testing.assert_close(net.decode(code), net.reconstruct(x))
    assert net.reconstruct(x).shape == x.shape


@pytest.mark.parametrize("architecture", ["4fc", "7fc-3fc", "(3)3c", "(3)2c", "(3)4c-(2)3c"])
def test_with_tied_weights_the_decoder_is_the_adjoint_of_the_encoder(architecture: str):
    # <W x, h> = <x, W' h>, for linear units and biases of 0.
    net, x = mirror(architecture, unit="identity", tied=True), images()
    h = torch.randn(net.code(x).shape, dtype=torch.float64)
    torch.testing.assert_close((net.code(x) * h).sum(), (x * net.scores(h)).sum())


def test_tied_weights_are_half_as_many():
    untied, tied = mirror("4fc"), mirror("4fc", tied=True)
    weights = [sum(p.numel() for p in net.parameters() if p.ndim > 1) for net in (untied, tied)]
    assert weights == [2 * 4 * 36, 4 * 36]


def test_a_tied_weight_gets_the_gradients_of_both_its_uses():
    net, x = mirror("4fc", tied=True), images()
    net.reconstruct(x).square().sum().backward()
    weight = net.encoder[0].get_parameter("affine.weight")
    up, down = (weight.detach().clone().requires_grad_() for _ in range(2))
    bias = net.encoder[0].get_parameter("affine.bias").detach()
    F.linear(torch.tanh(F.linear(x.flatten(1), up, bias)), down.t()).square().sum().backward()
    assert weight.grad is not None and up.grad is not None and down.grad is not None
    torch.testing.assert_close(weight.grad, up.grad + down.grad)


def test_a_pooled_value_is_copied_to_its_whole_window():
    net = mirror("2p", (1, 3, 5))
    x = images(shape=(1, 3, 5))
    rebuilt = net.reconstruct(x)
    tops = F.max_pool2d(x, 2, ceil_mode=True)
    for i, j in [(0, 0), (0, 4), (2, 1), (2, 4)]:
        torch.testing.assert_close(rebuilt[:, :, i, j], tops[:, :, i // 2, j // 2])


def test_the_image_is_squashed_where_the_output_is_logistic():
    net = mirror("4fc", output="logistic")
    code = net.code(images())
    torch.testing.assert_close(net.decode(code), torch.sigmoid(net.scores(code)))


def test_what_becomes_of_the_code_at_last_is_seen_by_encoder_and_decoder():
    net = mirror("4fc", code_rule=lambda h: h * 0)
    x = images()
    assert not net.encode(x).any()
    assert torch.equal(net.reconstruct(x)[0], net.reconstruct(x)[1])


def test_filters_look_at_the_image():
    for architecture, size in (("4fc", 5), ("(4)3c-2p", 3)):
        filters = mirror(architecture, (3, 5, 5)).filters()
        assert filters is not None and filters.shape == (4, 3, size, size)
    assert mirror("2p").filters() is None
