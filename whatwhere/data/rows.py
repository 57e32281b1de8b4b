"""Images as the trainer wants them: in the memory of the device, batches drawn there."""

import numpy as np
import torch
from torch import Tensor

from whatwhere.core import UNLABELED, Batch


class Rows:
    """Images in the memory of a device.

    uint8 stays uint8, a quarter of the memory; a batch becomes float32 when it is taken.

    Parameters
    ----------
    x : ndarray or Tensor (n, C, H, W)
        uint8, or floats within `value_range`. Shared, not copied, where type and device allow.
    y : ndarray or Tensor (n,), optional
        Whole numbers: the class, or `UNLABELED`. Without, all rows are unlabeled.
    device : str or torch.device
    value_range : (float, float), optional
        What becomes 0 and what becomes 1. By default (0, 255) for uint8 and (0, 1) for floats.
    """

    def __init__(
        self,
        x: np.ndarray | Tensor,
        y: np.ndarray | Tensor | None = None,
        device: str | torch.device = "cpu",
        value_range: tuple[float, float] | None = None,
    ) -> None:
        x = _tensor(x)
        self.x = x.to(device, x.dtype if x.dtype == torch.uint8 else torch.float32)
        if y is None:
            self.y = torch.full((len(x),), UNLABELED, dtype=torch.int64, device=device)
        else:
            self.y = _tensor(y).to(device, torch.int64)
        assert len(self.x) == len(self.y), (len(self.x), len(self.y))
        if value_range is None:
            value_range = (0.0, 255.0) if x.dtype == torch.uint8 else (0.0, 1.0)
        self.value_range = value_range

    def __len__(self) -> int:
        """Return n."""
        return len(self.x)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        _, c, h, w = self.x.shape
        return c, h, w

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value of a pixel, as batches have them."""
        low, high = self.value_range
        least, largest = (float(bound) for bound in self.x.aminmax())
        return (least - low) / (high - low), (largest - low) / (high - low)

    def take(self, rows: Tensor) -> Batch:
        """Return the batch of these rows, its images float32 in [0, 1].

        Parameters
        ----------
        rows : Tensor (B,)
            int64, on the device of the images.
        """
        x = self.x.index_select(0, rows)
        low, high = self.value_range
        if x.dtype == torch.uint8:
            x = x.to(torch.float32)
        if low != 0:
            x = x.sub_(low)
        if high - low != 1:
            # A quotient, not a product with 1 / 255, is rounded once: the same bits as from floats.
            x = x.div_(high - low)
        return Batch(x, self.y.index_select(0, rows), rows)


def _tensor(array: np.ndarray | Tensor) -> Tensor:
    # What was read from bytes may be read-only, which torch cannot share.
    return (
        array
        if isinstance(array, Tensor)
        else torch.from_numpy(np.require(array, requirements=["C", "W"]))
    )
