"""`Classifier`: a trained network that takes raw pixels, as it is exported and used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import sha256_of
from dacnn_search.data.dataset import ImageData
from dacnn_search.export.best import refresh_best
from dacnn_search.export.folder import WEIGHTS, NetworkInput, read_config, read_input, stored_checksum
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import InputShape
from dacnn_search.network.model import BatchNorm, Network, build
from dacnn_search.training.trainer import check_suits
from dacnn_search.training.weights import load_weights, read_weights, trained_weights

BATCH = 256
SMALLEST_SIDE = 32


class Classifier(nn.Module):
    """Images (N, C, H, W) float32 with pixels in [0, 1] -> logits (N, classes). For use, not for training.

    Its parameters are exactly the tensors of a weight file (see `training.weights`), under the same names below
    `network.`: batch norm is the scale and shift that the file has. Raises InputError if the weights are not the
    architecture's.
    """

    def __init__(self, architecture: Architecture, weights: Mapping[str, Tensor], given: NetworkInput) -> None:
        super().__init__()
        self.architecture = architecture
        self.input = given
        self.network = load_weights(build(architecture, len(given.classes), given.shape[0]), weights)
        _share_statistics(self.network)
        self.mean = nn.Buffer(torch.tensor(given.mean).view(1, -1, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(given.std).view(1, -1, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that the outputs stand for."""
        return self.input.classes

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors of its weight file."""
        return dict(self.network.named_parameters())

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: batch norm has no statistics to train with."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network((pixels - self.mean) / self.std)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the float32 logits (N, classes) of uint8 images (N, H, W, C), computed in batches."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return torch.cat([self(batch.float() / 255) for batch in pixels.split(BATCH)]).numpy()


def load_model(folder: Path | str) -> Classifier:
    """Load the network of a folder such as `results/digits/best/01-3214`, ready for use.

    A folder in the `best/` of a run directory is written first if retraining has left only its weights so far.
    Raises InputError if the folder is not a network's, or if the weights are damaged or of another network.
    """
    folder = Path(folder)
    refresh_best(folder)
    given = read_input(folder)
    architecture = read_config(folder).architecture
    architecture.check_image_size(*given.shape[1:])
    weights = read_weights(folder / WEIGHTS)
    expected = stored_checksum(folder)
    if expected != sha256_of(folder / WEIGHTS):
        raise InputError(f"{folder / WEIGHTS}: the SHA-256 must be {expected}, as metrics.json says, but is not")
    return Classifier(architecture, weights, given)


def as_classifier(
    model: Network | Classifier, data: ImageData | None = None, input_shape: InputShape | None = None
) -> Classifier:
    """Return a network as it is exported, with arguments as of `export_network`.

    Raises DataError if the data do not suit the network, ArchitectureError if the images are too small for it.
    """
    if isinstance(model, Classifier):
        return model
    if data is not None:
        check_suits(model, data)
        given = NetworkInput.of(data)
    else:
        channels = model.in_channels
        side = max(SMALLEST_SIDE, 2 ** (len(model.architecture.sections) - 1))
        shape = input_shape or (channels, side, side)
        if shape[0] != channels:
            raise InputError(f"input_shape must have the network's {channels} channels, but is {shape}")
        model.architecture.check_image_size(*shape[1:])
        names = tuple(map(str, range(model.num_classes)))
        given = NetworkInput(shape=shape, mean=(0.0,) * channels, std=(1.0,) * channels, classes=names)
    return Classifier(model.architecture, trained_weights(model), given)


def _share_statistics(network: Network) -> None:
    """Let all batch norms of one width share mean 0 and variance 1, which files then hold once."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    widths = {norm.num_features for norm in norms}
    means = {width: nn.Buffer(torch.zeros(width), persistent=False) for width in widths}
    variances = {width: nn.Buffer(torch.ones(width), persistent=False) for width in widths}
    for norm in norms:
        norm.running_mean, norm.running_var = means[norm.num_features], variances[norm.num_features]
        norm.eps = 1e-30  # adds nothing to a variance of 1; torch 2.10 refuses 0
        norm.num_batches_tracked = None
