"""`ChoiceTree`: the choices that lead to an architecture.

The choices are asked in this order, each only where it applies and where the space leaves it free: `sections`,
`sharing`, `residual`, `batch_norm`, `width`, `growth`, `anchors`, then `depth_1`, `regulators_1`, `depth_2`, ...
All but depths and regulators make a frame. A function `choose` answers: a sampler, a random
generator, recorded choices or an enumeration.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.space.settings import ArchitectureSettings, options_of

__all__ = ["ChoiceTree", "Choices", "Frame", "Options", "enumerate_answers", "regulator_rank", "widths_of"]

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """The values of one choice."""

    values: tuple[Any, ...]
    ordered: bool  # evenly spaced whole numbers (other steps are not exact: a sampler that adds them leaves the list)


Choices = Mapping[str, Any]
Choose = Callable[[str, Options], Any]


@dataclass(frozen=True)
class Frame:
    """An architecture without its depths and regulators."""

    widths: tuple[int, ...]
    sharing: Any
    anchors: int
    residual: Any
    batch_norm: bool

    def architecture(self, sections: list[tuple[int, Any]]) -> Architecture:
        """Return the architecture with this (depth, regulators) for each section."""
        parts = [Section(depth, width, r) for width, (depth, r) in zip(self.widths, sections, strict=True)]
        return Architecture(tuple(parts), self.sharing, self.anchors, self.residual, self.batch_norm)


class ChoiceTree:
    """The architectures that the `architecture:` part of a search space describes."""

    def __init__(self, settings: ArchitectureSettings) -> None:
        self._settings = settings

    @functools.cached_property
    def frames(self) -> list[tuple[Frame, dict[str, Any]]]:
        """All frames, each with the choices that lead to it."""
        return list(enumerate_answers(self._frame))

    def build(self, choose: Choose) -> Architecture:
        """Return the canonical architecture that the answers of `choose` lead to."""
        frame = self._frame(choose)
        sections = []
        for number in range(1, len(frame.widths) + 1):
            depth = _ask(choose, f"depth_{number}", self._part("depth", number - 1))
            sections.append((depth, _ask(choose, f"regulators_{number}", self._part("regulators", number - 1))))
        return frame.architecture(sections).canonical()

    def depths(self, section: int) -> tuple[int, ...]:
        """Return the depths that a section, counted from 0, may have, the least first."""
        return tuple(sorted(options_of(self._part("depth", section))))

    def regulators(self, section: int) -> tuple[str, ...]:
        """Return the regulator placements that a section, counted from 0, may have, by rising parameters."""
        return tuple(sorted(options_of(self._part("regulators", section)), key=regulator_rank))

    def smallest(self, frame: Frame, choices: Choices | None = None) -> Architecture:
        """Return the smallest network of a frame, given some of the choices for its sections."""
        choices = choices or {}
        sections = []
        for i in range(len(frame.widths)):
            depth, regulators = self.least(i)
            number = i + 1
            sections.append((choices.get(f"depth_{number}", depth), choices.get(f"regulators_{number}", regulators)))
        return frame.architecture(sections)

    def largest(self, frame: Frame) -> Architecture:
        """Return the largest network of a frame."""
        return frame.architecture([(self.depths(i)[-1], self.regulators(i)[-1]) for i in range(len(frame.widths))])

    def least(self, section: int) -> tuple[int, str]:
        """Return the least depth and regulators of a section."""
        return self.depths(section)[0], self.regulators(section)[0]

    def section_choices(self, sections: Sequence[tuple[int, Any]]) -> dict[str, Any]:
        """Return the choices that give these depths and regulators."""
        choices = {}
        for i, values in enumerate(sections):
            for name, value in zip(("depth", "regulators"), values, strict=True):
                if len(options_of(self._part(name, i))) > 1:
                    choices[f"{name}_{i + 1}"] = value
        return choices

    def _frame(self, choose: Choose) -> Frame:
        parts = self._settings
        sections = _ask(choose, "sections", parts.sections)
        sharing = _ask(choose, "sharing", parts.sharing)
        residual = _ask(choose, "residual", parts.residual)
        batch_norm = _ask(choose, "batch_norm", parts.batch_norm)
        width = _ask(choose, "width", parts.width)
        growth = _ask(choose, "growth", parts.growth) if sections > 1 and sharing != "network" else 1
        anchors = _ask(choose, "anchors", parts.anchors) if sharing != "none" else 1
        return Frame(widths_of(width, growth, sections), sharing, anchors, residual, batch_norm)

    def _part(self, name: str, section: int) -> Any:
        part = getattr(self._settings, name)
        return part[section] if isinstance(part, list) else part


def _ask(choose: Choose, name: str, part: Any) -> Any:
    """Return the value of a part, chosen where there are several."""
    values = options_of(part)
    ordered = hasattr(part, "range") and isinstance(values[0], int)
    return values[0] if len(values) == 1 else choose(name, Options(values, ordered))


def regulator_rank(regulators: str) -> int:
    """Return the place of a regulator placement in the order of parameters."""
    return ("none", "block", "layer").index(regulators)


def widths_of(width: int, growth: float, sections: int) -> tuple[int, ...]:
    """Return the channels of each section: width * growth^i, rounded half up."""
    return tuple(int(width * growth**i + 0.5) for i in range(sections))


def enumerate_answers(build: Callable[[Choose], T]) -> Iterator[tuple[T, dict[str, Any]]]:
    """Yield each result of `build`, whose questions are answered in every way, with the answers."""
    script: list[int] = []
    while True:
        sizes: list[int] = []
        answers: dict[str, Any] = {}

        def choose(name: str, options: Options, sizes: list[int] = sizes, answers: dict[str, Any] = answers) -> Any:
            position = len(sizes)
            sizes.append(len(options.values))
            if position == len(script):
                script.append(0)
            answers[name] = options.values[script[position]]
            return answers[name]

        yield build(choose), answers
        while script and script[-1] == sizes[len(script) - 1] - 1:
            script.pop()
        if not script:
            return
        script[-1] += 1
