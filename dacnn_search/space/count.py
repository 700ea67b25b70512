"""Count the distinct networks of a search space without listing them.

Descriptions that differ can unfold into one network (see `Architecture.canonical`). For given widths, which of them
do depends on the depths only through the few numbers in `Depths`:

- k anchors of a section act as min(k, layers that share), as many anchors as the section with most of these layers has
  of them are free weights, and so are k anchors of a network with k layers;
- anchors of a network are those of a section if there is one section, and differ from them if there are several;
- k anchors of second layers are 2k anchors of a section if each section that shares has 2k + 1 layers behind a
  transition;
- a single anchor is not mixed, nor are anchors that are free weights;
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
Shortcuts = tuple[str, int]  # with the history
Transitions = tuple[bool, ...]  # whether each section begins with a transition layer


class Depths(NamedTuple):
    """What matters of the depths of some sections."""

    total: int = 0
    deepest: int = 0  # of the sections without a transition
    deepest_widened: int = 0  # of those that begin with one
    run: int = 0  # layers since the last transition
    longest: int = 0  # run

    def grown(self, depth: int, transition: bool) -> "Depths":
        """Return these depths with one more section."""
        run = depth + (0 if transition else self.run)
        deepest, widened = self.deepest, self.deepest_widened
        if transition:
            widened = max(widened, depth)
        else:
            deepest = max(deepest, depth)
        return Depths(self.total + depth, deepest, widened, run, max(self.longest, run))


def count_networks(tree: ChoiceTree) -> int:
    """Return the number of distinct networks that the choices lead to."""
    schemes: dict[tuple[tuple[int, ...], bool], set[Scheme]] = defaultdict(set)
    for frame, _ in tree.frames:
        widths = tuple(section.width for section in frame.sections)
        schemes[widths, frame.batch_norm].add((frame.sharing, frame.anchors, frame.mixing))
    shortcuts = {(frame.shortcuts, frame.history) for frame, _ in tree.frames}
    # Widths matter only through where they change.
    alike: Counter[tuple[Transitions, frozenset[Scheme]]] = Counter()
    for (widths, _), given in schemes.items():
        alike[(False, *(a != b for a, b in itertools.pairwise(widths))), frozenset(given)] += 1
    return sum(
        count
        * ways
        * _count_kernels(given, depths, len(transitions))
        * _count_shortcuts(shortcuts, depths, transitions)
        for (transitions, given), count in alike.items()
        for depths, ways in _ways(tree, transitions).items()
    )


def _ways(tree: ChoiceTree, transitions: Transitions) -> Counter[Depths]:
    """Count the distinct depths and regulators of all sections by what matters of the depths."""
    ways = Counter({Depths(): 1})
    for section, transition in enumerate(transitions):
        longer: Counter[Depths] = Counter()
        pairs = set(tree.sections[section])
        for depth, regulators in pairs:
            if depth + transition == 1 and regulators == "layer" and (depth, "block") in pairs:
                continue
            for depths, count in ways.items():
                longer[depths.grown(depth, transition)] += count
        ways = longer
    return ways


def _count_kernels(schemes: Iterable[Scheme], depths: Depths, sections: int) -> int:
    """Count the different assignments of kernels to layers."""
    distinct: set[tuple[str, int, bool]] = set()
    most = {  # layers that share anchors in the scope with most of them
        "network": depths.total,
        "section": max(depths.deepest, depths.deepest_widened),
        "second": max(depths.deepest // 2, (depths.deepest_widened + 1) // 2),
        "none": 0,
    }
    for sharing, anchors, mixing in schemes:
        mixed = mixing == "learned" and anchors > 1
        if anchors >= most[sharing]:
            distinct.add(("none", 0, False))
        elif sharing == "second" and not mixed and max(depths.deepest, depths.deepest_widened - 1) <= 2 * anchors:
            distinct.add(("section", 2 * anchors, False))
        else:
            distinct.add((sharing if sections > 1 or sharing == "second" else "network", anchors, mixed))
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
