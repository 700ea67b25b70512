"""What the filters of a trained network look for: images that excite them most, found by gradient ascent from noise.

The paper's Figure 7. A shared kernel is pictured once per layer that uses it: only batch norm, and what comes before,
makes its filters differ from layer to layer.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor, nn

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import write_atomic
from dacnn_search.export.classifier import Classifier, load_model
from dacnn_search.paper.plot_page import html_page

__all__ = ["FILTERS", "FilterPictures", "filter_figure", "visualise", "write_filters", "write_png"]

FILTERS, STEPS = 5, 100
RATE = 0.02  # of the pixels' range, per step
NOISE = 0.05  # standard deviation of the first image around grey
# In pixels: of a picture, between pictures, for the names of layers and of filters.
PNG_SIDE, GAP, MARGIN, HEADING = 96, 6, 220, 32


@dataclass(frozen=True)
class FilterPictures:
    """The pictures of a network's filters.

    layers: names of the rows. filters: channel numbers, one tuple per row. images: (rows, columns, H, W, C) uint8.
    responses: (rows, columns), the mean response of the filter to its picture, after batch norm and before ReLU; and
    to the noise it began with.
    """

    network: str
    layers: tuple[str, ...]
    filters: tuple[tuple[int, ...], ...]
    images: np.ndarray
    responses: np.ndarray
    before: np.ndarray


def visualise(
    model: Classifier | Path,
    *,
    layers: Sequence[int] | None = None,
    filters: int | Sequence[int] = FILTERS,
    steps: int = STEPS,
    seed: int = 0,
) -> FilterPictures:
    """Find an image for each filter: start from noise around grey, follow the gradient of the mean response, with
    pixels kept in [0, 1].

    model: a trained network or its folder. layers: 0 for the stem, 1 for the first layer after it; all by default.
    filters: their channel numbers, or how many, spread over all channels. Raises InputError for layers or filters that
    are not there.
    """
    name = str(model.name) if isinstance(model, Path) else str(model.architecture)
    classifier = model if isinstance(model, Classifier) else load_model(model)
    known = _layers(classifier)
    chosen = list(range(len(known))) if layers is None else list(layers)
    if not chosen or not all(0 <= layer < len(known) for layer in chosen):
        raise InputError(f"layers must lie between 0, the stem, and {len(known) - 1}, but are {chosen}")
    results = []
    for layer in chosen:
        label, norm, width = known[layer]
        channels = _channels(filters, width, label)
        results.append((label, channels, *_ascend(classifier, norm, channels, steps, seed)))
    labels, channel_sets, images, responses, before = zip(*results, strict=True)
    return FilterPictures(name, labels, channel_sets, np.stack(images), np.stack(responses), np.stack(before))


def write_filters(pictures: FilterPictures, folder: Path) -> Path:
    """Write `filters.png` and `filters.html` to a folder, which is made; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_png(pictures, folder / "filters.png")
    notes = ["Each picture was found by gradient ascent from noise: one filter of one layer responds strongly to it."]
    title = f"Filters of {pictures.network}"
    write_atomic(folder / "filters.html", html_page(title, notes, [filter_figure(pictures)]))
    return folder


def write_png(pictures: FilterPictures, path: Path) -> None:
    """Write a grid with a row per layer, named on its left."""
    import io

    from PIL import Image, ImageDraw, ImageFont

    rows, columns, height, width, _ = pictures.images.shape
    factor = max(1, round(PNG_SIDE / max(height, width)))
    step_y, step_x = height * factor + GAP, width * factor + GAP
    grid = Image.new("RGB", (MARGIN + columns * step_x, HEADING + rows * step_y), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(14)
    for column, name in enumerate(_headings(pictures)):
        draw.text((MARGIN + column * step_x, 8), name, fill="black", font=font)
    for row in range(rows):
        y = HEADING + row * step_y
        draw.text((8, y + height * factor // 2 - 10), pictures.layers[row], fill="black", font=font)
        for column in range(columns):
            pixels = _rgb(pictures.images[row, column]).repeat(factor, 0).repeat(factor, 1)
            grid.paste(Image.fromarray(pixels), (MARGIN + column * step_x, y))
    data = io.BytesIO()
    grid.save(data, "PNG", optimize=True)
    write_atomic(path, data.getvalue())


def filter_figure(pictures: FilterPictures) -> go.Figure:
    """The same grid for the browser: pointing at a picture tells its filter and how strongly it responds."""
    rows, columns, height, width, _ = pictures.images.shape
    step_y, step_x = height + 2, width + 2
    mosaic = np.full((rows * step_y, columns * step_x, 3), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        y, x = row * step_y + 1, column * step_x + 1
        mosaic[y : y + height, x : x + width] = _rgb(pictures.images[row, column])
    centres = [(row * step_y + step_y / 2, column * step_x + step_x / 2) for row, column in np.ndindex(rows, columns)]
    words = [
        f"{html.escape(pictures.layers[row])}, filter {pictures.filters[row][column]}<br>mean response "
        f"{pictures.responses[row, column]:.2f}, to the noise before {pictures.before[row, column]:.2f}"
        for row, column in np.ndindex(rows, columns)
    ]
    figure = go.Figure(go.Image(z=mosaic, hoverinfo="skip"))
    figure.add_scatter(
        x=[x for _, x in centres],
        y=[y for y, _ in centres],
        text=words,
        hovertemplate="%{text}<extra></extra>",
        mode="markers",
        marker={"size": 40, "opacity": 0},
    )
    ticks = [row * step_y + step_y / 2 for row in range(rows)]
    figure.update_yaxes(tickvals=ticks, ticktext=[html.escape(name) for name in pictures.layers], automargin=True)
    figure.update_xaxes(
        tickvals=[column * step_x + step_x / 2 for column in range(columns)], ticktext=_headings(pictures), side="top"
    )
    figure.update_xaxes(range=[0, columns * step_x], constrain="domain", constraintoward="left", showgrid=False)
    figure.update_yaxes(range=[rows * step_y, 0], constrain="domain", constraintoward="top", zeroline=False)
    title = {"text": f"Filters of {html.escape(pictures.network)}", "x": 0, "font": {"size": 16}}
    size = {"width": 260 + 110 * columns, "height": 110 + 110 * rows, "margin_b": 10}
    return figure.update_layout(title=title, template="plotly_white", showlegend=False, **size)


def _layers(classifier: Classifier) -> list[tuple[str, nn.Module, int]]:
    """Name, module whose output is the layer's response, and width, of the stem and every 3x3 layer after it."""
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
    """Images (N, H, W, C) uint8 for N channels of a layer, and its mean responses (N,) at the end and at first."""
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
                # of equal length for every image, so that weak filters move as fast as strong ones
                scale = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
                pixels = (pixels.detach() + RATE * gradient / scale).clamp(0, 1).requires_grad_()
    finally:
        handle.remove()
    images = (pixels.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return images, responses[-1], responses[0]


def _headings(pictures: FilterPictures) -> list[str]:
    """Of the columns: the filters' numbers, if they are the same in all layers."""
    if len(set(pictures.filters)) == 1:
        return [f"filter {number}" for number in pictures.filters[0]]
    return [""] * pictures.images.shape[1]


def _rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, C) -> (H, W, 3): colour stays, other images are shown by the mean of their channels."""
    if image.shape[2] == 3:
        return image
    return np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
