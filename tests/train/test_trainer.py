import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn
from torch.optim import SGD, Adam

from whatwhere.core import Batch, InputError, Terms
from whatwhere.train import checkpoint
from whatwhere.train.stage import EarlyStopping, Stage
from whatwhere.train.trainer import Diverged, Interrupted, Place, Trainer
from whatwhere.train.update import GradientUpdate


@dataclass
class Diary:
    """A watcher that writes all down."""

    said: list[Any] = field(default_factory=list)

    def begin(self, stages: Sequence[Stage], history: Sequence[Mapping[str, Any]]) -> None:
        self.said.append(("begin", [stage.name for stage in stages], len(history)))

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        self.said.append(("step", place.stage, place.epoch, place.step, n_steps, n_images))

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.said.append(("epoch", record["stage"], record["epoch"]))

    def end(self) -> None:
        self.said.append(("end",))


@dataclass
class StopAfter:
    """Says stop after so many steps."""

    steps: int

    def __call__(self) -> bool:
        self.steps -= 1
        return self.steps <= 0


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def net(procedure) -> nn.Module:
    return procedure.make_net()


@pytest.fixture
def data(procedure):
    return procedure.make_data()


@pytest.fixture
def square(procedure) -> Callable[..., Terms]:
    return procedure.square


# What it does.


def test_every_update_sees_every_batch_in_its_turn(net, data):
    seen: list[tuple[str, list[int]]] = []

    def note(name: str, net: nn.Module, batch: Batch) -> Terms:
        seen.append((name, batch.rows.tolist()))
        return {"f": net(batch.x).sum()}

    updates = [
        GradientUpdate(net, partial(note, name), partial(SGD, lr=0.0), name=name)
        for name in ("a", "b")
    ]
    Trainer().run(net, [Stage("one", updates, 1, 5)], data, seed=0)
    assert [name for name, _ in seen] == ["a", "b"] * 5
    assert all(one[1] == other[1] for one, other in zip(seen[::2], seen[1::2], strict=True))
    assert sorted(row for _, rows in seen[::2] for row in rows) == list(range(22))


def test_an_update_moves_at_every_so_many_batches(net, data):
    calls = []

    def note(net: nn.Module, batch: Batch) -> Terms:
        calls.append(len(batch.x))
        return {"f": net(batch.x).sum()}

    update = GradientUpdate(net, note, partial(SGD, lr=0.0), every=2)
    history = Trainer().run(net, [Stage("one", [update], 1, 5)], data, seed=0)
    assert calls == [5, 5, 2]
    assert set(history[0]) >= {"loss/f", "learning_rate"}


def test_a_record_holds_the_mean_of_each_term_over_the_steps(net, data):
    def steps(net: nn.Module, batch: Batch) -> Terms:
        zero = 0 * net(batch.x).sum()
        return {"rows": zero + len(batch.x), "one": zero + 1}

    update = GradientUpdate(net, steps, partial(SGD, lr=0.25), name="both")
    (record,) = Trainer().run(net, [Stage("one", [update], 1, 5)], data, seed=0)
    assert record["both/rows"] == pytest.approx(22 / 5)
    assert record["both/one"] == 1
    assert record["learning_rate"] == 0.25
    assert (record["stage"], record["epoch"]) == ("one", 0)
    assert record["seconds"] > 0 and 0 <= record["waiting"] <= 1
    assert record["images_per_second"] == pytest.approx(22 / record["seconds"])


def test_stages_run_in_their_order_and_only_with_their_own_updates(net, procedure, data):
    order = []
    stages = procedure.make_stages(net)
    for stage in stages:
        stage.prepare = partial(order.append, stage.name)
        stage.before_epoch = partial(lambda name, epoch: order.append((name, epoch)), stage.name)
    history = Trainer().run(net, stages, data, seed=0, monitor=procedure.error)
    assert order == [
        "first", *(("first", epoch) for epoch in range(4)), "second", ("second", 0), ("second", 1),
    ]  # fmt: skip
    assert [record["stage"] for record in history] == ["first"] * 4 + ["second"] * 2
    assert "loss/square" in history[0] and "body/square" not in history[0]
    assert "body/square" in history[-1] and "loss/square" not in history[-1]


def test_what_a_stage_does_not_move_keeps_its_bits(net, square, data):
    update = GradientUpdate(net, square, partial(Adam, lr=0.1), parts=[net.head])
    before = bits(net)
    Trainer().run(net, [Stage("head", [update], 2, 5)], data, seed=0)
    after = bits(net)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.weight", "head.bias"}  # nor batch norm's statistics


