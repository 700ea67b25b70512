"""`SearchSpace`: the networks that a YAML file describes. `python -m dacnn_search.space FILE` previews one.

An architecture is drawn by a sequence of choices (see `ChoiceTree`). Whoever answers decides: an Optuna trial
(`suggest`), a random generator (`draw`), a record of earlier answers (`replay`) or an enumeration (`networks`).

Parameters and MACs never fall when a width, a depth or a regulator placement grows, so that the smallest completion
of a beginning tells whether any completion meets the constraints.
"""

import bisect
import functools
import itertools
import math
import random
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import SpaceError
from dacnn_search.common.yaml import Document, dump_yaml
from dacnn_search.data.dataset import DataSummary, summarise
from dacnn_search.network.architecture import MOST_WIDTH, Architecture, most_sections
from dacnn_search.network.cost import Cost, estimate_cost
from dacnn_search.space.choices import Choices, ChoiceTree, Frame, Options, regulator_rank, widths_of
from dacnn_search.space.settings import SpaceSettings, options_of
from dacnn_search.space.validation import raise_problems, read_settings

__all__ = ["SearchSpace"]

SECTION_CHOICES = ("depth_", "regulators_")


class SearchSpace:
    """The networks of `settings` for images of `summary`.

    Raises SpaceError if no network can be built or none meets the constraints.
    """

    def __init__(self, settings: SpaceSettings, summary: DataSummary, document: Document | None = None) -> None:
        self.settings = settings
        self.summary = summary
        self.document = document
        self.tree = ChoiceTree(settings.architecture)
        problems = [(path, f"{'.'.join(path)}: {message}") for path, message in self._problems()]
        if document is not None:
            raise_problems(document, [(document.line(path), message) for path, message in problems])
        elif problems:
            raise SpaceError("\n".join(message for _, message in problems))

    @classmethod
    def from_yaml(cls, path: Path | str) -> "SearchSpace":
        """Read and check a file. Raises YamlError or SpaceError with a `file:line` per mistake, DataError if the data
        it names are not there."""
        settings, document = read_settings(path, SpaceSettings)
        return cls(settings, summarise(settings.data), document)

    @property
    def name(self) -> str:
        """That of the settings, or the file's."""
        return self.settings.name or (self.document.path.stem if self.document else "space")

    @property
    def text(self) -> str:
        """The text that was read and checked; for a space made in Python the same settings as YAML."""
        if self.document is not None:
            return self.document.text
        return dump_yaml(self.values)

    @property
    def values(self) -> Any:
        """What the file holds, as data, or would hold."""
        if self.document is not None:
            return self.document.data
        return self.settings.model_dump(mode="json", exclude_defaults=True)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.summary.input_shape

    @property
    def num_classes(self) -> int:
        return self.summary.num_classes

    @property
    def constrained(self) -> bool:
        """Whether there is a limit on parameters or MACs."""
        limits = self.settings.constraints
        return limits.parameters is not None or limits.macs is not None

    def cost(self, architecture: Architecture) -> Cost:
        """The cost of a network on this space's images."""
        return estimate_cost(architecture, self.input_shape, self.num_classes)

    def meets_constraints(self, architecture: Architecture) -> bool:
        """Whether parameters and MACs are within the limits."""
        if not self.constrained:
            return True
        limits, cost = self.settings.constraints, self.cost(architecture)
        return (limits.parameters is None or cost.parameters <= limits.parameters.max) and (
            limits.macs is None or cost.macs <= limits.macs.max
        )

    def suggest(self, trial: Any) -> Architecture:
        """The canonical architecture that an Optuna trial's suggestions describe."""

        def choose(name: str, options: Options) -> Any:
            if not options.ordered:
                return trial.suggest_categorical(name, options.values)
            low, second, *_ = options.values
            return trial.suggest_int(name, low, options.values[-1], step=second - low)

        return self.tree.build(choose)

    def replay(self, choices: Choices) -> tuple[Architecture, dict[str, Options]]:
        """The canonical architecture of recorded choices, and the options each was chosen from.

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
        """A random network that meets the constraints, canonical, and the choices that lead to it.

        At each choice, the values from which some network that meets the constraints can be reached are equally
        likely.
        """
        choices: dict[str, Any] = {}

        def choose(name: str, options: Options) -> Any:
            choices[name] = generator.choice(self._able(choices, name, options))
            return choices[name]

        return self.tree.build(choose), choices

    def networks(self, known: Container[str] = ()) -> Iterator[tuple[Architecture, dict[str, Any]]]:
        """Every distinct network that meets the constraints and whose fingerprint is not in `known`, canonical, with
        the choices that lead to it."""
        seen: set[str] = set()
        for frame, choices in self._frames:
            for sections in self._completions(frame, []):
                architecture = frame.architecture(sections)
                if architecture.fingerprint not in seen and architecture.fingerprint not in known:
                    seen.add(architecture.fingerprint)
                    yield architecture.canonical(), {**choices, **self.tree.section_choices(sections)}

    def draw_descriptions(self, generator: random.Random, count: int) -> list[Architecture]:
        """Networks drawn uniformly from all descriptions, whether or not they meet the constraints."""
        frames = [frame for frame, _ in self.tree.frames]
        sections = [len(frame.widths) for frame in frames]
        ways = [
            math.prod(len(self.tree.depths(i)) * len(self.tree.regulators(i)) for i in range(n))
            for n in range(max(sections) + 1)
        ]
        return [
            frame.architecture(
                [
                    (generator.choice(self.tree.depths(i)), generator.choice(self.tree.regulators(i)))
                    for i in range(len(frame.widths))
                ]
            )
            for frame in generator.choices(frames, [ways[n] for n in sections], k=count)
        ]

    def extremes(self) -> tuple[Cost, Cost]:
        """The cost of the network with the fewest and of the one with the most parameters, within the constraints
        (for the most, no more than the constraint if that binds)."""
        smallest = [self.cost(self.tree.smallest(group[0][0])) for group in self._groups]
        largest = [self.cost(self.tree.largest(group[-1][0])) for group in self._groups]
        least, most = min(smallest, key=lambda c: c.parameters), max(largest, key=lambda c: c.parameters)
        limit = self.settings.constraints.parameters
        if limit is not None and limit.max < most.parameters:
            most = Cost(limit.max, most.macs, most.activations, most.file_bytes)
        return least, most

    # What can be reached.

    @functools.cached_property
    def _frames(self) -> list[tuple[Frame, dict[str, Any]]]:
        """Every frame from which some network that meets the constraints can be reached, with its choices."""
        return [pair for group in self._groups for pair in group]

    @functools.cached_property
    def _groups(self) -> list[list[tuple[Frame, dict[str, Any]]]]:
        """The same frames in groups that differ in width alone, from narrow to wide. Costs rise with the width, so that
        the first that is too wide is found by bisection."""
        groups: dict[tuple[Any, ...], list[tuple[Frame, dict[str, Any]]]] = {}
        for frame, choices in self.tree.frames:
            others = tuple((name, value) for name, value in choices.items() if name != "width")
            groups.setdefault(others, []).append((frame, choices))
        kept = []
        for group in groups.values():
            group.sort(key=lambda pair: pair[0].widths[0])
            fitting = bisect.bisect_left(
                group, True, key=lambda pair: not self.meets_constraints(self.tree.smallest(pair[0]))
            )
            kept += [group[:fitting]] if fitting else []
        return kept

    def _able(self, choices: Choices, name: str, options: Options) -> Sequence[Any]:
        """The values of the next choice from which some network that meets the constraints can be reached."""
        if not self.constrained:
            return options.values
        if not name.startswith(SECTION_CHOICES):
            begun = tuple(choices.items())
            return [value for value in options.values if (*begun, (name, value)) in self._beginnings]
        frame = self._beginnings[tuple(pair for pair in choices.items() if not pair[0].startswith(SECTION_CHOICES))]
        assert frame is not None
        rising = sorted(options.values, key=regulator_rank if name.startswith("regulators") else None)

        def breaks(value: Any) -> bool:
            return not self.meets_constraints(self.tree.smallest(frame, {**choices, name: value}))

        return rising[: bisect.bisect_left(rising, True, key=breaks)]

    @functools.cached_property
    def _beginnings(self) -> dict[tuple[tuple[str, Any], ...], Frame | None]:
        """Every beginning of the choices that lead to a frame from which the constraints can be met; for complete
        ones the frame."""
        beginnings: dict[tuple[tuple[str, Any], ...], Frame | None] = {}
        for frame, choices in self._frames:
            pairs = tuple(choices.items())
            for length in range(len(pairs)):
                beginnings.setdefault(pairs[:length])
            beginnings[pairs] = frame
        return beginnings

    def _completions(self, frame: Frame, begun: list[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
        """All ways to fill in the sections of a frame that meet the constraints."""
        if len(begun) == len(frame.widths):
            yield begun
            return
        index = len(begun)
        for pair in itertools.product(self.tree.depths(index), self.tree.regulators(index)):
            rest = [self.tree.least(i) for i in range(index + 1, len(frame.widths))]
            if self.meets_constraints(frame.architecture([*begun, pair, *rest])):
                yield from self._completions(frame, [*begun, pair])

    # What can't be.

    def _problems(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Rules that several keys break together, as (path, message)."""
        if not self.summary.validation_size:
            yield (
                ("data", "validation"),
                f"a search needs validation images, but a share of {self.settings.data.validation} gives none",
            )
        yield from self._blind_augmentations()
        parts = self.settings.architecture
        found = False
        _, height, width = self.input_shape
        most = most_sections(height, width)
        sections = max(options_of(parts.sections))
        if sections > most:
            found = True
            yield (
                ("architecture", "sections"),
                f"sections - 1 <= halvings of the image must hold, but {sections} sections need {sections - 1} "
                f"poolings and {height}x{width} pixels allow {most - 1}",
            )
        for name in ("depth", "regulators"):
            part = getattr(parts, name)
            if isinstance(part, list) and len(part) < sections:
                found = True
                yield (
                    ("architecture", name),
                    f"a list needs an entry for each of {sections} sections, but has {len(part)}",
                )
        for width_, growth in itertools.product(options_of(parts.width), options_of(parts.growth)):
            widths = widths_of(width_, growth, sections)
            if not found and not 1 <= min(widths) <= max(widths) <= MOST_WIDTH:
                found = True
                yield (
                    ("architecture", "growth"),
                    f"all widths must lie in [1, {MOST_WIDTH}], but width {width_} and growth {growth} give {widths}",
                )
        if not found:
            yield from self._unmet_constraints()

    def _blind_augmentations(self) -> Iterator[tuple[tuple[str, ...], str]]:
        side = min(self.input_shape[1:])
        for path, recipe in (
            (("recipe",), self.settings.recipe),
            (("retrain", "recipe"), self.settings.retrain.recipe),
        ):
            for name in ("crop", "cutout"):
                pixels = getattr(recipe, name, 0)
                if pixels >= side:
                    yield (*path, name), f"must be less than the {side} pixels of an image's side, but is {pixels}"

    def _unmet_constraints(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self._frames:
            return
        costs = [self.cost(self.tree.smallest(frame)) for frame, _ in self.tree.frames]
        alone = False
        for name in ("parameters", "macs"):
            limit = getattr(self.settings.constraints, name)
            least = min(getattr(cost, name) for cost in costs)
            if limit is not None and least > limit.max:
                alone = True
                yield (
                    ("constraints", name, "max"),
                    f"some network must meet the constraint, but the smallest has {least:,} {name} and max is "
                    f"{limit.max:,}",
                )
        if not alone:
            yield (
                ("constraints",),
                "some network must meet both constraints, but each network breaks one of them",
            )
