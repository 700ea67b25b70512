"""The weights of a trained network as named tensors, exactly its parameters, and trainings that start from them.

In eval mode batch norm is a scale and a shift per channel: scale = weight / sqrt(variance + eps),
shift = bias - scale * mean. They are stored as its weight and bias, so that a file holds as many scalars as the network
has parameters. They are not multiplied into the convolutions, since layers that share a kernel differ in them.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dacnn_search.common.errors import InputError
from dacnn_search.network.model import BatchNorm, Network
from dacnn_search.training.device_data import ResidentData

BATCH = 256


def trained_weights(model: Network) -> dict[str, Tensor]:
    """Return a network's weights by the names of `Network.named_parameters`, as contiguous float32 copies on the CPU.

    Their number of scalars is the network's parameter count.
    """
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for name, norm in _norms(model):
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        tensors[f"{name}.weight"] = scale
        tensors[f"{name}.bias"] = norm.bias.detach() - norm.running_mean * scale
    return {
        name: tensor.to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def load_weights(model: Network, tensors: Mapping[str, Tensor]) -> Network:
    """Load stored weights into a network of the same architecture and return it in eval mode.

    Batch norm gets mean 0 and variance 1, which leave the stored scale and shift as they are.
    Raises InputError naming the first tensor that is missing, unknown or of another shape.
    """
    own = dict(model.named_parameters())
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            raise InputError(f"weights: {name} is {'missing' if name in own else 'not a part of this network'}")
        if own[name].shape != tensors[name].shape:
            raise InputError(
                f"weights: {name} must have shape {list(own[name].shape)}, but has {list(tensors[name].shape)}"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
        for _, norm in _norms(model):
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
    return model.eval()


def start_from(model: Network, tensors: Mapping[str, Tensor], data: ResidentData) -> Network:
    """Load stored weights into a network that will be trained on `data`, and return it in training mode.

    If the stored network has another number of classes, the model keeps its own new classifier. Raises InputError for
    weights of another network.
    """
    own = {f"classifier.{name}": tensor for name, tensor in model.classifier.named_parameters()}
    if own.keys() <= tensors.keys() and len(tensors["classifier.weight"]) != model.num_classes:
        tensors = {**tensors, **own}
    load_weights(model, tensors)
    model.to(data.device)
    _estimate_statistics(model, data)
    return model.train()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file. Pickles, which could run code, are not read.

    Raises InputError if it is missing, damaged or of another format.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: must be a safetensors file, but: {error}") from error


@torch.no_grad()
def _estimate_statistics(model: Network, data: ResidentData) -> None:
    """Give batch norm the statistics of the training images, without changing what the network computes in eval mode.

    `load_weights` set mean 0 and variance 1. Mean and variance of each batch norm's inputs are measured over all
    training images, and weight (scale) and bias (shift) are set so that the computation stays:
    weight = scale * sqrt(variance + eps), bias = shift + scale * mean. In training mode, which uses statistics of the
    batch, the network then starts close to where it was.
    """
    norms = [norm for _, norm in _norms(model)]
    # Sum and sum of squares of each batch norm's inputs, (width,) float64, divided by their number per channel.
    moments = {norm: torch.zeros(2, norm.num_features, dtype=torch.float64, device=data.device) for norm in norms}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, BatchNorm)
        x = inputs[0].double()
        moments[norm] += torch.stack([x.mean((0, 2, 3)), (x**2).mean((0, 2, 3))]) * (len(x) / len(data.train))

    handles = [norm.register_forward_pre_hook(add) for norm in norms]
    for start in range(0, len(data.train), BATCH):
        images, _ = data.batch(data.train, slice(start, start + BATCH))
        model(images)
    for handle in handles:
        handle.remove()
    for norm, (mean, square) in moments.items():
        variance = (square - mean**2).clamp(min=0).float()
        norm.bias.add_(norm.weight * mean.float())
        norm.weight.mul_(torch.sqrt(variance + norm.eps))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _norms(model: Network) -> list[tuple[str, BatchNorm]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, BatchNorm)]
