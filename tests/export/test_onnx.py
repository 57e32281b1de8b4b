import json
import logging
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import whatwhere
from whatwhere import CNN, SWWAE
from whatwhere.core import InputError
from whatwhere.data.images import Images
from whatwhere.export import check
from whatwhere.export import onnx as room
from whatwhere.export.outputs import Outputs, choose
from whatwhere.export.where import Disjoint, Overlapping, exportable, flat_index
from whatwhere.models import CONTENTS, learner_class
from whatwhere.nn.where import WhatWhere

TEMPERATURE = 2.5


@pytest.fixture(scope="session")
def learner(images: Images) -> SWWAE:
    """A net with an even kernel, a clipped pool, a dense layer and calibrated probabilities."""
    model = SWWAE("(4)5c-2p-(6)4c-3p-5fc", epochs=1, random_state=0).fit(images.x, images.y)
    model.name_classes(images.classes)
    model.temperature_ = TEMPERATURE
    return model


@pytest.fixture(scope="session")
def run(learner: SWWAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learner.save(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="session")
def told(run: Path, images: Images) -> dict[str, Any]:
    """Write the file beside the run, and return what is said of it."""
    return room.write(run, run.with_name("model.onnx"), images)


@pytest.fixture
def session(run: Path, told: dict[str, Any]) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(run.with_name("model.onnx"))


def said(session: onnxruntime.InferenceSession, images: Images) -> dict[str, np.ndarray]:
    """Return all outputs by name."""
    names = [output.name for output in session.get_outputs()]
    given = {"images": images.x.astype(np.float32) / 255}
    return dict(zip(names, map(np.asarray, session.run(names, given)), strict=True))


# The file.


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_a_file_says_what_the_learner_says_whatever_the_number_of_images(
    learner, images, session, n
):
    few = images.take(np.arange(n))
    outputs = said(session, few)
    assert np.allclose(outputs["probabilities"], learner.predict_proba(few.x), atol=1e-6)
    assert np.allclose(outputs["embedding"], learner.transform(few.x), atol=1e-5)
    assert np.allclose(outputs["reconstruction"], learner.reconstruct(few.x), atol=1e-5)
    _, wheres = learner.what_where(few.x)
    for level, where in enumerate(wheres, 1):
        assert outputs[f"where_{level}"].dtype == np.int16
        assert np.array_equal(outputs[f"where_{level}"], where)


def test_probabilities_are_calibrated(learner, images, session):
    plain = torch.from_numpy(learner.logits(images.x)).softmax(1).numpy()
    probability = said(session, images)["probabilities"]
    assert not np.allclose(probability, plain, atol=1e-3)
    assert np.allclose(probability.sum(axis=1), 1)


def test_what_was_checked_is_told(run, images, told):
    file = run.with_name("model.onnx")
    names = ["where_1", "where_2", "probabilities", "embedding", "reconstruction"]
    assert list(told.pop("differences")) == names
    assert told == {
        "n_images": len(images),
        "batches": [1, 2, 7, 100],
        "opset": 18,
        "bytes": file.stat().st_size,
    }
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == ["model.onnx"]


def test_a_file_tells_what_its_input_and_its_classes_are(session):
    (given,) = session.get_inputs()
    assert (given.name, given.shape, given.type) == ("images", ["N", 1, 11, 9], "tensor(float)")
    assert {output.shape[0] for output in session.get_outputs()} == {"N"}
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts.pop("classes")) == ["ant", "büffel", "cat"]
    shape = {"shape": ["N", 1, 11, 9], "type": "float32", "range": [0, 1]}
    assert json.loads(facts.pop("input")) == shape
    assert facts == {"model": "swwae", "whatwhere": whatwhere.__version__}


def test_a_file_tells_nothing_of_the_machine_and_holds_each_layer_once(run, told):
    file = run.with_name("model.onnx")
    content = file.read_bytes()
    assert b".py" not in content
    assert str(Path(whatwhere.__path__[0]).parent).encode() not in content
    nodes = [node.op_type for node in onnx.load(file).graph.node]
    assert nodes.count("Conv") == nodes.count("ConvTranspose") == 2
    assert {opset.version for opset in onnx.load(file).opset_import if not opset.domain} == {18}


