"""Rules of a search space that several keys break together, as (path of the key, message)."""

import itertools
from collections.abc import Iterator

from dacnn_search.common.yaml import KeyPath
from dacnn_search.network.architecture import MOST_WIDTH, most_sections
from dacnn_search.network.cost import InputShape
from dacnn_search.space.choices import widths_of
from dacnn_search.space.settings import ArchitectureSettings, SpaceSettings, options_of

__all__ = ["architecture_problems", "augmentation_problems"]


def augmentation_problems(settings: SpaceSettings, input_shape: InputShape) -> Iterator[tuple[KeyPath, str]]:
    """Yield a problem for each crop or cutout that leaves nothing of an image."""
    side = min(input_shape[1:])
    for path, recipe in ((("recipe",), settings.recipe), (("retrain", "recipe"), settings.retrain.recipe)):
        for name in ("crop", "cutout"):
            pixels = getattr(recipe, name, 0)
            if pixels >= side:
                yield (*path, name), f"must be less than the {side} pixels of an image's side, but is {pixels}"


def architecture_problems(settings: ArchitectureSettings, input_shape: InputShape) -> Iterator[tuple[KeyPath, str]]:
    """Yield a problem for too many sections, for lists that are too short, and, if there is none, for wrong widths."""
    _, height, width = input_shape
    sections, most = max(options_of(settings.sections)), most_sections(height, width)
    lists = {name: part for name, part in settings if name in ("depth", "regulators") and isinstance(part, list)}
    short = {name: len(part) for name, part in lists.items() if len(part) < sections}
    if sections > most:
        yield (
            ("architecture", "sections"),
            f"sections - 1 <= halvings of the image must hold, but {sections} sections need {sections - 1} "
            f"poolings and {height}x{width} pixels allow {most - 1}",
        )
    for name, length in short.items():
        yield ("architecture", name), f"a list needs an entry for each of {sections} sections, but has {length}"
    if sections <= most and not short:
        yield from itertools.islice(_width_problems(settings, sections), 1)


def _width_problems(settings: ArchitectureSettings, sections: int) -> Iterator[tuple[KeyPath, str]]:
    for width, growth in itertools.product(options_of(settings.width), options_of(settings.growth)):
        widths = widths_of(width, growth, sections)
        if not 1 <= min(widths) <= max(widths) <= MOST_WIDTH:
            yield (
                ("architecture", "growth"),
                f"all widths must lie in [1, {MOST_WIDTH}], but width {width} and growth {growth} give {widths}",
            )
