"""Random changes to a batch of training images, on its device, drawn for each image separately.

Images are (N, C, H, W), normalised, so that 0 is the mean colour. Results keep shape, type, device and memory format,
channels_last being the fastest.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad each image with `padding` pixels of 0 on all sides, then crop it to its size at a random position."""
    n, _, height, width = images.shape
    top, left = torch.randint(2 * padding + 1, (2, n), generator=generator, device=images.device)
    padded = F.pad(images, (padding, padding, padding, padding)).permute(0, 2, 3, 1)
    windows = padded.unfold(1, height, 1).unfold(2, width, 1)  # (N, rows, columns, C, H, W)
    image = torch.arange(n, device=images.device)
    return windows.permute(0, 1, 2, 4, 5, 3)[image, top, left].permute(0, 3, 1, 2)


def cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set a square of `side` pixels around a random pixel of each image to 0, as far as it lies in the image.

    A square with an even side extends one pixel less down and right. DeVries and Taylor, https://arxiv.org/abs/1708.04552.
    """
    n, _, height, width = images.shape
    row = torch.randint(height, (n, 1), generator=generator, device=images.device)
    column = torch.randint(width, (n, 1), generator=generator, device=images.device)
    down = torch.arange(height, device=images.device) - row + side // 2  # (N, H), from the square's first row
    right = torch.arange(width, device=images.device) - column + side // 2  # (N, W)
    in_rows, in_columns = (down >= 0) & (down < side), (right >= 0) & (right < side)
    inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]  # (N, 1, H, W)
    return images * ~inside
