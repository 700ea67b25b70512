"""A preview of a search space as text, before anything is trained."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dacnn_search.common.machine import count_cores
from dacnn_search.common.units import format_count, format_duration
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import training_seconds
from dacnn_search.network.drawing import LEGEND, draw
from dacnn_search.space.count import count_networks
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.training.speed import remembered_speed_for

__all__ = ["preview"]

FEW = 2_000  # spaces up to this size are listed in full, larger ones are sampled


@dataclass(frozen=True)
class Sample:
    """Networks of the space."""

    networks: list[Architecture]  # all of these meet the constraints
    fitting: int  # of the networks drawn so many meet the constraints
    drawn: int
    complete: bool  # these are all networks of the space, each once


def preview(space: SearchSpace, seed: int = 0) -> str:
    """Describe a search space in text.

    It tells the number of distinct networks, the share that meets the constraints, range and histogram of parameters
    and MACs, an example, and about how long the search takes. `seed` draws the networks of spaces too large to list.
    """
    generator = random.Random(seed)
    networks = count_networks(space.tree)
    sample = _sample(space, networks, generator)
    costs = [space.cost(network) for network in sample.networks]
    parameters, macs = [c.parameters for c in costs], [c.macs for c in costs]
    least, most = space.extremes()
    of = "" if sample.complete else f" (of {len(costs):,} drawn)"
    lines = [_data_line(space), "", f"distinct networks   {networks:,}"]
    if space.constrained:
        lines.append(f"meet constraints    {_share(sample)}")
    lines.append(f"parameters          {least.parameters:,} to {most.parameters:,}")
    lines.append(f"MACs                {format_count(min(macs))} to {format_count(max(macs))}{of}")
    lines += ["", *_histogram("parameters", parameters), "", *_histogram("MACs", macs), ""]
    return "\n".join([*lines, _example(space, generator.choice(sample.networks)), "", _duration_line(space, sample)])


def _sample(space: SearchSpace, networks: int, generator: random.Random) -> Sample:
    if networks <= FEW:
        fitting = [network for network, _ in space.networks()]
        return Sample(fitting, len(fitting), networks, True)
    drawn = space.draw_descriptions(generator, FEW)
    fitting = [network for network in drawn if space.meets_constraints(network)]
    # If hardly any of the networks drawn blindly fit, some are shown that were drawn to fit.
    shown = fitting if len(fitting) >= FEW // 10 else [space.draw(generator)[0] for _ in range(FEW // 10)]
    return Sample(shown, len(fitting), FEW, False)


def _share(sample: Sample) -> str:
    if sample.complete:
        return f"{sample.fitting:,} of {sample.drawn:,}"
    return f"about {sample.fitting / sample.drawn:.1%} ({sample.fitting:,} of {sample.drawn:,} drawn)"


def _data_line(space: SearchSpace) -> str:
    data, (channels, height, width) = space.summary, space.input_shape
    sizes = f"{data.train_size:,} train, {data.validation_size:,} validation, {data.test_size:,} test"
    return f"{space.settings.data.name}: {channels}x{height}x{width} images, {data.num_classes} classes; {sizes}"


def _histogram(title: str, values: Sequence[int], rows: int = 8, width: int = 40) -> list[str]:
    """Return a line for each of some log-spaced intervals, with a bar for its share."""
    if len(set(values)) < 2:
        return []
    edges = np.geomspace(min(values), max(values), rows + 1)
    counts = np.histogram(np.log(values), np.log(edges))[0]
    lines = [f"{title:>19}"]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        bar = "█" * round(width * count / max(counts))
        lines.append(f"{format_count(low):>7} to {format_count(high):>7}  {bar} {count / len(values):.0%}")
    return lines


def _example(space: SearchSpace, architecture: Architecture) -> str:
    cost = space.cost(architecture)
    title = f"for example, {cost.parameters:,} parameters, {format_count(cost.macs)} MACs: {architecture}"
    return f"{title}\n\n{draw(architecture, space.input_shape)}\n\n{LEGEND}"


def _duration_line(space: SearchSpace, sample: Sample) -> str:
    recipe = space.settings.recipe
    trials = min(space.settings.search.trials, count_networks(space.tree))
    images = recipe.epochs * space.summary.train_size
    shape, classes, batch_size = space.input_shape, space.num_classes, recipe.batch_size
    rate = remembered_speed_for(sample.networks, shape, classes, batch_size).rate(recipe.precision)
    times = [training_seconds(network, shape, classes, images, batch_size, rate) for network in sample.networks]
    each, cores = float(np.mean(times)), count_cores()
    return (
        f"{trials} trials of {recipe.epochs} epochs: about {format_duration(trials * each / cores)} on the {cores} CPU "
        f"cores here, {format_duration(each)} each (a rough estimate; a GPU is faster)"
    )
