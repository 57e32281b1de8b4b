"""How probable images are to a learner that knows: log p(x) = -F(x) - log Z, in nats an image.

Where log Z is estimated, so is this: annealed importance sampling finds log Z too small rather than
too large, and then log p(x) is told too large. Its interval and the estimate of the way back, which
errs to the other side, stand beside it.
"""

from math import isfinite
from typing import Any

import numpy as np
from torch import Tensor

from whatwhere.core import HasLikelihood, LogPartition, device_of, seeded
from whatwhere.data.rows import Rows
from whatwhere.learner import Learner, infer


def measure(learner: Learner, images: np.ndarray, *, careful: bool = False) -> dict[str, Any]:
    """Return how probable images are; nothing for a learner that does not know.

    Parameters
    ----------
    learner : Learner
    images : ndarray (n, C, H, W)
        Gray ones are drawn once as 0 or 1 where the module models binary images, the same at every
        call on a device.
    careful : bool
        Whether log Z may take the minutes that a number to be published takes.

    Returns
    -------
    dict
        ``log_likelihood``, in nats an image, a mean over images; ``log_likelihood_how``, a
        sentence; ``log_partition``, which is [log Z, its low end, its high end, the estimate of the
        way back], null where there is none.
    """
    module = learner.module_
    if not isinstance(module, HasLikelihood):
        return {}
    # The seed of `RBM.score_samples`: both tell of the same log Z.
    seed, device = learner.spec_.seed, device_of(module)
    with seeded(seed, "log Z", device=device):
        found = module.log_partition(careful=careful)
    with seeded(seed, "likelihood", device=device):
        parts = list(infer(learner.module_, Rows(images), _told))
    energy = sum(float(part) for part, _ in parts) / len(images)
    drawn = any(drawn for _, drawn in parts)
    ends = (found.value, found.low, found.high, found.reverse)
    return {
        "log_likelihood": -energy - found.value,
        "log_likelihood_how": how(found, is_bound=module.is_bound, drawn=drawn),
        "log_partition": [end if end is not None and isfinite(end) else None for end in ends],
    }


def _told(module: HasLikelihood, x: Tensor) -> tuple[Tensor, bool]:
    """Return the sum of the free energies of images, and whether what was looked at was drawn."""
    seen = module.likely(x)
    return module.free_energy(seen).double().sum(), not bool((seen == x).all())


def how(found: LogPartition, *, is_bound: bool, drawn: bool) -> str:
    """Say in one sentence how a likelihood was found.

    Parameters
    ----------
    found : LogPartition
    is_bound : bool
        Whether it is a lower bound.
    drawn : bool
        Whether gray pixels were drawn as 0 or 1.
    """
    told = [f"log Z = {found.value:.2f} ({found.how})"]
    if found.low != found.value or found.high != found.value:
        low = f"{found.low:.2f}" if isfinite(found.low) else "no lower end"
        told.append(f"±3 standard errors {low} to {found.high:.2f}")
    if found.reverse is not None:
        told.append(f"the way back, which errs to the other side, {found.reverse:.2f}")
    if is_bound:
        told.append("a lower bound")
    if drawn:
        told.append("gray pixels drawn once as 0 or 1")
    return "; ".join(told)
