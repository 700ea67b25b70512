"""Fix the precision of all trainings of a run: measured once, by a worker, and kept in `environment.json`."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import ray

from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import InputShape, training_seconds
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.speed import Speed

__all__ = ["expected_seconds", "fix_run_precision"]


def fix_run_precision(
    run: RunDirectory, recipe: Recipe, networks: Sequence[Architecture], slots: Slots
) -> Callable[[], Recipe]:
    """Return a function that returns a recipe with its precision `auto` replaced by the run's.

    If the run has none, a worker begins to measure it on `networks` or their like, and the function waits for the
    answer; `environment.json` gets `precision` and, on a CPU, `speed`. Where it can't be measured, as workers die, the
    recipe stays as it is, and each worker measures for itself.
    """
    environment = run.environment
    precision = environment.get("precision") if recipe.precision == "auto" else recipe.precision
    if precision in ("float32", "bfloat16"):
        return lambda: recipe.model_copy(update={"precision": precision})
    task = ray.remote(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0)
    shape, classes = tuple(environment["data"]["input_shape"]), environment["data"]["num_classes"]
    answer = task(_measure_precision).remote(networks, shape, classes, recipe, slots)

    def fixed() -> Recipe:
        try:
            measured = ray.get(answer)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError:  # its worker died
            return recipe
        run.set_environment(**measured)
        return recipe.model_copy(update={"precision": measured["precision"]})

    return fixed


def _measure_precision(
    networks: Sequence[Architecture], input_shape: InputShape, num_classes: int, recipe: Recipe, slots: Slots
) -> dict[str, Any]:
    """Return what `environment.json` says of the device of this worker: `precision` and the `speed` of a CPU."""
    from dacnn_search.training.device_data import pick_device
    from dacnn_search.training.speed import choose_precision, speed_for

    if slots.gpus_per_trial:
        precision = choose_precision(recipe, networks, input_shape, num_classes, pick_device())
        return {"precision": precision, "speed": None}
    speed = speed_for(networks, input_shape, num_classes, recipe.batch_size)
    return {"precision": speed.precision, "speed": speed.model_dump()}


def expected_seconds(
    run: RunDirectory, space: SearchSpace, precision: str, networks: Sequence[Architecture]
) -> float | None:
    """Return what a trial takes on one CPU thread by the speed that was measured; None if it was not."""
    measured = run.environment.get("speed")
    if not measured:
        return None
    recipe = space.settings.recipe
    rate, images = Speed.model_validate(measured).rate(precision), recipe.epochs * space.summary.train_size
    shape, classes = space.input_shape, space.num_classes
    return fmean(training_seconds(n, shape, classes, images, recipe.batch_size, rate) for n in networks)