def test_a_trained_module_is_left_in_evaluation_mode(net, procedure, data):
    Trainer().run(net, procedure.make_stages(net), data, seed=0, monitor=procedure.error)
    assert not any(part.training for part in net.modules())


def test_whitening_in_closed_form_makes_the_covariance_the_identity(procedure, whitening):
    module, update = whitening(3)
    x = torch.randn(50, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64) + 2
    (record,) = Trainer().run(module, [Stage("white", [update], 1, 7)], procedure.Points(x), seed=0)
    white = module(x)
    covariance = white.T @ white / 50
    torch.testing.assert_close(covariance, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(white.mean(0), torch.zeros(3, dtype=torch.float64))
    assert record["smallest_variance"] > 0
    assert record["moments/rows"] > 0


def test_a_closed_form_and_a_gradient_can_share_a_stage(procedure, whitening):
    module, update = whitening(2)
    both = nn.ModuleDict({"white": module, "line": nn.Linear(2, 1)})
    line = GradientUpdate(
        both, lambda m, b: {"f": m["line"](b.x.float()).square().mean()}, partial(SGD, lr=0.1)
    )
    x = torch.randn(20, 2, dtype=torch.float64)
    stage = Stage("both", [update, line], 1, 5)
    (record,) = Trainer().run(both, [stage], procedure.Points(x), seed=0)
    assert {"moments/rows", "loss/f", "smallest_variance", "learning_rate"} <= set(record)


def test_watchers_see_the_plan_each_step_each_epoch_and_the_end(net, square, data):
    diary = Diary()
    update = GradientUpdate(net, square, partial(SGD, lr=0.01))
    stage = Stage("one", [update], 2, 10)
    Trainer(watch=[diary]).run(net, [stage], data, seed=0)
    steps = [[("step", 0, epoch, step, 3, n) for step, n in ((1, 10), (2, 10), (3, 2))]
             for epoch in range(2)]  # fmt: skip
    assert diary.said == [
        ("begin", ["one"], 0),
        *steps[0], ("epoch", "one", 0),
        *steps[1], ("epoch", "one", 1),
        ("end",),
    ]  # fmt: skip


def test_watchers_see_the_end_of_a_run_that_fails(net, data):
    def broken(net: nn.Module, batch: Batch) -> Terms:
        raise ZeroDivisionError

    diary = Diary()
    update = GradientUpdate(net, broken, partial(SGD, lr=0.01))
    with pytest.raises(ZeroDivisionError):
        Trainer(watch=[diary]).run(net, [Stage("one", [update], 2, 10)], data, seed=0)
    assert diary.said[-1] == ("end",)


# Averages and early stopping.


def test_monitors_see_the_average_and_it_stays_in_the_module(net, square, data):
    seen = []

    def monitor(module: nn.Module) -> dict[str, float]:
        assert not module.training and not torch.is_grad_enabled()
        seen.append(bits(module))
        return {}

    slow: dict[str, Tensor] = {}

    class Follow(Diary):
        def step(self, place: Place, n_steps: int, n_images: int) -> None:
            for name, value in bits(net).items():
                slow[name] = 0.7 * slow[name] + 0.3 * value if name in slow else value

    update = GradientUpdate(net, square, partial(Adam, lr=0.05), average=0.7)
    stage = Stage("one", [update], 2, 5)
    Trainer(watch=[Follow()]).run(net, [stage], data, seed=0, monitor=monitor)
    assert len(seen) == 2
    assert same(seen[-1], bits(net))
    for name, value in net.named_parameters():
        torch.testing.assert_close(value.detach(), slow[name], rtol=1e-5, atol=1e-6)
    assert not same(seen[0], seen[1])


@pytest.mark.parametrize(("patience", "epochs_run", "best"), [(1, 3, 1), (2, 7, 4), (9, 8, 4)])
def test_it_stops_when_patience_is_at_its_end_and_goes_back_to_the_best(
    net, square, data, patience: int, epochs_run: int, best: int
):
    errors, seen = iter([5.0, 3.0, 4.0, 3.0, 2.0, 2.5, 2.0, 9.0]), []

    def monitor(module: nn.Module) -> dict[str, float]:
        seen.append(bits(module))
        return {"validation/error": next(errors)}

    update = GradientUpdate(net, square, partial(Adam, lr=0.05))
    stage = Stage("one", [update], 8, 10, early_stopping=EarlyStopping(patience))
    history = Trainer().run(net, [stage], data, seed=0, monitor=monitor)
    if patience == 2:  # 3.0 of the fourth epoch is no new best
        epochs_run, best = 4, 1
    assert len(history) == epochs_run
    assert same(bits(net), seen[best])


def test_each_stage_has_a_patience_of_its_own(net, square, data):
    errors = count(1.0)

    def worse(module: nn.Module) -> dict[str, float]:
        return {"validation/error": next(errors)}

    stages = [
        Stage(name, [GradientUpdate(net, square, partial(Adam, lr=0.05))], 5, 10,
              early_stopping=EarlyStopping(2))
        for name in ("one", "two")
    ]  # fmt: skip
    history = Trainer().run(net, stages, data, seed=0, monitor=worse)
    assert [record["stage"] for record in history] == ["one"] * 3 + ["two"] * 3


# Random numbers.


def test_the_callers_random_streams_are_left_as_they_were(procedure):
    def states() -> list[str]:
        numpy = check_random_state(None).get_state()  # the stream that all share
        return [str(torch.get_rng_state().tolist()), str(numpy), str(random.getstate())]

    before = states()
    procedure.train()
    assert states() == before


def test_a_run_that_fails_leaves_the_callers_random_stream_as_it_was(procedure):
    before = torch.get_rng_state()
    with pytest.raises(Interrupted):
        procedure.train(stop=StopAfter(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_bits_wherever_the_callers_stream_stands(procedure):
    torch.manual_seed(1)
    first, history = procedure.train()
    torch.manual_seed(2)
    second, other_history = procedure.train()
    assert same(first, second)
    assert history == other_history


def test_another_seed_gives_other_bits(procedure):
    assert not same(procedure.train(seed=0)[0], procedure.train(seed=1)[0])


def test_a_monitor_that_draws_random_numbers_changes_nothing(procedure):
    def restless(net: nn.Module) -> dict[str, float]:
        torch.rand(17)
        torch.manual_seed(5)
        return procedure.error(net)

    assert same(procedure.train()[0], procedure.train(monitor=restless)[0])


def test_a_monitor_draws_the_same_numbers_whatever_was_drawn_before_it(net, procedure, data):
    def draws(n: int) -> list[float]:
        seen = []

        def monitor(net: nn.Module) -> dict[str, float]:
            seen.append(float(torch.rand(())))
            return {}

        def objective(net: nn.Module, batch: Batch) -> Terms:
            torch.rand(n)
            return procedure.square(net, batch)

        update = GradientUpdate(net, objective, partial(SGD, lr=0.0))
        Trainer().run(net, [Stage("one", [update], 3, 5)], data, seed=0, monitor=monitor)
        return seen

    first = draws(1)
    assert draws(2) == first
    assert len(set(first)) == 3


def test_a_view_draws_the_same_numbers_whatever_the_updates_draw(net, procedure, data):
    def views(n: int, players: int) -> list[Tensor]:
        seen = []

        def view(batch: Batch) -> Batch:
            seen.append(torch.rand(2))
            return batch

        def objective(net: nn.Module, batch: Batch) -> Terms:
            torch.rand(n)
            return procedure.square(net, batch)

        updates = [
            GradientUpdate(net, objective, partial(SGD, lr=0.01), name=str(player))
            for player in range(players)
        ]
        Trainer().run(net, [Stage("one", updates, 2, 5, view=view)], data, seed=0)
        return seen

    first = views(1, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, views(3, 2), strict=True))
    assert len({tuple(numbers.tolist()) for numbers in first}) == 10


def test_an_update_draws_the_same_numbers_whatever_the_view_and_the_others_draw(
    net, procedure, data
):
    def draws(n: int) -> list[float]:
        seen = []

        def view(batch: Batch) -> Batch:
            torch.rand(n)
            return batch

        def first(net: nn.Module, batch: Batch) -> Terms:
            torch.rand(n)
            return procedure.square(net, batch)

        def second(net: nn.Module, batch: Batch) -> Terms:
            seen.append(float(torch.rand(())))
            return procedure.square(net, batch)

        updates = [
            GradientUpdate(net, objective, partial(SGD, lr=0.01), name=name)
            for name, objective in (("first", first), ("second", second))
        ]
        Trainer().run(net, [Stage("one", updates, 2, 5, view=view)], data, seed=0)
        return seen

    assert draws(1) == draws(4)


def test_no_two_updates_steps_or_stages_draw_the_same_numbers(net, procedure, data):
    seen = []

    def objective(net: nn.Module, batch: Batch) -> Terms:
        seen.append(float(torch.rand(())))
        return procedure.square(net, batch)

    def stage(name: str) -> Stage:
        sgd = partial(SGD, lr=0.01)
        updates = [GradientUpdate(net, objective, sgd, name=player) for player in ("a", "b")]
        return Stage(name, updates, 2, 5)

    Trainer().run(net, [stage("one"), stage("two")], data, seed=0)
    assert len(seen) == len(set(seen)) == 2 * 2 * 2 * 5


def test_a_view_gets_no_gradient(net, procedure, data):
    def view(batch: Batch) -> Batch:
        return batch._replace(x=batch.x * net.head.weight.sum())

    update = GradientUpdate(
        net, lambda n, b: {"f": n.body(b.x).mean()}, partial(SGD, lr=0.1), parts=[net.body]
    )
    stage = Stage("one", [update], 1, 5, view=view)
    Trainer().run(net, [stage], data, seed=0)
    assert net.head.weight.grad is None


# Going on.


def n_steps(procedure) -> int:
    counter = StopAfter(10**6)
    procedure.train(stop=counter)
    return 10**6 - counter.steps


def test_a_run_stopped_after_any_step_goes_on_to_the_same_bits(procedure, tmp_path: Path):
    whole, history = procedure.train()
    total = n_steps(procedure)
    assert total > 20
    for steps in range(1, total + 1):
        folder = tmp_path / str(steps)
        with pytest.raises(Interrupted):
            procedure.train(folder, stop=StopAfter(steps))
        rest, whole_history = procedure.train(folder)
        assert same(whole, rest), steps
        assert whole_history == history


@pytest.mark.parametrize("leap", [1, 3])
def test_a_run_stopped_again_and_again_goes_on_to_the_same_bits(procedure, tmp_path: Path, leap):
    whole, history = procedure.train()
    stops = 0
    while True:
        try:
            rest, rest_history = procedure.train(tmp_path / "checkpoint", stop=StopAfter(leap))
        except Interrupted:
            stops += 1
        else:
            break
    assert stops >= n_steps(procedure) // leap - 1
    assert same(whole, rest)
    assert rest_history == history


def test_checkpoints_on_the_way_change_nothing(procedure, tmp_path: Path):
    often = procedure.train(tmp_path / "checkpoint", save_seconds=0.0)
    never = procedure.train()
    assert same(often[0], never[0])
    assert often[1] == never[1]


def test_a_run_that_ended_ends_again_at_once(procedure, tmp_path: Path):
    whole, history = procedure.train(tmp_path / "checkpoint")

    def never() -> bool:
        raise AssertionError("a step was taken")

    again, same_history = procedure.train(tmp_path / "checkpoint", stop=never)
    assert same(whole, again)
    assert same_history == history


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_goes_on_to_the_same_bits(
    procedure, procedure_file: Path, tmp_path: Path, seed: int
):
    out = tmp_path / "out.json"
    command = [sys.executable, procedure_file, tmp_path / "checkpoint", out, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5
    told = json.loads(out.read_text())
    whole, history = procedure.train()
    assert told["state"] == {name: value.tolist() for name, value in whole.items()}
    assert told["history"] == history


def test_a_run_that_dies_while_it_writes_a_checkpoint_goes_on_to_the_same_bits(
    procedure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, _ = procedure.train()
    write = Path.write_bytes
    for dies_at in range(1, 7):
        folder, writes = tmp_path / str(dies_at), 0

        def write_half(path: Path, content: bytes, dies_at: int = dies_at) -> int:
            nonlocal writes
            writes += 1
            if writes == dies_at:
                write(path, content[:100])
                raise KeyboardInterrupt
            return write(path, content)

        with monkeypatch.context() as context:
            context.setattr(Path, "write_bytes", write_half)
            with pytest.raises(KeyboardInterrupt):
                procedure.train(folder)
        assert same(procedure.train(folder)[0], whole)


def test_a_closed_form_goes_on_to_the_same_bits(procedure, whitening, tmp_path: Path):
    draws = torch.Generator().manual_seed(0)
    data = procedure.Points(torch.randn(20, 2, dtype=torch.float64, generator=draws))

    def train(folder: Path | None, stop: Callable[[], bool] = lambda: False) -> nn.Module:
        module, update = whitening(2)
        trainer = Trainer(checkpoint=folder, stop=stop)
        trainer.run(module, [Stage("white", [update], 2, 6)], data, seed=0)
        return module

    whole = train(None)
    for steps in range(1, 9):
        with pytest.raises(Interrupted):
            train(tmp_path / str(steps), StopAfter(steps))
        assert same(bits(train(tmp_path / str(steps))), bits(whole))


def test_an_update_that_draws_at_the_end_of_an_epoch_goes_on_to_the_same_bits(
    procedure, tmp_path: Path
):
    class Draws(GradientUpdate):
        def end_epoch(self) -> Mapping[str, float]:
            with torch.no_grad():
                self.module.get_parameter("head.bias").add_(torch.randn(1))
            return {}

    def train(folder: Path | None, stop: Callable[[], bool] = lambda: False) -> nn.Module:
        net = procedure.make_net()
        update = Draws(net, procedure.square, partial(SGD, lr=0.1))
        trainer = Trainer(checkpoint=folder, stop=stop)
        trainer.run(net, [Stage("one", [update], 2, 10)], procedure.make_data(), seed=0)
        return net

    whole = train(None)
    for steps in range(1, 7):
        with pytest.raises(Interrupted):
            train(tmp_path / str(steps), StopAfter(steps))
        assert same(bits(train(tmp_path / str(steps))), bits(whole))


def test_watchers_of_a_resumed_run_see_what_was_recorded_before(procedure, tmp_path: Path):
    with pytest.raises(Interrupted):
        procedure.train(tmp_path / "checkpoint", stop=StopAfter(12))
    net, diary = procedure.make_net(), Diary()
    trainer = Trainer(checkpoint=tmp_path / "checkpoint", watch=[diary])
    stages, data = procedure.make_stages(net), procedure.make_data()
    trainer.run(net, stages, data, seed=0, monitor=procedure.error)
    assert diary.said[0] == ("begin", ["first", "second"], 2)
    assert diary.said[1] == ("step", 0, 2, 3, 5, 5)


# Going wrong.


def exploding(after: int, value: float) -> Callable[[nn.Module, Batch], Terms]:
    calls = 0

    def objective(net: nn.Module, batch: Batch) -> Terms:
        nonlocal calls
        calls += 1
        good = net(batch.x).square().mean()
        return {"good": good, "bad": good * (value if calls > after else 1.0)}

    return objective


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_run_that_diverges_names_the_stage_and_the_term(net, data, value: float):
    update = GradientUpdate(net, exploding(7, value), partial(SGD, lr=0.01), name="f")
    with pytest.raises(Diverged) as error:
        Trainer().run(net, [Stage("one", [update], 5, 5)], data, seed=0)
    assert "stage 'one', epoch 2" in str(error.value)
    assert "f/good is nan" in str(error.value) or "f/bad is" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_weight_that_is_not_finite_is_named_where_the_terms_are(net, data):
    def leap() -> None:
        net.head.weight.fill_(inf)

    update = GradientUpdate(
        net, lambda n, b: {"f": n.body(b.x).mean()}, partial(SGD, lr=0.1), constraint=leap
    )
    with pytest.raises(Diverged, match=r"stage 'one', epoch 1: head\.weight is not finite"):
        Trainer().run(net, [Stage("one", [update], 1, 5)], data, seed=0)


def test_the_last_good_checkpoint_is_kept_where_a_run_diverges(net, data, tmp_path: Path):
    folder = tmp_path / "checkpoint"
    update = GradientUpdate(net, exploding(12, nan), partial(SGD, lr=0.01))
    trainer = Trainer(checkpoint=folder, save_seconds=0.0)
    with pytest.raises(Diverged):
        trainer.run(net, [Stage("one", [update], 5, 5)], data, seed=0)
    found = checkpoint.read(folder)
    assert found is not None
    state, place = found
    assert place["epoch"] == 2
    assert len(place["history"]) == 2
    assert all(value.isfinite().all() for value in state["module"].values())


def test_a_run_that_diverged_tells_its_watchers_the_record_first(net, data):
    diary = Diary()
    update = GradientUpdate(net, exploding(0, nan), partial(SGD, lr=0.01))
    with pytest.raises(Diverged):
        Trainer(watch=[diary]).run(net, [Stage("one", [update], 5, 5)], data, seed=0)
    assert diary.said[-2:] == [("epoch", "one", 0), ("end",)]


def test_early_stopping_without_a_monitor_is_refused(net, square, data):
    update = GradientUpdate(net, square, partial(SGD, lr=0.01))
    stage = Stage("one", [update], 2, 5, early_stopping=EarlyStopping(2))
    with pytest.raises(InputError, match="validation"):
        Trainer().run(net, [stage], data, seed=0)


def test_early_stopping_on_what_the_monitor_does_not_say_is_refused(net, square, data):
    update = GradientUpdate(net, square, partial(SGD, lr=0.01))
    stage = Stage("one", [update], 2, 5, early_stopping=EarlyStopping(2, "validation/nll"))
    with pytest.raises(InputError, match="validation/nll"):
        Trainer().run(net, [stage], data, seed=0, monitor=lambda net: {"validation/error": 1.0})