def test_exporting_prints_and_warns_nothing_and_leaves_the_learner(color, tmp_path, capfd, caplog):
    model = SWWAE("(4)3c-2p", epochs=1, batch_norm=False, random_state=0).fit(color.x)
    before = model.reconstruct(color.x)
    folder = model.save(tmp_path / "run")
    told = room.write(folder, tmp_path / "model.onnx", color)
    assert list(told["differences"]) == ["where_1", "embedding", "reconstruction"]
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert np.array_equal(whatwhere.load(folder).reconstruct(color.x), before)


def test_a_net_on_rows_that_rebuilds_nothing_gives_no_where(tmp_path, rng):
    rows = rng.random((30, 7), dtype=np.float32)
    model = CNN("(3)3c-2p-4fc", epochs=1, random_state=0).fit(rows, np.arange(30) % 2)
    images = Images(rows[:, None, None], np.full(30, -1), ())
    told = room.write(model.save(tmp_path / "run"), tmp_path / "model.onnx", images)
    assert list(told["differences"]) == ["probabilities", "embedding"]
    nodes = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    net = {"Conv", "BatchNormalization", "MaxPool", "Relu", "Reshape", "Gemm", "Softmax"}
    assert nodes <= net | {"Shape", "Concat"}  # older exporters count the images to reshape them


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_every_method_is_exported_with_all_that_it_says(name: str, odd: Images, tmp_path: Path):
    cls = learner_class(name)
    few: dict[str, Any] = {"n_hidden": 6, "n_seeds": 6, "patch": 6, "epochs": 1}
    if name in ("dbm", "dbn", "stacked_autoencoder", "deep_autoencoder"):
        few |= {"architecture": "6fc-4fc", "pretraining_epochs": 1, "joint_epochs": 1}
    elif name != "rbm":
        few |= {"architecture": "(4)3c-2p-(6)3c"}
    known = {f.name for f in fields(cls)}
    own = {key: value for key, value in few.items() if key in known}
    model = cls(**own, random_state=0).fit(odd.x, odd.y)
    # It is checked in onnxruntime before it is written.
    told = room.write(model.save(tmp_path / "run"), tmp_path / "model.onnx", odd)
    assert choose(model) and set(told["differences"]) >= set(choose(model))


def test_a_file_for_one_purpose_holds_nothing_else(run, images, learner, tmp_path):
    told = room.write(run, tmp_path / "classifier.onnx", images, ["probabilities"])
    assert list(told["differences"]) == ["probabilities"]
    nodes = [node.op_type for node in onnx.load(tmp_path / "classifier.onnx").graph.node]
    assert nodes.count("MaxPool") == nodes.count("Conv") == 2
    assert "ConvTranspose" not in nodes


# Every window, one by one.


class Pools(nn.Module):
    """Takes images apart by one window after the other, and lays what they rebuild side by side."""

    def __init__(self, *pools: WhatWhere) -> None:
        super().__init__()
        self.pools = nn.ModuleList(pools)

    def reconstruct(self, x: Tensor) -> Tensor:
        rebuilt = []
        for pool in self.pools:
            assert isinstance(pool, WhatWhere)
            what, where = pool.pool(x - 0.5, rectify=pool.size % 2 == 0)
            # A decoder writes values of its own, negative ones too.
            rebuilt.append(pool.unpool(0.25 - what.flip(0), where, (x.shape[2], x.shape[3])))
        return torch.cat(rebuilt, dim=1)


def with_pools(run: Path, *pools: WhatWhere) -> Any:
    """Return the learner of a run with these pools for its module."""
    other = whatwhere.load(run)
    other.module_ = Pools(*pools).eval()
    return other


# Windows that fit, are clipped at a border, and are larger than the image; of each type of where.
DISJOINT = [WhatWhere(size) for size in (1, 3, 12, 16)]
OVERLAPPING = [WhatWhere(size, stride) for size in (2, 3, 4) for stride in range(1, size)]


