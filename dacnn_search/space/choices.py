"""`ChoiceTree`: the choices that lead to an architecture.

The choices are asked in this order, each only where it applies and where the space leaves it free: `sections`,
`sharing`, `residual`, `batch_norm`, `width`, `growth`, `anchors`, then `depth_1`, `regulators_1`, `depth_2`, ...
All but depths and regulators make a frame. A function `choose` answers.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.space.settings import ArchitectureSettings, options_of

__all__ = ["ChoiceTree", "Choices", "Frame", "Options", "enumerate_answers", "regulator_rank", "widths_of"]

T = TypeVar("T")
FRAME_CHOICES = ("sections", "sharing", "residual", "batch_norm", "width")  # asked first, in this order


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

    def architecture(self, sections: Sequence[Sequence[Any]]) -> Architecture:
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
        names = ("depth", "regulators")
        values = [
            [_ask(choose, f"{name}_{i + 1}", self._part(name, i)) for name in names] for i in range(len(frame.widths))
        ]
        return frame.architecture(values).canonical()

    @functools.cached_property
    def sections(self) -> list[list[tuple[int, str]]]:
        """For each section, the (depth, regulators) it may have, sorted by both, so by rising parameters of each."""
        most = max(options_of(self._settings.sections))
        depths = [sorted(options_of(self._part("depth", i))) for i in range(most)]
        regulators = [sorted(options_of(self._part("regulators", i)), key=regulator_rank) for i in range(most)]
        return [list(itertools.product(*parts)) for parts in zip(depths, regulators, strict=True)]

    def smallest(self, frame: Frame, choices: Choices | None = None) -> Architecture:
        """Return the smallest network of a frame, given some of the choices for its sections."""
        given = choices or {}
        least = enumerate((pairs[0] for pairs in self.sections[: len(frame.widths)]), start=1)
        return frame.architecture(
            [(given.get(f"depth_{i}", depth), given.get(f"regulators_{i}", kind)) for i, (depth, kind) in least]
        )

    def largest(self, frame: Frame) -> Architecture:
        """Return the largest network of a frame."""
        return frame.architecture([pairs[-1] for pairs in self.sections[: len(frame.widths)]])

    def section_choices(self, sections: Sequence[tuple[int, Any]]) -> dict[str, Any]:
        """Return the choices that give these depths and regulators."""
        return {
            f"{name}_{i + 1}": value
            for i, values in enumerate(sections)
            for name, value in zip(("depth", "regulators"), values, strict=True)
            if len(options_of(self._part(name, i))) > 1
        }

    def _frame(self, choose: Choose) -> Frame:
        def ask(name: str) -> Any:
            return _ask(choose, name, getattr(self._settings, name))

        sections, sharing, residual, batch_norm, width = map(ask, FRAME_CHOICES)
        growth = ask("growth") if sections > 1 and sharing != "network" else 1
        anchors = ask("anchors") if sharing != "none" else 1
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
    pending: list[dict[str, Any]] = [{}]
    while pending:
        answers = pending.pop()

        def choose(name: str, options: Options, answers: dict[str, Any] = answers) -> Any:
            if name not in answers:
                first, *others = options.values
                pending.extend({**answers, name: value} for value in reversed(others))
                answers[name] = first
            return answers[name]

        yield build(choose), answers
