"""Make the images of DACNN-Bench's source tables and of table C: small images of some classes, as .npz files.

    python benchmarks/bench_images.py DATA FOLDER

DATA holds `cifar10.npz`, `cifar100.npz` (train_images, train_labels, test_images, test_labels) and `FashionMNIST/`. The
YAML files of the tables expect FOLDER to be `data/bench`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from results_file import make_parser
from sklearn.datasets import load_digits

from dacnn_search.data.dataset import DataConfig, load

TEST, TEST_SHARE = 1500, 1 / 3  # images at most, and of all
MOST = 10_000  # images to train on, from which the table's YAML holds out those of validation
NOISE = 64  # standard deviation added to the digits, of 255


def cifar(name: str, classes: range) -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    """Return a function that reads classes of an archive, at 16x16 pixels."""

    def read(data: Path) -> tuple[np.ndarray, np.ndarray]:
        with np.load(data / f"{name}.npz") as file:
            images = np.concatenate([file["train_images"], file["test_images"]])
            labels = np.concatenate([file["train_labels"], file["test_labels"]]).ravel()
        return of_classes(images, labels, list(classes))

    return read


def fashion(*classes: int) -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    """Return a function that reads classes of Fashion-MNIST, at 14x14 pixels."""

    def read(data: Path) -> tuple[np.ndarray, np.ndarray]:
        split = load(DataConfig(name="fashion_mnist", root=str(data), validation=0.1)).with_validation_in_train().train
        return of_classes(split.images, split.labels, list(classes))

    return read


def of_classes(images: np.ndarray, labels: np.ndarray, classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, H / 2, W / 2, C) of some classes, averaged over 2x2 pixels, and labels from 0."""
    chosen = np.isin(labels, classes)
    images, labels = images[chosen], np.searchsorted(classes, labels[chosen])
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // 2, 2, width // 2, 2, channels)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8), labels


def noisy_digits(_: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits (1,797, 8, 8, 1) with noise."""
    digits = load_digits()
    images = digits.images[..., None] * 255 / 16
    images = images + np.random.default_rng(0).normal(0, NOISE, images.shape)
    return images.clip(0, 255).round().astype(np.uint8), digits.target


TABLES = {
    "cifar100-0": cifar("cifar100", range(10)),
    "cifar100-1": cifar("cifar100", range(10, 20)),
    "cifar10": cifar("cifar10", range(10)),
    "tops": fashion(0, 2, 3, 4, 6),
    "shoes": fashion(1, 5, 7, 8, 9),
    "noisy": noisy_digits,
    "held-out": cifar("cifar100", range(90, 100)),
}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, read in TABLES.items():
        images, labels = read(options.data)
        order = np.random.default_rng(0).permutation(len(labels))
        count = min(TEST, int(TEST_SHARE * len(labels)))
        test, train = order[:count], order[count : count + MOST]
        path = options.folder / f"{name}.npz"
        parts = {"train": train, "test": test}
        arrays = {f"{part}_images": images[index] for part, index in parts.items()}
        np.savez(path, **arrays, **{f"{part}_labels": labels[index] for part, index in parts.items()})
        print(f"{path}: {len(train)} + {len(test)} images of {images.shape[1:]}")


if __name__ == "__main__":
    main()
