"""Picture the filters of a trained network: find images that excite them most, by gradient ascent from noise.

The paper's Figure 7. A shared kernel is pictured once per layer that uses it: only batch norm, and what comes before,
makes its filters differ from layer to layer.
"""

import functools
import html
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.express as px
import plotly.graph_objects as go
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import write_atomic
from dacnn_search.export.classifier import Classifier, load_model
from dacnn_search.paper.markup import html_page

FILTERS, STEPS = 5, 100
RATE = 0.02  # of the pixels' range, per step
NOISE = 0.05  # standard deviation of the first image around grey
# Of the grid, in pixels: a picture's side (about), the gap between pictures, room for names of layers and of filters.
SIDE, GAP, MARGIN, HEADING = 96, 6, 220, 32
NOTE = "Each picture was found by gradient ascent from noise: one filter of one layer responds strongly to it."


@dataclass(frozen=True)
class LayerPictures:
    """The pictures of N filters of a layer. Responses are means after batch norm and before ReLU."""

    layer: str
    filters: tuple[int, ...]  # their channel numbers
    images: np.ndarray  # (N, H, W, C) uint8
    responses: np.ndarray  # (N,): of each filter to its picture
    before: np.ndarray  # (N,): to the noise that the picture began with


@functools.cache  # the page of figure 7 is written again after every training
def picture_network(
    folder: Path, layers: tuple[int, ...] = (), filters: int | tuple[int, ...] = FILTERS
) -> list[LayerPictures]:
    """Return what `visualise` does for the network of a folder. Sets this process to one thread."""
    torch.set_num_threads(1)  # a few images at a time are too little for more, and other cores may train
    return visualise(load_model(folder), layers=layers, filters=filters)


def visualise(
    model: Classifier,
    *,
    layers: Sequence[int] = (),
    filters: int | Sequence[int] = FILTERS,
    steps: int = STEPS,
    seed: int = 0,
) -> list[LayerPictures]:
    """Find an image for each filter: start from noise around grey and follow the gradient of the mean response.

    Layer 0 is the stem, 1 the first layer after it; by default all are pictured. `filters` are channel numbers, or how
    many, spread over all channels. Raises InputError for layers or filters that are not there.
    """
    known = _layers(model)
    chosen = list(layers) or list(range(len(known)))
    if not all(0 <= layer < len(known) for layer in chosen):
        raise InputError(f"layers must lie between 0, the stem, and {len(known) - 1}, but are {chosen}")
    pictures = []
    for name, norm, width in (known[layer] for layer in chosen):
        spread = np.linspace(0, width - 1, filters).round().astype(int) if isinstance(filters, int) else filters
        channels = tuple(map(int, spread))
        if not channels or not all(0 <= number < width for number in channels):
            raise InputError(f"filters of {name} must lie between 0 and {width - 1}, but are {list(channels)}")
        pictures.append(LayerPictures(name, channels, *_ascend(model, norm, channels, steps, seed)))
    return pictures


