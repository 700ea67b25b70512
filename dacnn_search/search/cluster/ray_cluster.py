"""Ray, quiet and lean: started on this machine or joined by address, and how many trials it holds at once."""

import contextlib
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

# Ray reads these when it is imported. What the user has set stays.
for _name, _value in {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # dacnn_search.common.interrupt has it
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the ledger has them
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial without an accuracy must not end the run
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # of each worker; by default it is as many as there are cores
    "MALLOC_ARENA_MAX": "2",  # workers that live long would grow without it
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402

from dacnn_search.common.errors import InputError  # noqa: E402
from dacnn_search.common.machine import count_cores, gpu_memory  # noqa: E402
from dacnn_search.search.cluster.cleanup import guarded  # noqa: E402
from dacnn_search.search.cluster.slots import Demand, Machine, Share, Slots, pack  # noqa: E402

__all__ = ["check_address", "early_ray", "one_ray", "start_ray"]

GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")  # there if the machine has a GPU
# Importing these takes a worker longer than all else. Told beforehand, it does so while the driver prepares the search.
PRELOADED = ("torch", "dacnn_search.search.trial_worker", "dacnn_search.search.cluster.worker")

_kept: contextlib.ExitStack | None = None  # what ends Ray, if that is not the `start_ray` that started it


@contextlib.contextmanager
def one_ray() -> Iterator[None]:
    """Let every `start_ray` within use the Ray that the first one starts; it ends with the outermost of these."""
    global _kept
    if _kept is not None:
        yield
        return
    with contextlib.ExitStack() as _kept:
        try:
            yield
        finally:
            _kept = None


def early_ray(address: str | None, concurrency: int | None, verbose: bool) -> None:
    """Start, within `one_ray`, what `start_ray` will need, so that its processes get ready meanwhile. Raises
    InputError if the cluster can't be reached."""
    assert _kept is not None
    check_address(address)
    _start(_kept, address, concurrency, verbose)


def check_address(address: str | None) -> None:
    """Raise InputError if nothing answers at a `host:port`: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise InputError(f"a Ray cluster must answer at {address}, but: {error}") from error


@contextlib.contextmanager
def start_ray(
    address: str | None = None,
    concurrency: int | None = None,
    gpus_per_trial: Share = None,
    verbose: bool = False,
    demand: Demand | None = None,
) -> Iterator[Slots]:
    """Ray for the time of the context: that at `address`, the one already running in this process, or a new one.

    concurrency, gpus_per_trial: by default what `packing.pack` makes of `demand`.
    Raises InputError if the cluster can't be reached or does not have what is asked for.
    """
    with contextlib.ExitStack() as stack:
        _start(_kept or stack, address, concurrency, verbose)
        yield pack(_machine(), demand, concurrency, gpus_per_trial)


def _start(to_end: contextlib.ExitStack, address: str | None, concurrency: int | None, verbose: bool) -> None:
    """Start or join Ray, unless that was done."""
    if not ray.is_initialized():
        folder = None if address else to_end.enter_context(guarded())
        _init(address, concurrency, folder, verbose)
        to_end.callback(ray.shutdown)


def _init(address: str | None, concurrency: int | None, folder: Path | None, verbose: bool) -> None:
    level = logging.INFO if verbose else logging.CRITICAL  # errors of trials are in the ledger, others are raised
    logging.getLogger("ray").setLevel(level)
    # A new cluster has a CPU per trial, so that more trials than cores can be asked for.
    cpus = None if address else max(concurrency or 0, count_cores())
    try:
        with warnings.catch_warnings(), _own_signals():
            warnings.simplefilter("default" if verbose else "ignore")
            ray.init(
                address=address or "local",
                num_cpus=cpus,
                include_dashboard=False if address is None else None,
                log_to_driver=verbose,
                logging_level=level,
                _temp_dir=folder and str(folder),
                _system_config={"preload_python_modules": PRELOADED} if _all_train(cpus, concurrency) else None,
            )
    except Exception as error:  # a bare one if its processes take too long to start
        raise InputError(f"a Ray cluster must answer at {address or 'this machine'}, but: {error}") from error


def _all_train(cpus: int | None, concurrency: int | None) -> bool:
    """Whether most of the worker processes of a new cluster, one per CPU, will train: only then they preload."""
    on_gpus = any(Path(device).exists() for device in GPU_DEVICES)
    return cpus is not None and not on_gpus and cpus <= 2 * (concurrency or cpus)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from handling SIGTERM, as it would from the start of its own start: the exit code would not be that of
    the signal, and nobody would hear of it."""
    replaced = ray._private.utils.set_sigterm_handler
    ray._private.utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = replaced


def _machine() -> Machine:
    """What the cluster has; its nodes are taken to be like this one."""
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
    nodes = max(1, sum(name.startswith("node:") and name != "node:__internal_head__" for name in resources))
    memory = ray._common.utils.get_system_memory() * nodes  # of the container where there is one
    return Machine(cpus, gpus, memory, gpu_memory() if gpus else 0)