def test_windows_of_every_kind_are_exported_rightly(run, images):
    pools = [*DISJOINT, *OVERLAPPING[::2]]
    model = with_pools(run, *pools)
    names = choose(model)
    told = check.check(room.convert(model, names), model, names, images)
    assert set(told["differences"].values()) == {0.0}
    assert len(told["differences"]) == len(pools) + 1


# What is exported wrongly is refused.


def from_torch(model: Any, x: Tensor) -> dict[str, np.ndarray]:
    """Return what a file would say if other programs added as torch does."""
    net = Outputs(model, choose(model), *exportable(model.module_))
    with torch.no_grad():
        outputs = [output.numpy() for output in net(x)]
    wheres = range(1, len(outputs) - len(net.names) + 1)
    return dict(zip([*net.names, *(f"where_{level}" for level in wheres)], outputs, strict=True))


def compare(model: Any, images: Images, outputs: dict[str, np.ndarray] | None = None) -> None:
    x = torch.from_numpy(images.x).float() / 255
    said = from_torch(model, x) if outputs is None else outputs
    check.Comparison(model, choose(model)).add(x, said)


def scattered(reduce: str):
    """Return an unpooling by another rule of overlap."""

    def unpool(self: Overlapping, what: Tensor, where: Tensor, size: tuple[int, int]) -> Tensor:
        values = what.masked_fill(where == -1, 0.0).flatten(2)
        empty = values.new_zeros(*values.shape[:2], size[0] * size[1])
        index = flat_index(where, size[1], self.size, self.stride)
        if reduce == "last":
            return empty.scatter(2, index, values).unflatten(2, size)
        return empty.scatter_reduce(2, index, values, reduce).unflatten(2, size)

    return unpool


@pytest.mark.parametrize("pool", OVERLAPPING, ids=lambda pool: f"{pool.size}/{pool.stride}")
@pytest.mark.parametrize("rule", ["sum", "mean", "prod", "amin", "last"])
def test_another_rule_of_overlap_is_refused(run, images, monkeypatch, rule, pool):
    model = with_pools(run, pool)
    compare(model, images)
    monkeypatch.setattr(Overlapping, "unpool", scattered(rule))
    with pytest.raises(InputError, match=r"the output reconstruction differs by .*was written"):
        compare(model, images)


def test_a_place_that_holds_no_maximum_is_refused(run, images, monkeypatch):
    places = Disjoint._places
    monkeypatch.setattr(Disjoint, "_places", lambda self, h, w: 3 - places(self, h, w))
    with pytest.raises(InputError, match=r"the output where_1 differs by"):
        compare(with_pools(run, WhatWhere(2)), images)


def test_another_of_two_equal_maxima_is_no_error(run, images):
    model = with_pools(run, WhatWhere(2))
    flat = Images(np.full((5, 1, 11, 9), 255, np.uint8), np.full(5, -1), ())
    x = torch.from_numpy(flat.x).float() / 255
    outputs = from_torch(model, x)
    moved = torch.zeros(5, 1, 6, 5, dtype=torch.int16)
    moved[:, :, :5, :4] = 3  # the last of four, where windows are whole
    rebuilt = model.module_.pools[0].unpool(
        torch.full((5, 1, 6, 5), -0.25), moved.to(torch.int8), (11, 9)
    )
    assert not np.array_equal(rebuilt.numpy(), outputs["reconstruction"])
    outputs |= {"where_1": moved.numpy(), "reconstruction": rebuilt.numpy()}
    compare(model, flat, outputs)


@pytest.mark.parametrize("name", ["probabilities", "embedding", "reconstruction"])
@pytest.mark.parametrize("harm", [lambda values: values + 2e-2, lambda values: values * np.nan])
def test_an_output_that_differs_is_refused_by_its_name(learner, images, name, harm):
    outputs = from_torch(learner, torch.from_numpy(images.x).float() / 255)
    with pytest.raises(InputError, match=rf"^the output {name} differs by .*0\.0001 is allowed"):
        compare(learner, images, outputs | {name: harm(outputs[name])})


