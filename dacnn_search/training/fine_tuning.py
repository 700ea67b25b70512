"""Start a training from stored weights, on the same or on other data."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dacnn_search.common.errors import InputError
from dacnn_search.network.model import BatchNorm, Network
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.weights import load_weights

__all__ = ["start_from"]

BATCH = 256


def start_from(model: Network, tensors: Mapping[str, Tensor], data: ResidentData) -> Network:
    """Load stored weights into a network that will be trained on `data`, and return it in training mode.

    If the stored network has another number of classes, the model keeps its own new classifier. Raises InputError for
    weights of another network.
    """
    stored = dict(tensors)
    own = {f"classifier.{name}": tensor.detach().clone() for name, tensor in model.classifier.named_parameters()}
    if own.keys() <= stored.keys() and len(stored["classifier.weight"]) != model.num_classes:
        if stored["classifier.weight"].shape[1:] != own["classifier.weight"].shape[1:]:
            raise InputError("weights: the stored classifier must fit the last section's width, but does not")
        stored |= own
    load_weights(model, stored)
    model.to(data.device)
    _estimate_statistics(model, data)
    return model.train()


@torch.no_grad()
def _estimate_statistics(model: Network, data: ResidentData) -> None:
    """Give batch norm the statistics of the training images, without changing what the network computes in eval mode.

    Stored weights have each batch norm's scale and shift, without the mean and variance that these were made of. Mean
    and variance of its inputs are measured over all training images, and weight and bias are set so that these
    stay: weight = scale * sqrt(variance + eps), bias = shift + scale * mean. In training mode, which uses statistics of
    the batch, the network then starts close to where it was.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
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
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shift = norm.bias - scale * norm.running_mean
        norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
        norm.bias.copy_(shift + scale * mean.float())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
