"""Loss and accuracy of a network on images."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dacnn_search.common.errors import DataError
from dacnn_search.data.dataset import ImageData, Split
from dacnn_search.network.model import Network
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.speed import Precision

__all__ = ["Evaluation", "check_suits", "evaluate"]

BATCH = 512


@dataclass(frozen=True)
class Evaluation:
    loss: float  # mean cross-entropy in nats
    accuracy: float  # share of images classified correctly


def evaluate(
    model: Network,
    data: ResidentData,
    part: Literal["train", "validation", "test"] = "validation",
    *,
    precision: Precision = "float32",
) -> Evaluation:
    """Evaluate a model, in eval mode, on one part of the data, to whose device it is moved unless it is there.

    Raises DataError for a part without images and for data that do not suit the model.
    """
    check_suits(model, data)
    split: Split[Tensor] = getattr(data, part)
    if not len(split):
        raise DataError(f"an evaluation needs at least 1 image, but the {part} part has none")
    if model.classifier.weight.device != data.device:
        model.to(data.device).to(memory_format=torch.channels_last)
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=data.device)
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    with torch.inference_mode():
        for start in range(0, len(split), BATCH):
            images, labels = data.batch(split, slice(start, start + BATCH))
            with torch.autocast(data.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(images)
            loss += F.cross_entropy(logits.float(), labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
    model.train(was_training)
    return Evaluation(loss.item() / len(split), correct.item() / len(split))


def check_suits(model: Network, data: ImageData | ResidentData) -> None:
    """Raise DataError if channels or classes differ from the model's, ArchitectureError if images are too small."""
    channels, height, width = data.input_shape
    if (model.in_channels, model.num_classes) != (channels, data.num_classes):
        raise DataError(
            f"the network is for {model.in_channels} channels and {model.num_classes} classes, "
            f"but the data have {channels} and {data.num_classes}"
        )
    model.architecture.check_image_size(height, width)
