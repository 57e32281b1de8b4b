"""Small procedures trained by one process and by two, for the tests of what they have in common.

Run as a script, it leaves what each procedure came to in FOLDER/one and FOLDER/two.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam

from whatwhere.core import Batch, Terms, joint_count
from whatwhere.experiments.job import Machine
from whatwhere.experiments.starting import start
from whatwhere.models.dbm import DBM
from whatwhere.models.dbn import DBN
from whatwhere.models.rbm import RBM
from whatwhere.models.sparse_autoencoder import SparseAutoencoder
from whatwhere.models.stacked_autoencoder import StackedAutoencoder
from whatwhere.models.swwae import SWWAE
from whatwhere.models.whitening import Whitening
from whatwhere.objectives.classification import cross_entropy
from whatwhere.train import checkpoint
from whatwhere.train.runtime import begin
from whatwhere.train.stage import EarlyStopping, Mixed, Stage
from whatwhere.train.trainer import Interrupted, Place, Trainer
from whatwhere.train.update import GradientUpdate, LinearDecay

STOPPED = ("one_player", "chains")
N, PROCESSES = 22, 2  # 5 a batch: 3 rows and 2, and a last batch of 2 that both take whole
Made = dict[str, Any]


class Net(nn.Module):
    """No batch norm, no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))[:, :1]

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Chains(nn.Module):
    """Persistent chains that follow the net, and a difference of means as its loss."""

    chains: Tensor
    sharded = ("chains",)

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(5)
        self.register_buffer("chains", torch.randn(7, 3, generator=draws).double())

    def forward(self, net: Net, batch: Batch) -> Terms:
        x = self.chains.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(x).sum(), x)
        self.chains = (0.9 * x - 0.1 * slope).detach()
        n = joint_count(torch.tensor(len(x)))
        return {"gap": net(batch.x).mean() - net(self.chains).sum() / n, "size": size(net)}


class Last:
    """A watcher that keeps what was recorded."""

    def begin(self, stages: Any, history: Any) -> None:
        self.steps = 0

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        self.steps += 1

    def epoch(self, record: Any) -> None:
        pass

    def end(self) -> None:
        pass


def size(net: nn.Module) -> Tensor:
    return 0.01 * torch.stack([p.square().sum() for p in net.parameters()]).sum()


def square(net: Net, batch: Batch) -> Terms:
    return {"square": (net(batch.x) - batch.x.sum(1, keepdim=True)).square().mean()}


def labeled(net: Net, batch: Batch) -> Terms:
    return {"nll": cross_entropy(net.logits(batch.x), batch.y, (0.5, 2.0)), "size": size(net)}


def data() -> Any:
    from procedure import Points  # beside this script, where nobody else looks

    draws = torch.Generator().manual_seed(11)
    return Points(torch.randn(N, 3, generator=draws).double(), torch.arange(N) % 3 - 1)


def net() -> Net:
    torch.manual_seed(3)
    return Net().double()


def one_player(net: Net) -> list[Stage]:
    update = GradientUpdate(net, square, partial(Adam, lr=0.1), schedule=LinearDecay(), average=0.8)
    return [Stage("one", [update], 4, 5, early_stopping=EarlyStopping(3))]


def several_players(net: Net) -> list[Stage]:
    body = GradientUpdate(net, square, partial(SGD, lr=0.1, momentum=0.9), [net.body], name="body")
    head = GradientUpdate(
        net, labeled, partial(Adam, lr=0.1), [net.head], name="head", every=2, clip=0.1
    )
    return [Stage("several", [body, head], 3, 6, sampler=Mixed(2))]


def labels(net: Net) -> list[Stage]:
    return [Stage("labels", [GradientUpdate(net, labeled, partial(SGD, lr=0.1))], 3, 5)]


def lbfgs(net: Net) -> list[Stage]:
    rule = partial(LBFGS, lr=0.1, max_iter=4, line_search_fn="strong_wolfe")
    return [Stage("lbfgs", [GradientUpdate(net, square, rule)], 2, 7)]


def chains(net: Net) -> list[Stage]:
    return [Stage("chains", [GradientUpdate(net, Chains(), partial(SGD, lr=0.1))], 3, 5)]


def drawing(net: Net) -> list[Stage]:
    """Tell the numbers that the first rows of a process are given."""

    def noise(net: Net, batch: Batch) -> Terms:
        return {"noise": net(batch.x).sum() * 0 + torch.rand(())}

    return [Stage("drawing", [GradientUpdate(net, noise, partial(SGD, lr=0.1))], 1, 11)]


PLAYS: dict[str, Callable[[Net], list[Stage]]] = {
    play.__name__: play for play in (one_player, several_players, labels, lbfgs, chains, drawing)
}


def play(name: str, trainer: Trainer) -> Made:
    module, told = net(), Last()
    stages = PLAYS[name](module)
    trainer.watch = [told]
    history = trainer.run(module, stages, data(), seed=0, monitor=judge)
    (update, *_) = stages[-1].updates
    return {
        "state": module.state_dict(),
        "objective": update.state_dict()["objective"],
        "history": history,
        "told": hasattr(told, "steps"),
    }


def judge(net: nn.Module) -> dict[str, float]:
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
    return {"validation/error": float((net(x) - x.sum(1, keepdim=True)).square().mean())}


