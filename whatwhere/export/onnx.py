"""A run as one ONNX file, checked on real images before it is written.

The file takes ``images``, float32 (N, C, H, W) in [0, 1] for any N, and gives what the run has of

    probabilities   float32 (N, n_classes), calibrated as those of `predict_proba`
    embedding       float32 (N, K), as `transform` gives it
    reconstruction  float32 (N, C, H, W), pixels in [0, 1], which they may leave a little
    where_1, ...    int16 (N, C_m, h_m, w_m), beside a reconstruction: the place of each maximum in
                    its window, lowest level first; -1 where a window is inactive

Its metadata hold the model's name, the classes in their order, and what the input is.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from whatwhere import __version__, models
from whatwhere.core import InputError
from whatwhere.data.images import Images
from whatwhere.evaluate import tables
from whatwhere.export.check import check
from whatwhere.export.outputs import INPUT, Outputs, choose
from whatwhere.export.where import exportable
from whatwhere.learner import Learner
from whatwhere.runs import snake_case

ENDINGS = (".onnx",)
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

OPSET = 18
"""What torch's exporter writes without converting; onnxruntime reads it from 1.14 (2023) on."""


def write(
    run: Path, out: Path, images: Images, outputs: Sequence[str] | None = None
) -> dict[str, Any]:
    """Write a run as one ONNX file, whole or not at all.

    Before it is written, onnxruntime reads it and gives the outputs for real images, 1, 2, 7 and
    100 at once; they are compared with those of torch, as `whatwhere.export.check` says.

    Parameters
    ----------
    run : Path
        A run folder.
    out : Path
        New file, ending in .onnx.
    images : Images
        What the file is checked on: images as the run will meet them.
    outputs : sequence of str, optional
        Of ``probabilities``, ``embedding`` and ``reconstruction``. Default: all that the run has.
        A program that runs the file computes all of them, whichever it asks for.

    Returns
    -------
    dict
        ``differences``, the largest by output, in units of the largest number of that output or of
        1; ``n_images`` that were checked; ``batches``, ``opset`` and ``bytes``.

    Raises
    ------
    InputError
        If a package is missing, `out` cannot be written, the images are of another size than the
        run's, it has not those outputs, the net cannot be exported, or an output differs by more
        than `whatwhere.export.check.TOLERANCE`.
    """
    tables.check(out, ENDINGS)
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"--out {out}: ONNX needs {' and '.join(missing)}; pip install 'whatwhere[onnx]'"
        )
    learner = models.load(run)
    shape = learner.spec_.shape
    if images.shape != shape or not len(images):
        raise InputError(
            f"{run} takes images of shape {shape} (channels, height, width), and was to be checked "
            f"on {len(images)} of {images.shape}; name DATA that it can look at"
        )
    names = choose(learner, outputs)
    file = convert(learner, names)
    told = check(file, learner, names, images)
    fresh = out.with_name(f".{out.name}.tmp")
    try:
        fresh.write_bytes(file)
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)
    return told | {"opset": OPSET, "bytes": len(file)}


def convert(learner: Learner, names: tuple[str, ...]) -> bytes:
    """Return the learner as the content of an ONNX file.

    Raises
    ------
    InputError
        If torch cannot export the net, or only for a fixed number of images.
    """
    import onnx

    name, shape = snake_case(type(learner).__name__), learner.spec_.shape
    net = Outputs(learner, names, *exportable(learner.module_))
    example = torch.zeros(2, *shape)
    with torch.no_grad():
        n_wheres = len(net(example)) - len(net.names)
    try:
        with _quiet():
            # Strict: else len(x) anywhere in a net fixes the number of images.
            program = torch.export.export(
                net, (example,), dynamic_shapes=({0: torch.export.Dim("N")},), strict=True
            )
            converted: Any = torch.onnx.export(
                program,
                input_names=[INPUT],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                external_data=False,
            )
        proto = converted.model_proto
        _tidy(proto.graph, [*net.names, *(f"where_{level + 1}" for level in range(n_wheres))])
        onnx.checker.check_model(proto, full_check=True)
    except (RuntimeError, onnx.checker.ValidationError) as error:  # torch's are of the first kind
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(
            f"this {name} cannot be written as ONNX ({reason}); use whatwhere.load in Python"
        ) from None
    facts = {
        "model": name,
        "classes": json.dumps(learner.describe()["classes"], ensure_ascii=False),
        "input": json.dumps({"shape": ["N", *shape], "type": "float32", "range": [0, 1]}),
        "whatwhere": __version__,
    }
    onnx.helper.set_model_props(proto, facts)
    proto.producer_name, proto.producer_version = "whatwhere", __version__
    return proto.SerializeToString()


def _tidy(graph: Any, outputs: list[str]) -> None:
    """Name the outputs, and drop what tells of the machine that exported.

    The exporter's own names are given up: it calls values after operations, and so may have used
    the name of an output, such as where_1, already.
    """
    names = {value.name: name for value, name in zip(graph.output, outputs, strict=True)}
    for node in graph.node:
        for name in node.output:
            names.setdefault(name, f"value_{len(names)}")
    for node in graph.node:
        for places in (node.input, node.output):
            places[:] = [names.get(name, name) for name in places]
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    values = (*graph.input, *graph.output, *graph.value_info)
    for value in values:
        value.name = names.get(value.name, value.name)
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = "N"
    for part in (graph, *graph.node, *graph.initializer, *values):
        del part.metadata_props[:]  # paths and lines of code among them
    graph.name = "whatwhere"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says of packages that are not needed, and of its own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            # That pools hand their where over in a list is meant.
            warnings.filterwarnings("ignore", "While compiling, we found certain side effects")
            yield
    finally:
        logger.setLevel(level)
