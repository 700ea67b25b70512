"""Preview a search space as text: `python -m dacnn_search.space search_spaces/default.yaml`."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np

from dacnn_search.common.command import PATH, command
from dacnn_search.common.machine import count_cores
from dacnn_search.common.units import format_bytes, format_count, format_duration
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import UNITS, Cost, training_seconds
from dacnn_search.network.drawing import LEGEND, draw
from dacnn_search.space.count import count_networks
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings
from dacnn_search.training.speed import speed_for

FEW = 2_000  # spaces up to this size are listed in full, larger ones are sampled
SHOWN: tuple[tuple[str, str, Callable[[int], str]], ...] = (  # of the costs: name, title, how a value is written
    ("parameters", "parameters", "{:,}".format),
    ("macs", "MACs", format_count),
    ("flash", "flash (int8 C)", format_bytes),
    ("ram", "RAM (int8 C)", format_bytes),
)


@command()
@click.argument("space", type=PATH, required=False)
@click.option("--seed", type=int, default=0, help="seed of the networks drawn")
@click.option("--schema", is_flag=True, help="print the JSON Schema of search spaces for editors")
def main(space: Path | None, seed: int, schema: bool) -> None:
    """Check the search space in the YAML file SPACE, such as search_spaces/default.yaml, and show what it holds.

    Nothing is trained.
    """
    if schema:
        print(json.dumps(SpaceSettings.model_json_schema(), indent=2))
    elif space is None:
        raise click.UsageError("a YAML file is needed, such as search_spaces/default.yaml")
    else:
        print(preview(SearchSpace.from_yaml(space), seed))


def preview(space: SearchSpace, seed: int = 0) -> str:
    """Describe a search space in text. `seed` draws the networks of spaces too large to list."""
    generator = random.Random(seed)
    number = count_networks(space.tree)
    networks, share = _sample(space, number, generator)
    costs = [space.cost(network) for network in networks]
    objective = space.settings.search.objective
    sizes, macs = [getattr(cost, objective) for cost in costs], [cost.macs for cost in costs]
    lines = [_data_line(space), "", f"distinct networks   {number:,}"]
    if space.constrained:
        lines.append(f"meet constraints    {share}")
    lines += _ranges(space, costs, "" if number <= FEW else f" (of {len(costs):,} drawn)")
    lines += ["", *_histogram(UNITS[objective], sizes), "", *_histogram("MACs", macs), ""]
    example = generator.choice(networks).canonical()
    cost = space.cost(example)
    told = f"{cost.parameters:,} parameters, {format_count(cost.macs)} MACs, {format_bytes(cost.flash)} of flash"
    lines += [f"for example, {told}, {format_bytes(cost.ram)} of RAM: {example}", ""]
    lines += [draw(example, space.input_shape), "", LEGEND, "", _duration_line(space, networks, number)]
    return "\n".join(lines)


def _sample(space: SearchSpace, number: int, generator: random.Random) -> tuple[list[Architecture], str]:
    """Return networks that meet the constraints, and as text the share of the space that does."""
    if number <= FEW:
        fitting = [network for network, _ in space.networks()]
        return fitting, f"{len(fitting):,} of {number:,}"
    tree = space.tree
    weights = [tree.count_descriptions(frame) for frame, _ in tree.frames]
    drawn = (choices for _, choices in generator.choices(tree.frames, weights, k=FEW))  # each description alike
    networks = (tree.complete(choices, lambda options: generator.choice(options.values)) for choices in drawn)
    fitting = [network for network in networks if space.meets_constraints(network)]
    share = f"about {len(fitting) / FEW:.1%} ({len(fitting):,} of {FEW:,} drawn)"
    if len(fitting) < FEW // 10:  # hardly any that were drawn blindly: show some that were drawn to fit
        fitting = [space.draw(generator)[0] for _ in range(FEW // 10)]
    return fitting, share


def _data_line(space: SearchSpace) -> str:
    data, (channels, height, width) = space.summary, space.input_shape
    sizes = f"{data.train_size:,} train, {data.validation_size:,} validation, {data.test_size:,} test"
    return f"{space.settings.data.name}: {channels}x{height}x{width} images, {data.num_classes} classes; {sizes}"


def _ranges(space: SearchSpace, costs: Sequence[Cost], of: str) -> Iterator[str]:
    """Yield a line for the range of each cost in the space. If limits on others may lower its end, that is the largest
    among the `costs` of some networks; `of` says of how many, nothing if they are all."""
    for name, title, shown in SHOWN:
        least, most = space.extremes(name)
        lowered = space.constrained and getattr(space.settings.constraints, name) is None
        if lowered or not of:
            most = max(getattr(cost, name) for cost in costs)
        yield f"{title:<20}{shown(least)} to {shown(most)}{of if lowered else ''}"


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


def _duration_line(space: SearchSpace, networks: Sequence[Architecture], number: int) -> str:
    recipe = space.settings.recipe
    trials = min(space.settings.search.trials, number)
    images = recipe.epochs * space.summary.train_size
    shape, classes, batch_size = space.input_shape, space.num_classes, recipe.batch_size
    rate = speed_for(networks, shape, classes, batch_size, remembered=True).rate(recipe.precision)
    times = [training_seconds(network, shape, classes, images, batch_size, rate) for network in networks]
    each, cores = float(np.mean(times)), count_cores()
    length = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    return (
        f"{trials} trials of {length}: about {format_duration(trials * each / cores)} on the {cores} CPU cores here, "
        f"{format_duration(each)} each (a rough estimate; a GPU is faster)"
    )


if __name__ == "__main__":
    main()
