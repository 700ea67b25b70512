"""Count the distinct networks of a search space without listing them.

Descriptions that differ can unfold into one network (see `Architecture.canonical`). For given widths, which of them
do depends on the depths only through their sum and their maximum:

- k anchors per section act as min(k, deepest section); as many as the deepest section has layers is free weights;
- k anchors per network act as min(k, total depth); in a network of one section that is k anchors per section, and in
  one of several sections it differs from all of those unless it is free weights;
- `shortcuts: auto` is decided by the number of layers;
- regulators per layer are regulators per block in a section of a single layer, transition included.

So sections are added one by one, counting the ways to reach each (sum, maximum).
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable

from dacnn_search.network.architecture import DEEPEST_WITHOUT_SHORTCUTS
from dacnn_search.space.choices import ChoiceTree


def count_networks(tree: ChoiceTree) -> int:
    """Return the number of distinct networks that the choices lead to."""
    schemes: dict[tuple[tuple[int, ...], bool], set[tuple[str, int]]] = defaultdict(set)
    for frame, _ in tree.frames:
        widths = tuple(section.width for section in frame.sections)
        schemes[widths, frame.batch_norm].add((frame.sharing, frame.anchors))
    shortcuts = {frame.shortcuts for frame, _ in tree.frames}
    # Widths matter only through where they change.
    alike: Counter[tuple[tuple[bool, ...], frozenset[tuple[str, int]]]] = Counter()
    for (widths, _), sharing in schemes.items():
        alike[(False, *(a != b for a, b in itertools.pairwise(widths))), frozenset(sharing)] += 1
    return sum(
        count * _count_depths(tree, transitions, sharing, shortcuts) for (transitions, sharing), count in alike.items()
    )


def _count_depths(
    tree: ChoiceTree, transitions: tuple[bool, ...], sharing: Iterable[tuple[str, int]], shortcuts: Iterable[str]
) -> int:
    """Count the distinct networks of given widths, with a transition layer before the sections in `transitions`."""
    total = 0
    for (depth, deepest), count in _ways(tree, transitions).items():
        layers = 1 + sum(transitions) + depth + 1
        kernels = _distinct_sharing(sharing, depth, deepest, len(transitions))
        decided = {("block" if layers > DEEPEST_WITHOUT_SHORTCUTS else "none") if s == "auto" else s for s in shortcuts}
        total += count * kernels * len(decided)
    return total


def _ways(tree: ChoiceTree, transitions: tuple[bool, ...]) -> Counter[tuple[int, int]]:
    """Count the distinct depths and regulators of all sections by (total depth, depth of the deepest section)."""
    ways = Counter({(0, 0): 1})
    for section, transition in enumerate(transitions):
        longer: Counter[tuple[int, int]] = Counter()
        pairs = set(tree.sections[section])
        for depth, regulators in pairs:
            if depth + transition == 1 and regulators == "layer" and (depth, "block") in pairs:
                continue
            for (total, deepest), count in ways.items():
                longer[total + depth, max(deepest, depth)] += count
        ways = longer
    return ways


def _distinct_sharing(schemes: Iterable[tuple[str, int]], depth: int, deepest: int, sections: int) -> int:
    """Count the different assignments of kernels to layers that the (sharing, anchors) pairs give."""
    distinct: set[tuple[str, int]] = set()
    for sharing, anchors in schemes:
        whole = depth if sharing == "network" else deepest
        used = whole if sharing == "none" else min(anchors, whole)
        scope = "network" if sharing == "network" and sections > 1 else "section"
        distinct.add(("free", 0) if used == whole else (scope, used))
    return len(distinct)
