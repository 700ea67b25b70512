"""`Classifier`: a trained network that takes raw pixels, as it is exported and used."""

from collections.abc import Mapping
from pathlib import Path

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
from dacnn_search.training.evaluation import check_suits
from dacnn_search.training.weights import load_weights, read_weights, trained_weights

__all__ = ["Classifier", "as_classifier", "load_model"]

BATCH = 256
SMALLEST_SIDE = 32


class Classifier(nn.Module):
    """Images (N, C, H, W) float32 with pixels in [0, 1] -> logits (N, classes). For use, not for training.

    Its parameters are exactly the tensors of a weight file, under the same names below `network.`: batch norm is the
    scale and shift that the file has. Raises InputError if the weights are not the architecture's.

    Args:
        architecture: The network.
        weights: What `dacnn_search.training.weights.trained_weights` returns.
        given: The images that it takes, and the classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture, weights: Mapping[str, Tensor], given: NetworkInput) -> None:
        super().__init__()
        self.architecture = architecture
        self.input = given
        self.network = load_weights(build(architecture, len(given.classes), given.shape[0]), weights)
        _share_statistics(self.network)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(given, name), dtype=torch.float32)
            self.register_buffer(name, values.view(1, -1, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that the outputs stand for."""
        return self.input.classes

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors of its weight file."""
        return dict(self.network.named_parameters())

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network((pixels - self.mean) / self.std)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the float32 logits (N, classes) of uint8 images (N, H, W, C), computed in batches."""
        parts = [torch.zeros(0, len(self.classes))]
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH]))
                parts.append(self(batch.permute(0, 3, 1, 2).float() / 255))
        return torch.cat(parts).numpy()


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
    constants: dict[int, tuple[Tensor, Tensor]] = {}
    for norm in network.modules():
        if isinstance(norm, BatchNorm):
            width = norm.num_features
            mean, variance = constants.setdefault(width, (torch.zeros(width), torch.ones(width)))
            norm.register_buffer("running_mean", mean, persistent=False)
            norm.register_buffer("running_var", variance, persistent=False)
            norm.eps = 0.0
