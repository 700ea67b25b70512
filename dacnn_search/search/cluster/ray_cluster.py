"""Start Ray on this machine or join a cluster, for the time of a job. Only this file uses private parts of Ray."""

import contextlib
import functools
import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dacnn_search.common.errors import InputError
from dacnn_search.common.machine import count_cores, gpu_memory
from dacnn_search.search.cluster.cleanup import guarded
from dacnn_search.search.cluster.slots import Demand, Machine, Resources, Slots, pack
from dacnn_search.training.memory import WORKER_ENVIRONMENT

# For Ray and its worker processes. What the user has set stays.
ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # per worker; torch's default is one per core
    **WORKER_ENVIRONMENT,
}
# Importing these is most of a worker's start. Preloaded, it overlaps with what the driver does meanwhile.
PRELOADED = ("torch", "dacnn_search.search.tune", "dacnn_search.search.cluster.worker")
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")  # they exist if the machine has a GPU


class RaySession(contextlib.ExitStack):
    """Ray for one job: the cluster at an address, the one already running in this process, or a new one.

    Ray is started when it is first needed. Raises InputError if nothing answers at the address.
    """

    def __init__(self, resources: Resources | None = None) -> None:
        super().__init__()
        self.resources = resources or Resources()
        host, _, port = (self.resources.address or "").rpartition(":")
        if host and port.isdigit() and "/" not in host:
            try:  # Ray itself would try for minutes
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            except (OSError, OverflowError) as error:
                rule = f"a Ray cluster must answer at {self.resources.address}"
                raise InputError(f"{rule}, but: {error}") from error

    def start(self) -> None:
        """Start or join Ray unless this process has it. Raises InputError if the cluster can't be reached."""
        if ray.is_initialized():
            return
        self.enter_context(default_environment(ENVIRONMENT))
        address, verbose = self.resources.address, self.resources.verbose
        folder = None if address else str(self.enter_context(guarded()))
        level = logging.INFO if verbose else logging.CRITICAL  # errors of trials are in the ledger, others are raised
        logging.getLogger("ray").setLevel(level)
        # A new cluster has a CPU per trial, so that more trials than cores can be asked for. Its worker processes, one
        # per CPU, preload what trainings need if most of them will train.
        concurrency = self.resources.concurrency
        cpus = None if address else max(concurrency or 0, count_cores())
        on_gpus = any(Path(device).exists() for device in GPU_DEVICES)
        preload = cpus is not None and not on_gpus and cpus <= 2 * (concurrency or cpus)
        try:
            with warnings.catch_warnings(), _own_signals():
                warnings.simplefilter("default" if verbose else "ignore")
                ray.init(
                    address=address or "local",
                    num_cpus=cpus,
                    include_dashboard=False if address is None else None,
                    log_to_driver=verbose,
                    logging_level=level,
                    # Workers of a new cluster inherit the environment of this process.
                    runtime_env={"env_vars": {name: os.environ[name] for name in ENVIRONMENT}} if address else None,
                    _temp_dir=folder,
                    _system_config={"preload_python_modules": PRELOADED} if preload else None,
                )
        except Exception as error:  # a bare one if its processes take too long to start
            rule = f"a Ray cluster must answer at {address}" if address else "Ray must start on this machine"
            raise InputError(f"{rule}, but: {error}") from error
        self.callback(ray.shutdown)

    def slots(self, demand: Demand) -> Slots:
        """Return what `slots.pack` does. Raises InputError for an unreachable cluster or more than it has."""
        self.start()
        return pack(self._machine, demand, self.resources.concurrency, self.resources.gpus_per_trial)

    def share(self, value: Any) -> Any:
        """Put a value into Ray's memory, from which tasks get it as an argument, once per node."""
        self.start()
        return ray.put(value)

    @functools.cached_property
    def _machine(self) -> Machine:
        """The resources of the cluster; its nodes are taken to have the memory of this one."""
        available = ray.cluster_resources()
        gpus = available.get("GPU", 0.0)
        nodes = max(1, sum(name.startswith("node:") and name != "node:__internal_head__" for name in available))
        memory = ray._common.utils.get_system_memory() * nodes  # of the container if there is one
        return Machine(available.get("CPU", 1.0), gpus, memory, least_gpu_memory() if gpus else 0)


def least_gpu_memory(measure: Callable[[], int] = gpu_memory) -> int:
    """Return the bytes of memory of the cluster's smallest GPU, 0 if no node tells; the driver's node may have none."""
    task = ray.remote(num_cpus=0)(measure)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    answers = ray.get([task.options(scheduling_strategy=place).remote() for place in places])
    return min(filter(None, answers), default=0)


@contextlib.contextmanager
def default_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, for the time of the context. What Ray sets meanwhile ends as well."""
    before = set(os.environ)
    os.environ.update({name: value for name, value in values.items() if name not in before})
    try:
        yield
    finally:
        for name in os.environ.keys() - before:
            if name in values or name.startswith(("RAY_", "PYTHONBREAKPOINT")):
                del os.environ[name]


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from handling SIGTERM: its handler would change the exit code, and no one would learn of the signal."""
    replaced = ray._private.utils.set_sigterm_handler
    ray._private.utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = replaced
