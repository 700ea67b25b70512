"""Each transform against one that treats image by image, given the same random numbers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dacnn_search.training import augmentation

N, C, H, W = 40, 3, 6, 9
TRANSFORMS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "flip": augmentation.flip,
    "crop": lambda images, random: augmentation.crop(images, 2, random),
    "cutout": lambda images, random: augmentation.cutout(images, 3, random),
}


def make_images() -> Tensor:
    """All values differ, none is 0; channels_last memory."""
    values = torch.arange(1.0, N * C * H * W + 1).view(N, C, H, W)
    return values.to(memory_format=torch.channels_last)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=TRANSFORMS)
def transform(request: pytest.FixtureRequest) -> Callable[[Tensor, torch.Generator], Tensor]:
    return TRANSFORMS[request.param]


def test_shape_type_and_memory_are_kept_and_the_input_is_not_changed(transform: Callable) -> None:
    images = make_images().to(torch.bfloat16)
    before = images.clone()
    changed = transform(images, seeded())
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert changed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)
    assert not torch.equal(changed, images)


def test_the_generator_decides(transform: Callable) -> None:
    images = make_images()
    assert torch.equal(transform(images, seeded(1)), transform(images, seeded(1)))
    assert not torch.equal(transform(images, seeded(1)), transform(images, seeded(2)))


def test_flip_mirrors_about_half_of_the_images_left_to_right() -> None:
    images = make_images()
    changed = augmentation.flip(images, seeded())
    mirrored = 0
    for before, after in zip(images.numpy(), changed.numpy(), strict=True):
        if not np.array_equal(before, after):
            np.testing.assert_array_equal(after, before[:, :, ::-1])
            mirrored += 1
    assert N / 4 < mirrored < 3 * N / 4


def test_crop_cuts_each_image_out_of_its_padded_self_at_every_place() -> None:
    padding, images = 1, make_images()
    places = set()
    for seed in range(5):
        changed = augmentation.crop(images, padding, seeded(seed)).numpy()
        for before, after in zip(images.numpy(), changed, strict=True):
            padded = np.pad(before, ((0, 0), (padding, padding), (padding, padding)))
            windows = {(top, left): padded[:, top : top + H, left : left + W] for top in range(3) for left in range(3)}
            (found,) = [place for place, window in windows.items() if np.array_equal(window, after)]
            places.add(found)
    assert len(places) == 9


@pytest.mark.parametrize("side", [1, 2, 3, 20])
def test_cutout_blanks_one_square_around_a_pixel_of_each_image(side: int) -> None:
    images = make_images()
    changed = augmentation.cutout(images, side, seeded()).numpy()
    for before, after in zip(images.numpy(), changed, strict=True):
        squares = [blank(before, row, column, side) for row in range(H) for column in range(W)]
        assert any(np.array_equal(square, after) for square in squares)


def blank(image: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    changed = image.copy()
    for y in range(max(0, row - side // 2), min(H, row - side // 2 + side)):
        for x in range(max(0, column - side // 2), min(W, column - side // 2 + side)):
            changed[:, y, x] = 0
    return changed
