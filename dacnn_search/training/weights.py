"""The weights of a trained network as named tensors: exactly its parameters, each shared kernel once.

In eval mode batch norm is a scale and a shift per channel: scale = weight / sqrt(variance + eps),
shift = bias - scale * mean. They are stored as its weight and bias, so that a file holds as many scalars as the network
has parameters. They are not multiplied into the convolutions, since layers that share a kernel differ in them.
"""

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from safetensors.torch import load_file
from torch import Tensor

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import write_atomic
from dacnn_search.network.model import BatchNorm, Network

__all__ = ["load_weights", "read_weights", "trained_weights", "write_weights"]


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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file. Pickles, which could run code, are not read.

    Raises InputError if it is missing, damaged or of another format.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: must be a safetensors file, but: {error}") from error


def write_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file that `read_weights` reads back."""
    write_atomic(path, safetensors.torch.save(dict(tensors)))


def _norms(model: Network) -> list[tuple[str, BatchNorm]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, BatchNorm)]