def closed_form(trainer: Trainer) -> Made:
    from conftest import Moments, Whitening

    module = Whitening(3)
    points = data()
    history = trainer.run(module, [Stage("w", [Moments(module)], 1, 5)], points, seed=0)
    return {"state": module.state_dict(), "white": module(points.x), "history": history}


def swwae(trainer: Trainer, **settings: Any) -> Made:
    """Equation 7 on real images, 50 of them labeled."""
    x, y = load_digits(return_X_y=True)
    images = x[:400].reshape(-1, 8, 8).astype("float32") / 16
    y[50:] = -1
    settings = {"batch_norm": False, "dropout": 0.0, "learning_rate": 1e-3, **settings}
    learner = SWWAE(
        "(4)3c-2p", epochs=2, batch_size=50, random_state=0, trainer=trainer, **settings
    ).fit(images, y[:400])
    return {"state": learner.module_.state_dict(), "history": learner.history_}


def whitening(trainer: Trainer, **settings: Any) -> Made:
    """The matrix and the mean of whitened images; a last batch of 3 that both processes hold."""
    x, _ = load_digits(return_X_y=True)
    images = x[:103].reshape(-1, 8, 8).astype("float32") / 16
    learner = Whitening(batch_size=20, trainer=trainer, **settings).fit(images)
    module: Any = learner.module_
    state = {"matrix": module.matrix(), "mean": module.mean, "usual": module.usual}
    return {"state": state, "history": learner.history_}


def features(learner: Any, trainer: Trainer) -> Made:
    """Layers one upon another, and a running average: learned from the digits, some labeled."""
    x, y = load_digits(return_X_y=True)
    images = x[:103].reshape(-1, 8, 8).astype("float32") / 16
    learner.set_params(batch_size=20, random_state=0, trainer=trainer, epochs=2)
    learner.fit(images, [label if row % 3 else -1 for row, label in enumerate(y[:103])])
    return {"state": learner.module_.state_dict(), "history": learner.history_}


def stopped(name: str, fabric: Any, folder: Path) -> None:
    """Leave a checkpoint: of one process within an epoch, of several, which ask less often, after.

    Only the last process is told to stop.
    """
    seen, last = 0, fabric.global_rank == fabric.world_size - 1

    def stop() -> bool:
        nonlocal seen
        seen += 1
        return last and seen >= (8 if fabric.world_size == 1 else 2)

    try:
        play(name, Trainer(fabric, folder, stop=stop))
    except Interrupted:
        return
    raise AssertionError("it was not stopped")


def train_all(folder: Path, n: int, stop: Any = None) -> None:
    """Train all by n processes; go on with what others began, and begin what others go on with."""
    torch.set_num_threads(1)
    fabric = begin("cpu", devices=n)
    own, others = folder / str(n), folder / str(PROCESSES + 1 - n)
    made = {name: play(name, Trainer(fabric)) for name in PLAYS}
    made["closed_form"] = closed_form(Trainer(fabric))
    made["swwae"] = swwae(Trainer(fabric))
    made["swwae_unlabeled"] = swwae(Trainer(fabric), reconstruct_labeled=False)
    made["swwae_without_decoder"] = swwae(Trainer(fabric), reconstruction=0.0, middle=0.0)
    made["swwae_normalized"] = swwae(Trainer(fabric), batch_norm=True, dropout=0.5)
    made["sparse"] = features(SparseAutoencoder("9fc"), Trainer(fabric))
    rule = SparseAutoencoder("9fc", sparsity="sparsifying-logistic")
    made["sparse_rule"] = features(rule, Trainer(fabric))
    made["stacked"] = features(StackedAutoencoder("9fc-5fc", level=0.0), Trainer(fabric))
    made["rbm"] = features(RBM(9, n_chains=21), Trainer(fabric))
    made["dbm"] = features(DBM("9fc-5fc", joint_epochs=2, n_chains=21), Trainer(fabric))
    pairs = DBM("9fc-5fc", pretraining_epochs=2, joint_epochs=2, n_chains=21)
    made["dbm_pairs"] = features(pairs, Trainer(fabric))
    deep: Made = {"pretraining_epochs": 2, "n_chains": 21}
    made["dbn"] = features(DBN("9fc-5fc", **deep), Trainer(fabric))
    made["dbn_up_down"] = features(DBN("9fc-5fc", up_down_epochs=2, **deep), Trainer(fabric))
    made["whitening"] = whitening(Trainer(fabric))
    made["whitening_contrast"] = whitening(Trainer(fabric), contrast=5.0)
    for name in STOPPED:
        stopped(name, fabric, own / name)
    made |= gone_on(fabric, others)
    torch.save(made, own / f"{fabric.global_rank}.pt")


def gone_on(fabric: Any, folder: Path) -> Made:
    """Go on with what was stopped there."""
    made = {}
    for name in STOPPED:
        saved = checkpoint.read(folder / name)
        if saved is not None:
            resumed = play(name, Trainer(fabric, folder / name))
            made[f"{name}_resumed"] = resumed | {"resumed_at": saved[1]["epoch"]}
    return made


if __name__ == "__main__":
    out = Path(sys.argv[1])
    train_all(out, 1)
    start(Machine(device="cpu", devices=PROCESSES), train_all, out, PROCESSES)
    torch.save(gone_on(begin("cpu"), out / str(PROCESSES)), out / "resumed.pt")
