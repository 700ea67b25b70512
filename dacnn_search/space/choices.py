"""`ChoiceTree`: the choices that lead to an architecture.

The choices are asked in this order, each only where it applies and where the space leaves it free: `sections`,
`sharing`, `shortcuts`, `convolutions`, `batch_norm`, `width`, `growth`, `anchors`, `mixing`, then `history`, `depth_1`,
`regulators_1`, `depth_2`, ... All but these last make a frame: costs rise with them. A function `choose` answers.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.space.settings import ArchitectureSettings, Free

T = TypeVar("T")
Choices = Mapping[str, Any]
Choose = Callable[[str, Free[Any]], Any]


class ChoiceTree:
    """The architectures that the `architecture:` part of a search space describes."""

    def __init__(self, settings: ArchitectureSettings) -> None:
        self._settings = settings

    @functools.cached_property
    def options(self) -> dict[str, Free[Any]]:
        """The options of each choice by its name, also where there is only one."""
        parts = dict(self._settings)
        for name in ("depth", "regulators"):
            part = parts.pop(name)
            for i in range(max(self._settings.sections.values)):
                parts[f"{name}_{i + 1}"] = part[i] if isinstance(part, list) else part
        return parts

    @functools.cached_property
    def sections(self) -> list[list[tuple[int, str]]]:
        """For each section, the (depth, regulators) it may have, sorted by both, so by rising parameters of each."""
        numbers = range(1, max(self.options["sections"].values) + 1)
        parts = [[self.options[f"{name}_{i}"].rising for name in ("depth", "regulators")] for i in numbers]
        return [list(itertools.product(*pair)) for pair in parts]

    @functools.cached_property
    def frames(self) -> list[tuple[Architecture, dict[str, Any]]]:
        """The smallest network of each frame, as described, with the choices that lead to the frame."""

        def build(choose: Choose) -> Architecture:
            return self._describe(lambda name, o: o.rising[0] if costs_rise_with(name) else choose(name, o))

        return list(enumerate_answers(build))

    def count_descriptions(self, frame: Architecture) -> int:
        """Return how many descriptions have this frame."""
        histories = len(self.options["history"].values) if frame.shortcuts == "history" else 1
        return histories * math.prod(map(len, self.sections[: len(frame.sections)]))

    def build(self, choose: Choose) -> Architecture:
        """Return the canonical architecture that the answers of `choose` lead to."""
        return self._describe(choose).canonical()

    def complete(self, choices: Choices, choose: Callable[[Free[Any]], Any]) -> Architecture:
        """Return the architecture of these choices, as described, where `choose` answers what they leave open."""
        return self._describe(lambda name, options: choices[name] if name in choices else choose(options))

    def _describe(self, choose: Choose) -> Architecture:
        def ask(name: str) -> Any:
            options = self.options[name]
            return options.values[0] if len(options.values) == 1 else choose(name, options)

        names = ("sections", "sharing", "shortcuts", "convolutions", "batch_norm", "width")
        count, sharing, shortcuts, convolutions, batch_norm, width = map(ask, names)
        growth = ask("growth") if count > 1 and sharing != "network" else 1
        anchors = ask("anchors") if sharing != "none" else 1
        mixing = ask("mixing") if anchors > 1 else Architecture.mixing
        history = ask("history") if shortcuts == "history" else Architecture.history
        widths = enumerate(widths_of(width, growth, count), start=1)
        sections = tuple(Section(ask(f"depth_{i}"), width, ask(f"regulators_{i}")) for i, width in widths)
        return Architecture(sections, sharing, anchors, shortcuts, batch_norm, mixing, history, convolutions)


def costs_rise_with(name: str) -> bool:
    """Return True for the choices that are asked last: the history, and the depths and regulators of sections."""
    return name == "history" or name.startswith(("depth_", "regulators_"))


def widths_of(width: int, growth: float, sections: int) -> tuple[int, ...]:
    """Return the channels of each section: width * growth^i, rounded half up."""
    return tuple(int(width * growth**i + 0.5) for i in range(sections))


def enumerate_answers(
    build: Callable[[Choose], T], allowed: Callable[[Choices, str, Free[Any]], Sequence[Any]] | None = None
) -> Iterator[tuple[T, dict[str, Any]]]:
    """Yield each result of `build`, whose questions are answered in every way that is `allowed`, with the answers."""
    pending: list[dict[str, Any]] = [{}]
    while pending:
        answers = pending.pop()

        def choose(name: str, options: Free[Any], answers: dict[str, Any] = answers) -> Any:
            if name not in answers:
                first, *others = options.values if allowed is None else allowed(answers, name, options)
                pending.extend({**answers, name: value} for value in reversed(others))
                answers[name] = first
            return answers[name]

        yield build(choose), answers
