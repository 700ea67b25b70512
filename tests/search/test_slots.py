"""How many trainings run at once, for invented machines."""

import math
import os

import pytest

from dacnn_search.common.errors import InputError
from dacnn_search.common.machine import count_cores
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import count_parameters
from dacnn_search.search.cluster.slots import CPU_USABLE, USABLE, Demand, Machine, Slots, demand_of, most_excess, pack
from dacnn_search.training.memory import GIB, GPU_PROCESS_BYTES, GPU_WORKSPACE_BYTES, step_bytes
from dacnn_search.training.recipe import Recipe

SMALL = Demand(trainings=50, bytes=10 * 2**20, step_macs=5e7, layers=9)
LARGE = Demand(trainings=50, bytes=30 * GIB, step_macs=2e11, layers=18)
SERVER = Machine(cpus=8, gpus=0, memory=64 * GIB)
H200 = Machine(cpus=16, gpus=1, memory=128 * GIB, gpu_memory=140 * GIB)


def test_small_networks_have_a_core_each():
    assert pack(SERVER, SMALL) == Slots(8, 1.0, 0.0, threads=1)


def test_large_networks_share_the_cores_that_memory_leaves_idle():
    slots = pack(SERVER, LARGE)
    assert slots.concurrency * LARGE.bytes <= CPU_USABLE * SERVER.memory
    assert slots == Slots(1, 8.0, 0.0, threads=8)


def test_a_single_large_training_has_all_cores_and_a_small_one_a_single_core():
    assert pack(SERVER, Demand(1, 2**20, 1e11, 18)).threads == 8
    assert pack(SERVER, Demand(1, 2**20, 1e7, 18)).threads == 1
    assert pack(SERVER, Demand(3, 2**20, 1e11, 18)) == Slots(3, 2.0, 0.0, threads=2)


@pytest.mark.parametrize("demand", [SMALL, LARGE])
def test_what_is_asked_for_is_kept(demand):
    assert pack(SERVER, demand, 5).concurrency == 5
    assert pack(SERVER, demand, 20).cpus_per_trial == 8 / 20
    assert pack(H200, demand, None, 0.5) == Slots(2, 1.0, 0.5)
    assert pack(H200, demand, 3, 0.25) == Slots(3, 1.0, 0.25)


def test_more_than_there_is_can_not_be_asked_for():
    with pytest.raises(InputError, match=r"at most the 1 of the cluster, but is 2"):
        pack(H200, SMALL, None, 2)
    with pytest.raises(InputError, match=r"at most the 2 trials that the 1 GPUs .* 0\.5 GPUs per trial, but is 3"):
        pack(H200, SMALL, 3, 0.5)
    with pytest.raises(InputError, match=r"whole number or below 1, but is 1\.5"):
        pack(Machine(16, 2, 128 * GIB, 140 * GIB), SMALL, None, 1.5)
    with pytest.raises(InputError, match=r"at most the 0 of the cluster, but is 0\.5"):
        pack(SERVER, SMALL, None, 0.5)


@pytest.mark.parametrize("gibibytes", [8, 16, 24, 80, 140])
@pytest.mark.parametrize("needed", [1, 3, 10, 30, 200])
def test_a_gpu_holds_as_many_of_the_largest_as_are_packed_on_it(gibibytes, needed):
    machine = Machine(16, 2, 128 * GIB, gibibytes * GIB)
    slots = pack(machine, Demand(200, needed * GIB, 1e8, 18))
    per_gpu = round(1 / slots.gpus_per_trial)
    assert slots.concurrency == 2 * per_gpu
    assert per_gpu == 1 or per_gpu * (needed * GIB + GPU_PROCESS_BYTES) <= USABLE * machine.gpu_memory


def test_packing_follows_compute_and_cores():
    small = round(1 / pack(H200, SMALL).gpus_per_trial)
    medium = round(1 / pack(H200, Demand(50, GIB, 6e10, 18)).gpus_per_trial)
    large = round(1 / pack(H200, Demand(50, GIB, 2e12, 18)).gpus_per_trial)
    assert small == 16 > medium > large == 2
    assert round(1 / pack(Machine(4, 1, 16 * GIB, 140 * GIB), SMALL).gpus_per_trial) == 4


