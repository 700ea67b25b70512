"""Picture the filters of a trained network: find images that excite them most, by gradient ascent from noise.

The paper's Figure 7. A shared kernel is pictured once per layer that uses it: only batch norm, and what comes before,
makes its filters differ from layer to layer.
"""

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import write_atomic
from dacnn_search.export.classifier import Classifier, load_model
from dacnn_search.paper.markup import html_page

__all__ = ["FILTERS", "FilterPictures", "filter_figure", "visualise", "write_filters", "write_png"]

FILTERS, STEPS = 5, 100
RATE = 0.02  # of the pixels' range, per step
NOISE = 0.05  # standard deviation of the first image around grey
# Of the PNG, in pixels: a picture's side (about), the gap between pictures, room for names of layers and of filters.
SIDE, GAP, MARGIN, HEADING = 96, 6, 220, 32


@dataclass(frozen=True)
class FilterPictures:
    """The pictures of a network's filters, a row per layer.

    Args:
        layers: The names of the rows.
        filters: The channel numbers of each row.
        images: (rows, columns, H, W, C) uint8.
        responses: (rows, columns), mean response of a filter to its picture, after batch norm and before ReLU.
        before: (rows, columns), mean response to the noise that the picture began with.
    """

    network: str
    layers: tuple[str, ...]
    filters: tuple[tuple[int, ...], ...]
    images: np.ndarray
    responses: np.ndarray
    before: np.ndarray

    @property
    def headings(self) -> list[str]:
        """Names of the columns, empty where layers have different filters."""
        same = len(set(self.filters)) == 1
        return [f"filter {number}" if same else "" for number in self.filters[0]]

    def mosaic(self, factor: int, gap: int) -> tuple[np.ndarray, int, int]:
        """Return all pictures enlarged in one white image (H, W, 3) uint8, and the steps from one to the next (y, x).

        Other images than RGB are shown by the mean of their channels.
        """
        images = self.images
        if images.shape[-1] != 3:
            images = np.repeat(images.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1)
        images = images.repeat(factor, 2).repeat(factor, 3)
        images = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
        rows, columns, height, width, _ = images.shape
        return images.swapaxes(1, 2).reshape(rows * height, columns * width, 3), height, width


def visualise(
    model: Classifier | Path,
    *,
    layers: Sequence[int] | None = None,
    filters: int | Sequence[int] = FILTERS,
    steps: int = STEPS,
    seed: int = 0,
) -> FilterPictures:
    """Find an image for each filter: start from noise around grey and follow the gradient of the mean response.

    Raises InputError for layers or filters that are not there.

    Args:
        model: A trained network or its folder.
        layers: Their numbers: 0 for the stem, 1 for the first layer after it. By default all.
        filters: Their channel numbers, or how many, spread over all channels.
    """
    name = str(model.name) if isinstance(model, Path) else str(model.architecture)
    classifier = model if isinstance(model, Classifier) else load_model(model)
    known = _layers(classifier)
    chosen = list(range(len(known))) if layers is None else list(layers)
    if not chosen or not all(0 <= layer < len(known) for layer in chosen):
        raise InputError(f"layers must lie between 0, the stem, and {len(known) - 1}, but are {chosen}")
    results = []
    for label, norm, width in (known[layer] for layer in chosen):
        channels = _channels(filters, width, label)
        results.append((label, channels, *_ascend(classifier, norm, channels, steps, seed)))
    labels, channel_sets, images, responses, before = zip(*results, strict=True)
    return FilterPictures(name, labels, channel_sets, np.stack(images), np.stack(responses), np.stack(before))


def write_filters(pictures: FilterPictures, folder: Path) -> Path:
    """Write `filters.png` and `filters.html` to a folder, which is made if it is not there; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_png(pictures, folder / "filters.png")
    notes = ["Each picture was found by gradient ascent from noise: one filter of one layer responds strongly to it."]
    title = f"Filters of {pictures.network}"
    write_atomic(folder / "filters.html", html_page(title, notes, [filter_figure(pictures)]))
    return folder


def write_png(pictures: FilterPictures, path: Path) -> None:
    """Write a grid with a row per layer, named on its left."""
    factor = max(1, round(SIDE / max(pictures.images.shape[2:4])))
    mosaic, step_y, step_x = pictures.mosaic(factor, GAP)
    grid = Image.new("RGB", (MARGIN + mosaic.shape[1], HEADING + mosaic.shape[0]), "white")
    grid.paste(Image.fromarray(mosaic), (MARGIN, HEADING))
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(14)
    for column, name in enumerate(pictures.headings):
        draw.text((MARGIN + column * step_x, 8), name, fill="black", font=font)
    for row, name in enumerate(pictures.layers):
        draw.text((8, HEADING + row * step_y + (step_y - GAP) // 2 - 10), name, fill="black", font=font)
    data = io.BytesIO()
    grid.save(data, "PNG", optimize=True)
    write_atomic(path, data.getvalue())


def filter_figure(pictures: FilterPictures) -> go.Figure:
    """Draw the grid for a browser: pointing at a picture tells its filter and how strongly it responds."""
    mosaic, step_y, step_x = pictures.mosaic(1, 2)
    rows, columns = pictures.responses.shape
    x, y = step_x * (np.arange(columns) + 0.5), step_y * (np.arange(rows) + 0.5)  # centres
    names = [html.escape(name) for name in pictures.layers]
    words = [
        f"{names[row]}, filter {pictures.filters[row][column]}<br>mean response "
        f"{pictures.responses[row, column]:.2f}, to the noise before {pictures.before[row, column]:.2f}"
        for row, column in np.ndindex(rows, columns)
    ]
    figure = go.Figure(go.Image(z=mosaic, hoverinfo="skip"))
    invisible = {"mode": "markers", "marker": {"size": 40, "opacity": 0}}
    hover = {"text": words, "hovertemplate": "%{text}<extra></extra>"}
    figure.add_scatter(x=np.tile(x, rows), y=np.repeat(y, columns), **hover, **invisible)
    figure.update_yaxes(range=[rows * step_y, 0], tickvals=y, ticktext=names, automargin=True)
    figure.update_yaxes(constrain="domain", constraintoward="top", zeroline=False)
    figure.update_xaxes(range=[0, columns * step_x], tickvals=x, ticktext=pictures.headings, side="top")
    figure.update_xaxes(constrain="domain", constraintoward="left", showgrid=False)
    title = {"text": f"Filters of {html.escape(pictures.network)}", "x": 0, "font": {"size": 16}}
    size = {"width": 260 + 110 * columns, "height": 110 + 110 * rows, "margin_b": 10}
    return figure.update_layout(title=title, template="plotly_white", showlegend=False, **size)


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
    handle = norm.register_forward_hook(lambda module, given, output: outputs.append(output))
    try:
        responses = []
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
    finally:
        handle.remove()
    images = (pixels.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return images, responses[-1], responses[0]
