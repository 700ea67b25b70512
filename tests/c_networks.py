"""Networks with random weights as C code, and images to compare it with its reference on."""

import numpy as np
import torch

from dacnn_search.export.c.quantization import quantize
from dacnn_search.export.c.source import write_source
from dacnn_search.export.classifier import Classifier
from dacnn_search.export.folder import NetworkInput
from dacnn_search.network.model import build

FACTS = {"title": "A network", "network": "of a test", "told": ""}


def random_images(count, shape, seed=0):
    """Images (N, H, W, C) uint8 of a shape (C, H, W): all black, all white, black and white, random."""
    channels, height, width = shape
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), np.uint8)
    images[: count // 4] = np.where(images[: count // 4] < 128, 0, 255)
    images[0], images[1] = 0, 255
    return images


def random_classifier(architecture, shape, classes=3, seed=0):
    """A network with random weights. Its batch norms differ by channel and by layer; some have a negative scale."""
    torch.manual_seed(seed)
    network = build(architecture, classes, shape[0])
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 1.0)
    mean, std = (0.5, 0.3, 0.7)[: shape[0]], (0.3, 0.2, 0.25)[: shape[0]]
    given = NetworkInput(shape=shape, mean=mean, std=std, classes=tuple(map(str, range(classes))))
    return Classifier(architecture, dict(network.named_parameters()), given)


def integer_network(architecture, shape, classes=3, seed=0):
    """Such a network in integers, calibrated on random images."""
    return quantize(random_classifier(architecture, shape, classes, seed), random_images(16, shape, seed + 1))


def write_c(folder, network, /, name="network", **facts):
    """Write the C code of a network to a folder, and return the folder."""
    classes = [f"class {number}" for number in range(len(network.classifier))]
    write_source(folder, network, name, {**FACTS, "classes": classes, **facts})
    return folder
