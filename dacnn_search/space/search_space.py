"""`SearchSpace`: the networks that a YAML file describes. `python -m dacnn_search.space FILE` previews one.

A sequence of choices leads to an architecture (see `ChoiceTree`). An Optuna trial (`suggest`), a random generator
(`draw`), recorded choices (`replay`) or an enumeration (`networks`) makes them.

Parameters and MACs never fall when a width, a depth or a regulator placement grows. So if the smallest network that
some first choices can still lead to breaks a constraint, all of them do.
"""

import bisect
import functools
import math
import random
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import SpaceError
from dacnn_search.common.yaml import Document, KeyPath, dump_yaml
from dacnn_search.data.dataset import DataSummary, summarise
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import Cost, estimate_cost
from dacnn_search.space.checks import architecture_problems, augmentation_problems
from dacnn_search.space.choices import Choices, ChoiceTree, Frame, Options, regulator_rank
from dacnn_search.space.settings import Constraints, SpaceSettings
from dacnn_search.space.validation import raise_problems, read_settings

__all__ = ["SearchSpace"]

SECTION_CHOICES = ("depth_", "regulators_")


class SearchSpace:
    """The networks that a YAML file or settings made in Python describe.

    Args:
        settings: The contents of the file.
        summary: Shape, classes and numbers of the images.
        document: The file, for messages with line numbers; None if there is none.

    Raises SpaceError if no network can be built or none meets the constraints.
    """

    def __init__(self, settings: SpaceSettings, summary: DataSummary, document: Document | None = None) -> None:
        self.settings = settings
        self.summary = summary
        self.document = document
        self.tree = ChoiceTree(settings.architecture)
        problems = [(path, f"{'.'.join(map(str, path))}: {message}") for path, message in self._broken_rules()]
        if document is not None:
            raise_problems(document, [(document.line(path), message) for path, message in problems])
        elif problems:
            raise SpaceError("\n".join(message for _, message in problems))

    @classmethod
    def from_yaml(cls, path: Path | str) -> "SearchSpace":
        """Read and check a file.

        Raises YamlError or SpaceError with a `file:line` per mistake, DataError if the data it names are not there.
        """
        settings, document = read_settings(path, SpaceSettings)
        return cls(settings, summarise(settings.data), document)

    @property
    def name(self) -> str:
        """The name in the settings, or that of the file."""
        return self.settings.name or (self.document.path.stem if self.document else "space")

    @property
    def text(self) -> str:
        """The text that was read and checked; for a space made in Python the same settings as YAML."""
        return self.document.text if self.document else dump_yaml(self.values)

    @property
    def values(self) -> Any:
        """What the file holds, as data, or would hold."""
        return self.document.data if self.document else self.settings.model_dump(mode="json", exclude_defaults=True)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.summary.input_shape

    @property
    def num_classes(self) -> int:
        return self.summary.num_classes

    @property
    def constrained(self) -> bool:
        """True if there is a limit on parameters or MACs."""
        return self.settings.constraints != Constraints()

    def cost(self, architecture: Architecture) -> Cost:
        """Return the cost of a network on this space's images."""
        return estimate_cost(architecture, self.input_shape, self.num_classes)

    def meets_constraints(self, architecture: Architecture) -> bool:
        """Return True if parameters and MACs are within the limits."""
        limits = self.settings.constraints
        return all(limit is None or getattr(self.cost(architecture), name) <= limit.max for name, limit in limits)

    def suggest(self, trial: Any) -> Architecture:
        """Return the canonical architecture that an Optuna trial's suggestions describe."""

        def choose(name: str, options: Options) -> Any:
            if not options.ordered:
                return trial.suggest_categorical(name, options.values)
            low, second, *_ = options.values
            return trial.suggest_int(name, low, options.values[-1], step=second - low)

        return self.tree.build(choose)

    def replay(self, choices: Choices) -> tuple[Architecture, dict[str, Options]]:
        """Return the canonical architecture of recorded choices, and the options that each was chosen from.

        Raises SpaceError if a choice is missing or not one of the options.
        """
        asked: dict[str, Options] = {}

        def choose(name: str, options: Options) -> Any:
            if name not in choices or choices[name] not in options.values:
                raise SpaceError(f"{name} must be one of {list(options.values)}, but is {choices.get(name)!r}")
            asked[name] = options
            return choices[name]

        return self.tree.build(choose), asked

    def draw(self, generator: random.Random) -> tuple[Architecture, dict[str, Any]]:
        """Return a random canonical network that meets the constraints, and the choices that lead to it.

        At each choice, all values that some network within the constraints has are equally likely.
        """
        choices: dict[str, Any] = {}

        def choose(name: str, options: Options) -> Any:
            choices[name] = generator.choice(self._reachable(choices, name, options))
            return choices[name]

        return self.tree.build(choose), choices

    def networks(self, known: Container[str] = ()) -> Iterator[tuple[Architecture, dict[str, Any]]]:
        """Yield each distinct network within the constraints, canonical, with the choices that lead to it.

        Args:
            known: Fingerprints of networks to leave out.
        """
        seen: set[str] = set()
        for frame, choices in self.frames:
            for sections in self._completions(frame, []):
                architecture = frame.architecture(sections)
                if architecture.fingerprint not in seen and architecture.fingerprint not in known:
                    seen.add(architecture.fingerprint)
                    yield architecture.canonical(), {**choices, **self.tree.section_choices(sections)}

    def draw_descriptions(self, generator: random.Random, count: int) -> list[Architecture]:
        """Draw networks uniformly from all descriptions, whether or not they meet the constraints."""
        frames = [frame for frame, _ in self.tree.frames]
        sections = [self.tree.sections[: len(frame.widths)] for frame in frames]
        numbers = generator.choices(range(len(frames)), [math.prod(map(len, parts)) for parts in sections], k=count)
        return [frames[i].architecture([generator.choice(pairs) for pairs in sections[i]]) for i in numbers]

    def extremes(self) -> tuple[Cost, Cost]:
        """Return the costs of the networks with the fewest and with the most parameters, which a limit replaces."""
        smallest = [self.cost(self.tree.smallest(group[0][0])) for group in self._groups]
        largest = [self.cost(self.tree.largest(group[-1][0])) for group in self._groups]
        least, most = min(smallest, key=lambda c: c.parameters), max(largest, key=lambda c: c.parameters)
        limit = self.settings.constraints.parameters
        if limit is not None and limit.max < most.parameters:
            most = Cost(limit.max, most.macs, most.activations, most.file_bytes)
        return least, most

    @functools.cached_property
    def frames(self) -> list[tuple[Frame, dict[str, Any]]]:
        """Each frame of some network within the constraints, with the choices that lead to it."""
        return [pair for group in self._groups for pair in group]

    @functools.cached_property
    def _groups(self) -> list[list[tuple[Frame, dict[str, Any]]]]:
        """The same frames in groups of equal choices but the width, from narrow to wide.

        Costs rise with the width, so bisection finds the first frame that is too wide.
        """
        groups: dict[tuple[Any, ...], list[tuple[Frame, dict[str, Any]]]] = {}
        for frame, choices in self.tree.frames:
            others = tuple((name, value) for name, value in choices.items() if name != "width")
            groups.setdefault(others, []).append((frame, choices))
        for group in groups.values():
            group.sort(key=lambda pair: pair[0].widths[0])
            del group[bisect.bisect_left(group, True, key=lambda pair: not self._fits(pair[0])) :]
        return [group for group in groups.values() if group]

    def _fits(self, frame: Frame, choices: Choices | None = None) -> bool:
        """Return True if some network of a frame, with these choices for its sections, meets the constraints."""
        return self.meets_constraints(self.tree.smallest(frame, choices))

    def _reachable(self, choices: Choices, name: str, options: Options) -> Sequence[Any]:
        """Return the values of the next choice that some network within the constraints has."""
        if not self.constrained:
            return options.values
        if not name.startswith(SECTION_CHOICES):
            first = tuple(choices.items())
            return [value for value in options.values if (*first, (name, value)) in self._first_choices]
        frame = self._first_choices[tuple(pair for pair in choices.items() if not pair[0].startswith(SECTION_CHOICES))]
        assert frame is not None
        rising = sorted(options.values, key=regulator_rank if name.startswith("regulators") else None)
        return rising[: bisect.bisect_left(rising, True, key=lambda v: not self._fits(frame, {**choices, name: v}))]

    @functools.cached_property
    def _first_choices(self) -> dict[tuple[tuple[str, Any], ...], Frame | None]:
        """All choices, in order, that begin the way to one of the frames; if they complete it, with the frame."""
        ways: dict[tuple[tuple[str, Any], ...], Frame | None] = {}
        for frame, choices in self.frames:
            pairs = tuple(choices.items())
            for length in range(len(pairs)):
                ways.setdefault(pairs[:length])
            ways[pairs] = frame
        return ways

    def _completions(self, frame: Frame, first: list[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
        """Yield the (depth, regulators) of all sections, after the first ones, in each way within the constraints."""
        index = len(first)
        if index == len(frame.widths):
            yield first
            return
        rest = [pairs[0] for pairs in self.tree.sections[index + 1 : len(frame.widths)]]
        for pair in self.tree.sections[index]:
            if self.meets_constraints(frame.architecture([*first, pair, *rest])):
                yield from self._completions(frame, [*first, pair])

    def _broken_rules(self) -> Iterator[tuple[KeyPath, str]]:
        """Yield (path, message) for each rule that several keys break together."""
        if not self.summary.validation_size:
            share = self.settings.data.validation
            yield ("data", "validation"), f"a search needs validation images, but a share of {share} gives none"
        yield from augmentation_problems(self.settings, self.input_shape)
        problems = list(architecture_problems(self.settings.architecture, self.input_shape))
        yield from problems or self._unmet_constraints()

    def _unmet_constraints(self) -> Iterator[tuple[KeyPath, str]]:
        if self.frames:
            return
        costs = [self.cost(self.tree.smallest(frame)) for frame, _ in self.tree.frames]
        unmet: list[tuple[KeyPath, str]] = []
        for name, limit in self.settings.constraints:
            least = min(getattr(cost, name) for cost in costs)
            if limit is not None and least > limit.max:
                rule = f"the smallest has {least:,} {name} and max is {limit.max:,}"
                unmet.append((("constraints", name, "max"), f"some network must meet the constraint, but {rule}"))
        if not unmet:
            yield ("constraints",), "some network must meet both constraints, but each network breaks one of them"
        yield from unmet
