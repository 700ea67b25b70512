"""Loss and accuracy of a network on images, and the precision it computes in."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dacnn_search.common.errors import DataError
from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.model import Network
from dacnn_search.training.device_data import Part, ResidentData, ResidentSplit

__all__ = ["Evaluation", "autocast", "check_suits", "choose_precision", "evaluate", "evaluate_split"]

BATCH = 512
# Pixels times channels. Measured on one core with AVX512-BF16, 6 layers: bfloat16 trains 1.0 times as fast as
# float32 at 8x8 pixels and 8 channels, 0.9 to 1.2 at 8x8 and 16, 1.3 at 16x16 and 8, 1.4 at 32x32 and 8, and 1.7
# at 32 channels.
FEWEST_BFLOAT16 = 2048


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats, and the share of images classified correctly."""

    loss: float
    accuracy: float


def evaluate(
    model: Network,
    data: ImageData | ResidentData,
    part: Part = "validation",
    *,
    precision: str = "auto",
    device: torch.device | str | None = None,
) -> Evaluation:
    """Loss and accuracy on one part of the data, with the model in eval mode.

    The model is moved to the device of the data. precision: as in a `Recipe`.
    Raises DataError for a part without images and for data that do not suit the model.
    """
    check_suits(model, data)
    resident = data if isinstance(data, ResidentData) else ResidentData(data, device)
    split: ResidentSplit = getattr(resident, part)
    if not len(split):
        raise DataError(f"an evaluation needs at least 1 image, but the {part} part has none")
    model.to(resident.device).to(memory_format=torch.channels_last)
    computed_in = choose_precision(precision, model.architecture, data.input_shape[1:], resident.device)
    return evaluate_split(model, resident, split, computed_in)


def evaluate_split(model: Network, data: ResidentData, split: ResidentSplit, precision: torch.dtype) -> Evaluation:
    """The same for a model that is on the device of the data."""
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=data.device)
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    with torch.inference_mode():
        for start in range(0, len(split), BATCH):
            images, labels = data.batch(split, slice(start, start + BATCH))
            with autocast(data.device, precision):
                logits = model(images)
            loss += F.cross_entropy(logits.float(), labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
    model.train(was_training)
    return Evaluation(loss.item() / len(split), correct.item() / len(split))


def check_suits(model: Network, data: ImageData | ResidentData) -> None:
    """Raise DataError if the data have other channels or classes than the model, ArchitectureError if their
    images are too small for it."""
    channels, height, width = data.input_shape
    if (model.in_channels, model.num_classes) != (channels, data.num_classes):
        raise DataError(
            f"the network is for {model.in_channels} channels and {model.num_classes} classes, "
            f"but the data have {channels} and {data.num_classes}"
        )
    model.architecture.check_image_size(height, width)


def choose_precision(
    precision: str, architecture: Architecture, image_size: tuple[int, int], device: torch.device
) -> torch.dtype:
    """What a recipe's `precision` means for a network on images (H, W): torch.float32 or torch.bfloat16.

    `auto` is bfloat16 on a GPU that has it in hardware; on a CPU that has it in hardware, it is bfloat16 for
    networks and images large enough to be worth the conversions.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        scalars = max(section.width for section in architecture.sections) * image_size[0] * image_size[1]
        faster = scalars >= FEWEST_BFLOAT16 and _cpu_has_bfloat16()
    return torch.bfloat16 if faster else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is torch.bfloat16)


def _cpu_has_bfloat16() -> bool:
    """AVX512-BF16 or AMX. Torch's checks are private; a version without them counts as no."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
