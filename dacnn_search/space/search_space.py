"""`SearchSpace`: the networks that a YAML file describes. `python -m dacnn_search.space FILE` previews one.

A sequence of choices leads to an architecture (see `ChoiceTree`). An Optuna trial (`suggest`), a random generator
(`draw`), recorded choices (`replay`) or an enumeration (`networks`) makes them.

Parameters, MACs, flash and RAM never fall when a history, a depth or a regulator placement grows, or a width that
leaves the transitions as they are. So if the smallest network that some first choices can still lead to breaks a
constraint, all of them do.
"""

import bisect
import functools
import itertools
import random
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import SpaceError
from dacnn_search.common.yaml import Document, KeyPath, dump_yaml, read_yaml
from dacnn_search.data.dataset import DataSummary, summarise
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import UNITS, Cost, estimate_cost
from dacnn_search.space.choices import Choices, ChoiceTree, costs_rise_with, enumerate_answers
from dacnn_search.space.settings import Free, SpaceSettings
from dacnn_search.space.validation import broken_rules, space_error, validate


class SearchSpace:
    """The networks that a YAML file or settings made in Python describe; `document` is the file, if there is one.

    Raises SpaceError if no network can be built or none meets the constraints.
    """

    def __init__(self, settings: SpaceSettings, summary: DataSummary, document: Document | None = None) -> None:
        self.settings = settings
        self.summary = summary
        self.document = document
        self.tree = ChoiceTree(settings.architecture)
        problems = [(path, f"{'.'.join(map(str, path))}: {message}") for path, message in self._broken_rules()]
        if problems:
            raise space_error(problems, document)

    @classmethod
    def from_yaml(cls, path: Path | str) -> "SearchSpace":
        """Read and check a file.

        Raises YamlError or SpaceError with a `file:line` per mistake, DataError if the data it names are not there.
        """
        document = read_yaml(Path(path))
        settings = validate(document.data, SpaceSettings, document)
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
        """The contents of the file as data; of a space made in Python, what its file would hold."""
        return self.document.data if self.document else self.settings.model_dump(mode="json", exclude_defaults=True)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.summary.input_shape

    @property
    def num_classes(self) -> int:
        return self.summary.num_classes

    @property
    def constrained(self) -> bool:
        """True if there is a limit on any cost."""
        return bool(self._limits)

    def cost(self, architecture: Architecture) -> Cost:
        """Return the cost of a network on this space's images."""
        return estimate_cost(architecture, self.input_shape, self.num_classes)

    def meets_constraints(self, architecture: Architecture) -> bool:
        """Return True if all costs are within the limits."""
        if not self._limits:
            return True
        cost = self.cost(architecture)
        return all(getattr(cost, name) <= most for name, most in self._limits.items())

    def suggest(self, trial: Any) -> Architecture:
        """Return the canonical architecture that an Optuna trial's suggestions describe."""

        def choose(name: str, options: Free[Any]) -> Any:
            if not options.ordered:
                return trial.suggest_categorical(name, options.values)
            low, second, *_ = options.values
            return trial.suggest_int(name, low, options.values[-1], step=second - low)

        return self.tree.build(choose)

    def replay(self, choices: Choices) -> tuple[Architecture, dict[str, Free[Any]]]:
        """Return the canonical architecture of recorded choices, and the options that each was chosen from.

        Raises SpaceError if a choice is missing or not one of the options.
        """
        asked: dict[str, Free[Any]] = {}

        def choose(name: str, options: Free[Any]) -> Any:
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

        def choose(name: str, options: Free[Any]) -> Any:
            choices[name] = generator.choice(self._reachable(choices, name, options))
            return choices[name]

        return self.tree.build(choose), choices

    def networks(self, known: Container[str] = ()) -> Iterator[tuple[Architecture, dict[str, Any]]]:
        """Yield each distinct network within the constraints, canonical, with the choices that lead to it.

        Networks with `known` fingerprints are left out.
        """
        seen: set[str] = set()
        for architecture, choices in enumerate_answers(self.tree.build, self._reachable):
            if architecture.fingerprint not in seen and architecture.fingerprint not in known:
                seen.add(architecture.fingerprint)
                yield architecture, choices

    def extremes(self, name: str = "parameters") -> tuple[int, int]:
        """Return the least and the largest cost of that name of any network. A limit on it replaces the largest; other
        limits are not looked at, so that all networks may cost less than that."""
        least = min(getattr(self.cost(group[0][0]), name) for group in self._groups)
        largest = [self.tree.complete(group[-1][1], lambda options: options.rising[-1]) for group in self._groups]
        most = max(getattr(self.cost(network), name) for network in largest)
        return least, min(most, self._limits.get(name, most))

    @functools.cached_property
    def _limits(self) -> dict[str, int]:
        """The limits by the names of costs."""
        return {name: limit.max for name, limit in self.settings.constraints if limit}

    @functools.cached_property
    def _groups(self) -> list[list[tuple[Architecture, dict[str, Any]]]]:
        """The frames of some network within the constraints, in groups of equal choices but the width, which rises.

        Costs rise with the width among networks with the same transitions, so bisection finds the first frame that is
        too wide. (A width that adds a transition can shorten the history: where growth is near 1, rounding decides.)
        """
        groups: dict[tuple[Any, ...], list[tuple[Architecture, dict[str, Any]]]] = {}
        for smallest, choices in self.tree.frames:
            transitions = tuple(a.width != b.width for a, b in itertools.pairwise(smallest.sections))
            others = tuple(pair for pair in choices.items() if pair[0] != "width")
            groups.setdefault((transitions, others), []).append((smallest, choices))
        for group in groups.values():
            group.sort(key=lambda pair: pair[0].sections[0].width)
            del group[bisect.bisect_left(group, True, key=lambda pair: not self.meets_constraints(pair[0])) :]
        return [group for group in groups.values() if group]

    @functools.cached_property
    def _first_choices(self) -> set[tuple[tuple[str, Any], ...]]:
        """All choices, in order, that begin the way to one of the frames."""
        ways = (tuple(choices.items()) for group in self._groups for _, choices in group)
        return {way[:length] for way in ways for length in range(len(way) + 1)}

    def _reachable(self, choices: Choices, name: str, options: Free[Any]) -> Sequence[Any]:
        """Return the values of the next choice that some network within the constraints has."""
        if not self.constrained:
            return options.values
        if not costs_rise_with(name):
            return [value for value in options.values if (*choices.items(), (name, value)) in self._first_choices]

        def too_large(value: Any) -> bool:
            return not self.meets_constraints(self.tree.complete({**choices, name: value}, lambda o: o.rising[0]))

        *others, last = rising = options.rising
        if not too_large(last):  # one look instead of two or three, far from the limits
            return rising
        return others[: bisect.bisect_left(others, True, key=too_large)]

    def _broken_rules(self) -> Iterator[tuple[KeyPath, str]]:
        """Yield (path, message) for each rule that several keys break together."""
        if not self.summary.validation_size:
            share = self.settings.data.validation
            yield ("data", "validation"), f"a search needs validation images, but a share of {share} gives none"
        problems = list(broken_rules(self.settings, self.input_shape))
        yield from problems
        if any(path[0] == "architecture" for path, _ in problems):
            return
        if self._groups:
            yield from self._broken_budgets()
        else:
            yield from self._unmet_constraints()

    def _broken_budgets(self) -> Iterator[tuple[KeyPath, str]]:
        objective = self.settings.search.objective
        try:
            sizes = self.settings.retrain.sizes(objective)
        except ValueError as error:
            yield ("retrain", "budgets"), str(error)
            return
        least, _ = self.extremes(objective)
        if sizes and sizes[0] < least:
            rule = f"the smallest has {least:,} {UNITS[objective]} and the least budget is {sizes[0]:,}"
            yield ("retrain", "budgets"), f"some network must fit each budget, but {rule}"

    def _unmet_constraints(self) -> Iterator[tuple[KeyPath, str]]:
        costs = [self.cost(smallest) for smallest, _ in self.tree.frames]
        least = {name: min(getattr(cost, name) for cost in costs) for name in self._limits}
        unmet = {name: most for name, most in self._limits.items() if least[name] > most}
        for name, most in unmet.items():
            rule = f"the smallest has {least[name]:,} {UNITS[name]} and max is {most:,}"
            yield ("constraints", name, "max"), f"some network must meet the constraint, but {rule}"
        if not unmet:
            yield ("constraints",), "some network must meet all constraints, but each network breaks one of them"
