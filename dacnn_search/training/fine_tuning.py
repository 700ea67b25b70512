"""Start a training from stored weights, on the same or on other data."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dacnn_search.common.errors import InputError
from dacnn_search.network.model import Network
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.weights import load_weights, running_statistics

__all__ = ["estimate_statistics", "start_from"]

BATCH = 256


def start_from(model: Network, tensors: Mapping[str, Tensor], data: ResidentData) -> Network:
    """Load stored weights into a network that will be trained on `data`, and return it in training mode.

    If the stored network has another number of classes, the model keeps its own new classifier. Raises InputError for
    weights of another network.
    """
    stored = dict(tensors)
    own = {f"classifier.{name}": tensor for name, tensor in model.classifier.named_parameters()}
    if all(name in stored for name in own) and _classes(stored) != model.num_classes:
        if stored["classifier.weight"].shape[1:] != own["classifier.weight"].shape[1:]:
            raise InputError("weights: the stored classifier must fit the last section's width, but does not")
        stored |= {name: tensor.detach().clone() for name, tensor in own.items()}
    load_weights(model, stored)
    model.to(data.device)
    estimate_statistics(model, data)
    return model.train()


def estimate_statistics(model: Network, data: ResidentData) -> None:
    """Give batch norm the statistics of the training images, without changing what the network computes in eval mode.

    Stored weights have each batch norm's scale and shift, without the mean and variance that these were made of. Mean
    and variance of its inputs are measured over all training images, and weight and bias are set so that these
    stay: weight = scale * sqrt(variance + eps), bias = shift + scale * mean. In training mode, which uses statistics of
    the batch, the network then starts close to where it was.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad(), _input_sums(norms) as sums:
        for start in range(0, len(data.train), BATCH):
            images, _ = data.batch(data.train, slice(start, start + BATCH))
            model(images)
    with torch.no_grad():
        for norm, (count, total, squares) in sums.items():
            mean = total / count
            variance = (squares / count - mean**2).clamp(min=0)
            _set_statistics(norm, mean.float(), variance.float())


@contextmanager
def _input_sums(norms: list[nn.BatchNorm2d]) -> Iterator[dict[nn.BatchNorm2d, tuple[int, Tensor, Tensor]]]:
    """Sum the inputs of each batch norm: their number per channel, sum and sum of squares, (width,) float64."""
    sums: dict[nn.BatchNorm2d, tuple[int, Tensor, Tensor]] = {}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        x = inputs[0].double()
        count, total, squares = sums.get(norm, (0, torch.zeros(()), torch.zeros(())))
        added = x.numel() // x.shape[1]
        sums[norm] = (count + added, total + x.sum((0, 2, 3)), squares + (x**2).sum((0, 2, 3)))

    handles = [norm.register_forward_pre_hook(add) for norm in norms]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def _set_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    running_mean, running_variance = running_statistics(norm)
    scale = norm.weight / torch.sqrt(running_variance + norm.eps)
    shift = norm.bias - scale * running_mean
    norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
    norm.bias.copy_(shift + scale * mean)
    running_mean.copy_(mean)
    running_variance.copy_(variance)


def _classes(tensors: Mapping[str, Tensor]) -> int:
    return int(tensors["classifier.weight"].shape[0])
