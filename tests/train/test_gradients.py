import torch
from torch import Tensor, nn

from whatwhere.core import Batch, Terms
from whatwhere.train.gradients import GradientSizes


def square(net: nn.Module, batch: Batch) -> Terms:
    return {"one": net(batch.x).square().mean(), "two": net(batch.x).sum()}


def setting() -> tuple[nn.Sequential, Batch]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2))
    x = torch.randn(5, 3)
    return net, Batch(x, torch.zeros(5, dtype=torch.int64), torch.arange(5))


def sizes(net: nn.Sequential) -> GradientSizes:
    return GradientSizes(net, square, {"low": net[0], "high": nn.ModuleList([net[1], net[2]])})


def test_it_tells_the_root_mean_square_over_the_weights_of_each_part():
    net, batch = setting()
    update = sizes(net)
    assert update.step(batch, 0.0) == {}
    told = update.end_epoch()
    torch.stack(list(square(net, batch).values())).sum().backward()
    weights: list[Tensor] = [p.grad for p in net.parameters() if p.ndim > 1 and p.grad is not None]
    low, *high = (w.flatten() for w in weights)
    assert set(told) == {"gradient/low", "gradient/high"}
    torch.testing.assert_close(
        torch.tensor([told["gradient/low"], told["gradient/high"]]),
        torch.stack([low.square().mean().sqrt(), torch.cat(high).square().mean().sqrt()]),
    )


def test_nothing_moves_and_no_gradient_is_left():
    net, batch = setting()
    before = [p.detach().clone() for p in net.parameters()]
    sizes(net).step(batch, 0.0)
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    assert all(p.grad is None for p in net.parameters())


def test_only_the_first_batch_is_measured_and_told_once():
    net, batch = setting()
    update = sizes(net)
    update.step(batch, 0.0)
    first = dict(update.found)
    update.step(batch._replace(x=batch.x + 1), 0.3)
    assert update.found == first
    assert update.end_epoch() and not update.end_epoch()


def test_what_was_found_and_not_told_yet_survives_a_stop():
    net, batch = setting()
    stopped, resumed = sizes(net), sizes(net)
    stopped.step(batch, 0.0)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.end_epoch() == stopped.end_epoch()