@pytest.mark.parametrize("per_gpu", range(1, 17))
@pytest.mark.parametrize("gpus", [1, 3, 8])
def test_as_many_trainings_as_a_gpu_holds_by_rays_count_in_ten_thousandths(per_gpu, gpus):
    machine = Machine(per_gpu * gpus, gpus, 128 * GIB, gpu_memory=140 * GIB)
    slots = pack(machine, SMALL)
    assert slots.concurrency == min(math.ceil(50 / gpus), per_gpu) * gpus
    assert math.ceil(1e4 * slots.gpus_per_trial - 1e-6) * (slots.concurrency // gpus) <= 10_000


def test_a_share_of_a_gpu_is_of_one_gpu():
    assert pack(Machine(16, 2, 128 * GIB, 140 * GIB), SMALL, None, 0.4).concurrency == 4  # not the 5 of 2 / 0.4
    assert pack(Machine(16, 4, 128 * GIB, 140 * GIB), SMALL, None, 2).concurrency == 2


def test_few_trainings_have_larger_shares():
    assert pack(H200, SMALL, 1).gpus_per_trial == 1
    assert pack(H200, SMALL, 3).gpus_per_trial == 0.3333
    assert pack(H200, Demand(2, 10 * 2**20, 5e7, 9)).gpus_per_trial == 0.5
    assert pack(H200, Demand(2, 10 * 2**20, 5e7, 9), 8).concurrency == 8  # the end of a run begun with that many


def test_memory_of_a_machine_is_for_those_that_run_at_once():
    assert pack(SERVER, SMALL).memory == pack(SERVER, SMALL, 8).memory == 8 * GIB
    assert pack(SERVER, Demand(2, 2**20, 1e7, 18), 8).memory == 32 * GIB


def test_data_on_the_gpu_count_unless_they_are_too_large_for_it():
    def per_gpu(data_bytes):
        demand = Demand(50, 9 * GIB, 5e7, 9, data_bytes)  # 10 GiB a process: 12 of them
        return round(1 / pack(H200, demand).gpus_per_trial)

    assert [per_gpu(0), per_gpu(2 * GIB), per_gpu(1000 * GIB)] == [12, 10, 9]


def test_without_knowledge_four_share_a_gpu():
    assert pack(Machine(16, 2, 128 * GIB, gpu_memory=0), SMALL) == Slots(8, 1.0, 0.25)


def test_demand_is_that_of_the_largest_and_corrected_by_what_trials_took():
    small, large = Architecture((Section(2, 8),)), Architecture((Section(6, 32),))
    recipe = Recipe()
    small_estimate, estimate = (step_bytes(n, (1, 8, 8), 10, recipe) for n in (small, large))
    demand = demand_of([small, large, small], (1, 8, 8), 10, recipe)
    assert (demand.trainings, demand.bytes) == (3, estimate)
    taken = [
        {"architecture": small.to_dict(), "peak_bytes": GPU_WORKSPACE_BYTES + 2 * small_estimate},
        {"architecture": large.to_dict(), "peak_bytes": GPU_WORKSPACE_BYTES + estimate // 2},
        {"architecture": large.to_dict(), "peak_bytes": None},
    ]
    factor = most_excess(taken, (1, 8, 8), 10, recipe)
    assert factor == 2
    assert demand_of([large], (1, 8, 8), 10, recipe, factor=factor).bytes == 2 * estimate


def test_optimisers_that_keep_less_need_less():
    network = Architecture((Section(6, 32),))
    recipes = (Recipe(optimizer=optimizer, learning_rate=0.1) for optimizer in ("sgd", "adamw"))
    sgd, adamw = (demand_of([network], (1, 8, 8), 10, recipe).bytes for recipe in recipes)
    assert adamw - sgd == 4 * count_parameters(network, 1, 10)


def test_cores_are_those_that_the_process_may_use(tmp_path, monkeypatch):
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(pinned)})
    try:
        assert count_cores() == 1
    finally:
        os.sched_setaffinity(0, pinned)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    for quota, cores in (("max 100000", 64), ("250000 100000", 3), ("50000 100000", 1), ("no number", 64)):
        (tmp_path / "cpu.max").write_text(quota)
        monkeypatch.setattr("dacnn_search.common.machine.CPU_QUOTA", tmp_path / "cpu.max")
        assert count_cores() == cores
    monkeypatch.setattr("dacnn_search.common.machine.CPU_QUOTA", tmp_path / "none")
    assert count_cores() == 64
