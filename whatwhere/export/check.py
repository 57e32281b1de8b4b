"""Whether onnxruntime makes of a file what torch makes of the learner.

Where two pixels of a window are equal to rounding, the two may differ in *where*, both rightly, and
rebuild other images. So *where* has to be that of a maximum, to rounding, and the reconstruction
that of torch with the same where; all else has to be the same.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whatwhere.core import InputError
from whatwhere.data.images import Images
from whatwhere.data.rows import Rows
from whatwhere.export.outputs import INPUT, RECONSTRUCTION, Outputs
from whatwhere.export.where import replaying
from whatwhere.learner import Learner

BATCHES = (1, 2, 7, 100)
"""Numbers of images that are given to the file at once."""

CHECKED = 1000
"""How many images it is checked on at most, spread evenly over those given."""

TOLERANCE = 1e-4
"""How far a number may be off, in units of the largest of its output, or of 1 if that is larger.

Measured: after an epoch on 4,000 images of Fashion-MNIST or CIFAR-10, (16)5c-2p-(32)3c-2p differed
by up to 1.1e-6 on 1,000 test images; of these, 1 and 9 were rebuilt otherwise because of *where*,
by up to 0.35.
"""


def check(file: bytes, learner: Learner, names: tuple[str, ...], images: Images) -> dict[str, Any]:
    """Compare what onnxruntime makes of the file with what torch makes of the learner.

    Returns
    -------
    dict
        See `whatwhere.export.onnx.write`.

    Raises
    ------
    InputError
        If onnxruntime refuses the file, or an output differs by more than `TOLERANCE`.
    """
    import onnxruntime
    import onnxruntime.capi.onnxruntime_pybind11_state as states

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    compared = Comparison(learner, names)
    refusals = (
        states.Fail,
        states.InvalidArgument,
        states.InvalidGraph,
        states.InvalidProtobuf,
        states.NotImplemented,
        states.RuntimeException,
    )
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        there = [output.name for output in session.get_outputs()]
        for x in batches(images):
            said: Any = session.run(there, {INPUT: x.numpy()})
            compared.add(x, dict(zip(there, said, strict=True)))
    except refusals as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"onnxruntime cannot run the file ({reason}), so it was not written; "
            "use whatwhere.load in Python"
        ) from None
    return {
        "differences": compared.differences,
        "n_images": min(len(images), CHECKED),
        "batches": list(BATCHES),
    }


class Comparison:
    """How far the outputs of a file are from those of a learner.

    Parameters
    ----------
    learner : Learner
    names : tuple of str
        Of the outputs that are compared, those of *where* left out.

    Attributes
    ----------
    differences : dict
        The largest by output. Of *where* it is how much less than the maximum a window holds at
        that place; the reconstruction is compared with that of torch with the same where.
    """

    def __init__(self, learner: Learner, names: tuple[str, ...]) -> None:
        self.net = Outputs(learner, names)
        self.replay, self.given, self.shortfalls = replaying(learner.module_)
        self.differences: dict[str, float] = {}

    def add(self, x: Tensor, said: dict[str, np.ndarray]) -> None:
        """Compare the outputs for images x (N, C, H, W).

        Raises
        ------
        InputError
            Naming the output that differs by more than `TOLERANCE`, or in its shape.
        """
        with torch.no_grad():
            wanted = dict(zip(self.net.names, self.net(x), strict=True))
            wheres = [name for name in said if name not in wanted]
            if wheres:
                self.given[:] = [torch.from_numpy(said[name]) for name in wheres]
                self.shortfalls.clear()
                replay: Any = self.replay
                wanted[RECONSTRUCTION] = replay.reconstruct(x)
        for name, shortfall in zip(wheres, self.shortfalls, strict=True):
            self._note(name, shortfall)
        for name, tensor in wanted.items():
            want, got = tensor.numpy(), said[name]
            if got.shape != want.shape:
                raise InputError(
                    f"the output {name} has the shape {got.shape} in onnxruntime and {want.shape} "
                    "in torch, so nothing was written; use whatwhere.load in Python"
                )
            self._note(name, float(np.abs(got - want).max() / max(1.0, np.abs(want).max())))

    def _note(self, name: str, difference: float) -> None:
        if not difference <= TOLERANCE:  # NaN is not
            raise InputError(
                f"the output {name} differs by {difference:.1e} in onnxruntime from that of torch "
                f"({TOLERANCE:g} is allowed), so nothing was written; use whatwhere.load in Python"
            )
        self.differences[name] = max(self.differences.get(name, 0.0), difference)


def batches(images: Images) -> Iterator[Tensor]:
    """Yield images, spread evenly over all, in batches of every size; if few, then repeatedly."""
    n = min(len(images), CHECKED)
    spread = np.linspace(0, len(images) - 1, n).round().astype(np.int64)
    places = torch.from_numpy(np.resize(spread, max(n, sum(BATCHES))))
    rows = Rows(images.x)
    first, rest = places[: sum(BATCHES)], places[sum(BATCHES) :]
    for part in (*first.split(BATCHES), *rest.split(BATCHES[-1])):
        if len(part):
            yield rows.take(part).x
