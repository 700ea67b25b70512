"""Picture the filters of a trained network: find images that excite them most, by gradient ascent from noise.

The paper's Figure 7. A shared kernel is pictured once per layer that uses it: only batch norm, and what comes before,
makes its filters differ from layer to layer.
"""

import functools
import html
import io
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

__all__ = ["FILTERS", "FilterPictures", "filter_figure", "picture_network", "visualise", "write_filters", "write_png"]

FILTERS, STEPS = 5, 100
RATE = 0.02  # of the pixels' range, per step
NOISE = 0.05  # standard deviation of the first image around grey
# Of the grid, in pixels: a picture's side (about), the gap between pictures, room for names of layers and of filters.
SIDE, GAP, MARGIN, HEADING = 96, 6, 220, 32
NOTE = "Each picture was found by gradient ascent from noise: one filter of one layer responds strongly to it."


@dataclass(frozen=True)
class FilterPictures:
    """The pictures of a network's filters, a row per layer. Responses are those after batch norm and before ReLU."""

    layers: tuple[str, ...]  # the names of the rows
    filters: tuple[tuple[int, ...], ...]  # the channel numbers of each row
    images: np.ndarray  # (rows, columns, H, W, C) uint8
    responses: np.ndarray  # (rows, columns): the mean response of a filter to its picture
    before: np.ndarray  # (rows, columns): the mean response to the noise that the picture began with


@functools.cache  # the page of figure 7 is written again after every training
def picture_network(
    folder: Path, layers: tuple[int, ...] = (), filters: int | tuple[int, ...] = FILTERS
) -> FilterPictures:
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
) -> FilterPictures:
    """Find an image for each filter: start from noise around grey and follow the gradient of the mean response.

    Raises InputError for layers or filters that are not there.

    Args:
        layers: Their numbers: 0 for the stem, 1 for the first layer after it. By default all.
        filters: Their channel numbers, or how many, spread over all channels.
    """
    known = _layers(model)
    chosen = list(layers) or list(range(len(known)))
    if not all(0 <= layer < len(known) for layer in chosen):
        raise InputError(f"layers must lie between 0, the stem, and {len(known) - 1}, but are {chosen}")
    results = []
    for label, norm, width in (known[layer] for layer in chosen):
        channels = _channels(filters, width, label)
        results.append((label, channels, *_ascend(model, norm, channels, steps, seed)))
    labels, channel_sets, images, responses, before = zip(*results, strict=True)
    return FilterPictures(labels, channel_sets, np.stack(images), np.stack(responses), np.stack(before))


def write_filters(pictures: FilterPictures, network: str, folder: Path) -> Path:
    """Write `filters.png` and `filters.html` to a folder, which is made if it is not there; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_png(pictures, folder / "filters.png")
    page = html_page(f"Filters of {network}", [NOTE], [filter_figure(pictures, network)])
    write_atomic(folder / "filters.html", page)
    return folder


def write_png(pictures: FilterPictures, path: Path) -> None:
    """Write a grid with a row per layer, named on its left."""
    data = io.BytesIO()
    _draw_grid(pictures)[0].save(data, "PNG", optimize=True)
    write_atomic(path, data.getvalue())


def filter_figure(pictures: FilterPictures, network: str) -> go.Figure:
    """Draw the grid for a browser: pointing at a picture tells its filter and how strongly it responds."""
    grid, centres = _draw_grid(pictures)
    words = [
        f"{html.escape(pictures.layers[row])}, filter {pictures.filters[row][column]}<br>mean response "
        f"{pictures.responses[row, column]:.2f}, to the noise before {pictures.before[row, column]:.2f}"
        for row, column in np.ndindex(pictures.responses.shape)
    ]
    figure = px.imshow(grid, title=f"Filters of {html.escape(network)}", template="plotly_white")
    figure.update_traces(hovertemplate=None, hoverinfo="skip").update_xaxes(visible=False).update_yaxes(visible=False)
    x, y = zip(*centres, strict=True)
    figure.add_scatter(x=x, y=y, mode="markers", opacity=0, text=words, hovertemplate="%{text}<extra></extra>")
    layout = {"width": grid.width, "height": grid.height + 60, "margin": {"l": 0, "r": 0, "t": 60, "b": 0}}
    return figure.update_layout(showlegend=False, hoverdistance=SIDE, **layout)


def _draw_grid(pictures: FilterPictures) -> tuple[Image.Image, list[tuple[float, float]]]:
    """Draw all pictures enlarged, with names; return also their centres (x, y).

    Other images than RGB are shown by the mean of their channels.
    """
    images = pictures.images if pictures.images.shape[-1] == 3 else pictures.images.mean(axis=-1).astype(np.uint8)
    rows, columns, *sides = images.shape[:4]
    height, width = (max(1, round(SIDE / max(sides))) * side for side in sides)
    grid = Image.new("RGB", (MARGIN + columns * (width + GAP), HEADING + rows * (height + GAP)), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(14)
    centres = []
    for row, column in np.ndindex(rows, columns):
        x, y = MARGIN + column * (width + GAP), HEADING + row * (height + GAP)
        grid.paste(Image.fromarray(images[row, column]).resize((width, height), Image.Resampling.NEAREST), (x, y))
        centres.append((x + width / 2, y + height / 2))
        if column == 0:
            draw.text((8, y + height // 2 - 10), pictures.layers[row], fill="black", font=font)
        if row == 0 and len(set(pictures.filters)) == 1:  # otherwise a column has different filters
            draw.text((x, 8), f"filter {pictures.filters[0][column]}", fill="black", font=font)
    return grid, centres


def _layers(classifier: Classifier) -> list[tuple[str, nn.Module, int]]:
    """Return name, batch norm and width of the stem and of every 3x3 layer after it."""
    network, architecture = classifier.network, classifier.architecture
    found: list[tuple[str, nn.Module, int]] = [("stem", network.stem_norm, architecture.sections[0].width)]
    for block, module in zip(architecture.blocks, network.blocks, strict=True):
        for layer, part in zip(block.layers, module.layers, strict=True):  # type: ignore[arg-type]
            found.append((f"layer {len(found)}, section {block.section + 1}, {layer.kernel}", part.norm, layer.width))
    return found


def _channels(filters: int | Sequence[int], width: int, layer: str) -> tuple[int, ...]:
    if isinstance(filters, int):
        return tuple(int(number) for number in np.linspace(0, width - 1, filters).round())
    if not filters or not all(0 <= number < width for number in filters):
        raise InputError(f"filters of {layer} must lie between 0 and {width - 1}, but are {list(filters)}")
    return tuple(filters)


def _ascend(
    classifier: Classifier, norm: nn.Module, channels: Sequence[int], steps: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images (N, H, W, C) uint8 for N channels of a layer, and its last and first mean responses (N,)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(channels), *classifier.input.shape, generator=generator)
    pixels = (0.5 + NOISE * noise).clamp(0, 1).requires_grad_()
    outputs: list[Tensor] = []
    responses = []
    with norm.register_forward_hook(lambda module, given, output: outputs.append(output)):
        for step in range(steps + 1):
            outputs.clear()
            classifier(pixels)
            response = outputs[0][range(len(channels)), list(channels)].mean(dim=(1, 2))
            responses.append(response.detach().numpy())
            if step < steps:
                (gradient,) = torch.autograd.grad(response.sum(), pixels)
                # Steps have the same length for every image, so that weak filters move as fast as strong ones.
                scale = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
                pixels = (pixels.detach() + RATE * gradient / scale).clamp(0, 1).requires_grad_()
    images = (pixels.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return images, responses[-1], responses[0]
