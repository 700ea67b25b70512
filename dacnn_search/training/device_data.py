"""A data set as tensors on the device that trains on it. Batches are gathered there in one operation."""

import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dacnn_search.data.dataset import ImageData, Split
from dacnn_search.training.memory import GPU_DATA_SHARE

# Scalars of images that are prepared together: a whole epoch of digits, a batch or two of CIFAR-10.
MOST_AT_ONCE = 2**19


def pick_device() -> torch.device:
    """Return the current CUDA device if there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


class ResidentData:
    """Move an `ImageData` once to a device (`pick_device` by default), for any number of trainings there.

    On the CPU the arrays are used in place, neither copied nor written to. A data set that would take more than a
    quarter of a GPU's memory stays in host memory, and batches are moved. `memory` are the bytes of a GPU that this
    process may use, by default what is free.
    """

    def __init__(self, data: ImageData, device: torch.device | str | None = None, memory: float = math.inf) -> None:
        device = pick_device() if device is None else torch.device(device)
        self.device = torch.empty(0, device=device).device  # with the GPU's number, as tensors have it
        self.input_shape = data.input_shape
        self.num_classes = data.num_classes
        self.flip = data.flip
        home = self.device
        if home.type == "cuda" and data.nbytes > GPU_DATA_SHARE * min(memory, torch.cuda.mem_get_info(home)[0]):
            home = torch.device("cpu")
        splits = (data.train, data.validation, data.test)
        self.train, self.validation, self.test = (_to_tensors(split, home) for split in splits)
        mean, std = (torch.tensor(values, device=self.device).view(1, -1, 1, 1) for values in (data.mean, data.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def batch(self, split: Split[Tensor], index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return images (n, C, H, W), normalised float32 in channels_last memory, and labels (n,), on `device`.

        `index` is a slice or (n,) int64, best on the split's device.
        """
        images, labels = split.images[index], split.labels[index]
        if images.device != self.device:
            images, labels = (t.pin_memory().to(self.device, non_blocking=True) for t in (images, labels))
        return images.permute(0, 3, 1, 2).to(torch.float32).mul_(self._scale).add_(self._shift), labels

    def batches(self, split: Split[Tensor], order: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images of a split in an order (n,) int64, in `count` batches whose sizes differ by at most one.

        Small images are prepared several batches at a time, which takes fewer operations.
        """
        indices = order.tensor_split(count)
        together = max(1, MOST_AT_ONCE // (len(indices[0]) * math.prod(self.input_shape)))
        for start in range(0, count, together):
            group = indices[start : start + together]
            sizes = [len(index) for index in group]
            images, labels = self.batch(split, torch.cat(group))
            yield from zip(images.split(sizes), labels.split(sizes), strict=True)


def _to_tensors(split: Split[np.ndarray], device: torch.device) -> Split[Tensor]:
    with warnings.catch_warnings():  # arrays in shared memory are read-only; nothing here writes to them
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    return Split(images.to(device), labels.to(device))