def test_an_output_of_another_shape_is_refused_by_its_name(learner, images):
    outputs = from_torch(learner, torch.from_numpy(images.x).float() / 255)
    with pytest.raises(InputError, match=r"the output embedding has the shape \(130, 4\)"):
        compare(learner, images, outputs | {"embedding": outputs["embedding"][:, 1:]})


def test_a_file_that_is_wrong_is_not_written(run, told, images, learner, monkeypatch, tmp_path):
    content = run.with_name("model.onnx").read_bytes()
    monkeypatch.setattr(room, "convert", lambda *_: content)
    other = SWWAE(learner.architecture, epochs=1, random_state=1).fit(images.x, images.y)
    folder = other.save(tmp_path / "run")
    with pytest.raises(InputError, match=r"differs by .* nothing was written"):
        room.write(folder, tmp_path / "model.onnx", images)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_that_onnxruntime_cannot_read_is_refused(run, images, learner):
    with pytest.raises(InputError, match=r"^onnxruntime cannot run the file \(.*whatwhere\.load"):
        check.check(b"no file", learner, choose(learner), images)


def test_a_net_that_torch_cannot_export_is_refused_in_one_line(run):
    class Odd(nn.Module):
        def encode(self, x: Tensor) -> Tensor:
            return x.flatten(1) if float(x.sum()) > 0 else x.flatten(1) + 1

    model = whatwhere.load(run)
    model.module_ = Odd()
    with pytest.raises(InputError, match=r"^this swwae cannot be written as ONNX") as refused:
        room.convert(model, choose(model))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("n", [1, 5, 110, 1500])
def test_images_are_checked_in_batches_of_every_size(n):
    x = (np.arange(n) / n).astype(np.float32)[:, None, None, None]
    parts = list(check.batches(Images(x, np.full(n, -1), ())))
    sizes = [len(part) for part in parts]
    assert sizes[:4] == [1, 2, 7, 100]
    assert sum(sizes) == {1: 110, 5: 110, 110: 110, 1500: 1000}[n]
    assert len(torch.cat(parts).unique()) == min(n, 1000)


# What the user can mend.


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (["embeding"], "no output is named 'embeding'; did you mean embedding"),
        (["embedding", "reconstruction"], "has no reconstruction; it has embedding$"),
        (["probabilities"], "has no probabilities; it has embedding$"),
        ([], "--outputs names none; this run has embedding$"),
    ],
)
def test_an_output_that_a_run_has_not_is_refused(images, tmp_path, wanted, says):
    model = CNN("(3)3c-2p", epochs=1, random_state=0).fit(images.x)
    with pytest.raises(InputError, match=says):
        room.write(model.save(tmp_path / "run"), tmp_path / "model.onnx", images, wanted)


def test_outputs_are_chosen_in_their_own_order(learner):
    assert choose(learner, ["reconstruction", "probabilities"]) == (
        "probabilities",
        "reconstruction",
    )
    assert choose(learner) == ("probabilities", "embedding", "reconstruction")


def test_what_is_missing_is_named_with_the_way_to_get_it(run, images, monkeypatch, tmp_path):
    monkeypatch.setattr(room, "find_spec", lambda name: find_spec(name) if name == "onnx" else None)
    with pytest.raises(
        InputError, match=r"needs onnxscript and onnxruntime; pip install 'whatwhere\[onnx\]'"
    ):
        room.write(run, tmp_path / "model.onnx", images)


def test_images_of_another_size_are_refused(run, color, tmp_path):
    with pytest.raises(InputError, match=r"shape \(1, 11, 9\).*\(3, 8, 8\); name DATA"):
        room.write(run, tmp_path / "model.onnx", color)


def test_no_images_check_nothing_and_are_refused(run, images, tmp_path):
    with pytest.raises(InputError, match="checked on 0 of"):
        room.write(run, tmp_path / "model.onnx", images.take(np.arange(0)))


@pytest.mark.parametrize(("name", "says"), [("there.onnx", "exists"), ("model.pt", r"\.onnx")])
def test_a_file_that_cannot_be_written_is_refused(run, images, tmp_path, name, says):
    (tmp_path / "there.onnx").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=says):
        room.write(run, tmp_path / name, images)
    assert (tmp_path / "there.onnx").read_text(encoding="utf-8") == "mine"
