"""Count the distinct networks of a search space without listing them.

Descriptions that differ can unfold into one network (see `Architecture.canonical`). For given widths, which of them
do depends on the depths only through the few numbers in `Depths`:

- k anchors act as min(k, layers that share them), in the scope with most of these layers; as many as there are such
  layers are free weights;
- anchors of a network are those of a section if there is one section; if there are several, they differ;
- k anchors of second layers are 2k anchors of a section if each section that shares has 2k + 1 layers behind a
  transition;
- a single anchor is not mixed;
- `shortcuts: auto` is decided by the number of layers;
- a history of h inputs acts as min(h, layers between two transitions);
- regulators per layer are regulators per block in a section of a single layer, transition included.

So sections are added one by one, counting the ways to reach each `Depths`.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from dacnn_search.network.architecture import DEEPEST_WITHOUT_SHORTCUTS
from dacnn_search.space.choices import ChoiceTree

Scheme = tuple[str, int, str]  # sharing, anchors and mixing
Shortcuts = tuple[str, int]  # shortcuts and history
Transitions = tuple[bool, ...]  # whether each section begins with a transition layer


class Depths(NamedTuple):
    """What matters of the depths of some sections."""

    total: int = 0
    deepest: int = 0
    plain: bool = False  # one of the deepest sections has no transition
    widened: bool = False  # one of them has
    run: int = 0  # layers since the last transition
    longest: int = 0  # run

    def grown(self, depth: int, transition: bool) -> "Depths":
        """Return these depths with one more section."""
        deepest = max(self.deepest, depth)
        plain = (self.plain and self.deepest == deepest) or (not transition and depth == deepest)
        widened = (self.widened and self.deepest == deepest) or (transition and depth == deepest)
        run = depth if transition else self.run + depth
        return Depths(self.total + depth, deepest, plain, widened, run, max(self.longest, run))

    def capped(self, most: int, longest: int) -> "Depths":
        """Return these depths with smaller numbers for those that are larger."""
        total, deepest, plain, widened, *runs = self
        return Depths(min(total, most), min(deepest, most), plain, widened, *(min(run, longest) for run in runs))


def count_networks(tree: ChoiceTree) -> int:
    """Return the number of distinct networks that the choices lead to."""
    schemes: dict[tuple[tuple[int, ...], bool, str], set[Scheme]] = defaultdict(set)
    for frame, _ in tree.frames:
        widths = tuple(section.width for section in frame.sections)
        schemes[widths, frame.batch_norm, frame.convolutions].add((frame.sharing, frame.anchors, frame.mixing))
    shortcuts = {(frame.shortcuts, history) for frame, _ in tree.frames for history in tree.options["history"].values}
    # Widths matter only through where they change.
    alike: Counter[tuple[Transitions, frozenset[Scheme]]] = Counter()
    for (widths, *_), given in schemes.items():
        alike[(False, *(a != b for a, b in itertools.pairwise(widths))), frozenset(given)] += 1
    # Larger numbers than these differ in nothing.
    longest = max(history if around == "history" else 0 for around, history in shortcuts)
    most = max(DEEPEST_WITHOUT_SHORTCUTS, 2 * max(tree.options["anchors"].values) + 2, longest)
    ways = {transitions: _ways(tree, transitions, most, longest) for transitions, _ in alike}
    return sum(
        count
        * number
        * _count_kernels(given, depths, len(transitions))
        * _count_shortcuts(shortcuts, depths, transitions)
        for (transitions, given), count in alike.items()
        for depths, number in ways[transitions].items()
    )


def _ways(tree: ChoiceTree, transitions: Transitions, most: int, longest: int) -> Counter[Depths]:
    """Count the distinct depths and regulators of all sections by what matters of the depths."""
    ways = Counter({Depths(): 1})
    for section, transition in enumerate(transitions):
        pairs = set(tree.sections[section])
        alike = {(1, "layer")} if not transition and (1, "block") in pairs else set()
        depths = Counter(min(depth, most) for depth, _ in pairs - alike)
        longer: Counter[Depths] = Counter()
        for before, count in ways.items():
            for depth, number in depths.items():
                longer[before.grown(depth, transition).capped(most, longest)] += count * number
        ways = longer
    return ways


def _count_kernels(schemes: Iterable[Scheme], depths: Depths, sections: int) -> int:
    """Count the different assignments of kernels to layers."""
    distinct: set[tuple[str, int, bool]] = set()
    sharing_layers = {  # of the scope with most of them
        "network": depths.total,
        "section": depths.deepest,
        "second": (depths.deepest + depths.widened) // 2,
        "none": 0,
    }
    for sharing, anchors, mixing in schemes:
        mixed = mixing == "learned" and anchors > 1
        if anchors >= sharing_layers[sharing]:
            distinct.add(("none", 1, False))
        elif sharing == "second" and not mixed and depths.deepest - (not depths.plain) <= 2 * anchors:
            distinct.add(("section", 2 * anchors, False))
        else:
            distinct.add(("network" if sharing == "section" and sections == 1 else sharing, anchors, mixed))
    return len(distinct)


def _count_shortcuts(shortcuts: Iterable[Shortcuts], depths: Depths, transitions: Transitions) -> int:
    """Count the different shortcuts."""
    layers = 1 + sum(transitions) + depths.total + 1
    auto = "block" if layers > DEEPEST_WITHOUT_SHORTCUTS else "none"
    return len(
        {
            (auto if around == "auto" else around, min(history, depths.longest) if around == "history" else 0)
            for around, history in shortcuts
        }
    )