def write_filters(pictures: Sequence[LayerPictures], network: str, folder: Path) -> Path:
    """Write `filters.png` and `filters.html` to a folder, which is made if it is not there; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_png(pictures, folder / "filters.png")
    page = html_page(f"Filters of {network}", [NOTE], [filter_figure(pictures, network)])
    write_atomic(folder / "filters.html", page)
    return folder


def write_png(pictures: Sequence[LayerPictures], path: Path) -> None:
    """Write a grid with a row per layer, named on its left."""
    data = io.BytesIO()
    _draw_grid(pictures)[0].save(data, "PNG", optimize=True)
    write_atomic(path, data.getvalue())


def filter_figure(pictures: Sequence[LayerPictures], network: str) -> go.Figure:
    """Draw the grid for a browser: pointing at a picture tells its filter and how strongly it responds."""
    grid, centres = _draw_grid(pictures)
    words = [
        f"{html.escape(row.layer)}, filter {number}<br>mean response {response:.2f}, to the noise before {before:.2f}"
        for row in pictures
        for number, response, before in zip(row.filters, row.responses, row.before, strict=True)
    ]
    figure = px.imshow(grid, title=f"Filters of {html.escape(network)}", template="plotly_white")
    figure.update_traces(hovertemplate=None, hoverinfo="skip").update_xaxes(visible=False).update_yaxes(visible=False)
    x, y = zip(*centres, strict=True)
    figure.add_scatter(x=x, y=y, mode="markers", opacity=0, text=words, hovertemplate="%{text}<extra></extra>")
    layout = {"width": grid.width, "height": grid.height + 60, "margin": {"l": 0, "r": 0, "t": 60, "b": 0}}
    return figure.update_layout(showlegend=False, hoverdistance=SIDE, **layout)


def _draw_grid(pictures: Sequence[LayerPictures]) -> tuple[Image.Image, list[tuple[float, float]]]:
    """Draw all pictures enlarged, with names; return also their centres (x, y).

    Other images than RGB are shown by the mean of their channels.
    """
    columns, *sides = pictures[0].images.shape[:3]
    height, width = (max(1, round(SIDE / max(sides))) * side for side in sides)
    grid = Image.new("RGB", (MARGIN + columns * (width + GAP), HEADING + len(pictures) * (height + GAP)), "white")
    write = functools.partial(ImageDraw.Draw(grid).text, fill="black", font=ImageFont.load_default(14))
    if len({row.filters for row in pictures}) == 1:  # otherwise a column has different filters
        for column, number in enumerate(pictures[0].filters):
            write((MARGIN + column * (width + GAP), 8), f"filter {number}")
    centres = []
    for y, row in zip(itertools.count(HEADING, height + GAP), pictures, strict=False):
        write((8, y + height // 2 - 10), row.layer)
        images = row.images if row.images.shape[-1] == 3 else row.images.mean(axis=-1).astype(np.uint8)
        for x, image in zip(itertools.count(MARGIN, width + GAP), images, strict=False):
            grid.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (x, y))
            centres.append((x + width / 2, y + height / 2))
    return grid, centres


def _layers(classifier: Classifier) -> list[tuple[str, nn.Module, int]]:
    """Return name, batch norm and width of the stem and of every 3x3 layer after it."""
    network, architecture = classifier.network, classifier.architecture
    found: list[tuple[str, nn.Module, int]] = [("stem", network.stem_norm, architecture.sections[0].width)]
    for block, module in zip(architecture.blocks, network.blocks, strict=True):
        for layer, part in zip(block.layers, module.layers, strict=True):  # type: ignore[arg-type]
            kernel = " + ".join(layer.kernels)
            found.append((f"layer {len(found)}, section {block.section + 1}, {kernel}", part.norm, layer.width))
    return found


def _ascend(
    classifier: Classifier, norm: nn.Module, channels: Sequence[int], steps: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images (N, H, W, C) uint8 for N channels of a layer, and its last and first mean responses (N,)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(channels), *classifier.input.shape, generator=generator)
    pixels = (0.5 + NOISE * noise).clamp(0, 1).requires_grad_()
    responses: list[Tensor] = []

    def add_response(module: nn.Module, given: object, output: Tensor) -> None:
        """Take the mean at once, since the network overwrites the output by its ReLU."""
        responses.append(output[range(len(channels)), list(channels)].mean(dim=(1, 2)))

    with norm.register_forward_hook(add_response):
        for step in range(steps + 1):
            classifier(pixels)
            if step < steps:
                (gradient,) = torch.autograd.grad(responses[-1].sum(), pixels)
                # Steps have the same length for every image, so that weak filters move as fast as strong ones.
                scale = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
                pixels = (pixels.detach() + RATE * gradient / scale).clamp(0, 1).requires_grad_()
    images = (pixels.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return images, responses[-1].detach().numpy(), responses[0].detach().numpy()
