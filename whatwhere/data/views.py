"""Views: random transformations of a batch, run by the trainer without gradient.

They draw from torch's own generator of the batch's device, which the trainer seeds before each.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from whatwhere.core import Batch, InputError


@dataclass(frozen=True)
class RandomShift:
    """Shift each image by whole pixels, down and to the right, each uniform in [-pixels, pixels].

    Zeros come in from the border.

    Parameters
    ----------
    pixels : int
        0 leaves the images as they are.
    """

    pixels: int

    def __post_init__(self) -> None:
        """Refuse what is no number of pixels."""
        if not isinstance(self.pixels, int) or self.pixels < 0:
            raise InputError(
                f"a shift by up to {self.pixels} pixels is not possible: give 0, 1, 2, ..."
            )

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with each image shifted on its own; labels and rows stay."""
        if self.pixels == 0:
            return batch
        p, x = self.pixels, batch.x
        b, _, h, w = x.shape
        dy, dx = torch.randint(2 * p + 1, (2, b), device=x.device)
        # All windows of the padded image, as a view: (B, C, 2p + 1, 2p + 1, H, W).
        windows = pad(x, (p, p, p, p)).unfold(2, h, 1).unfold(3, w, 1)
        return batch._replace(x=windows[torch.arange(b, device=x.device), :, dy, dx])

    def __str__(self) -> str:
        """Say the rule."""
        return f"shift by up to {self.pixels} pixel{'' if self.pixels == 1 else 's'}"
