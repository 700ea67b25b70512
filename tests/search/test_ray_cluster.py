"""A Ray cluster of two nodes on one machine: both train, and one may die."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faulty import SPACE, records_in, running, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HEAD = """
import os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=int(os.environ.get("CPUS", "1")))
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Address of two raylets, of one CPU and of $CPUS (1); a line to its input kills the second."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    address = process.stdout.readline().strip()
    assert address, "the cluster did not come up"
    yield address, process
    process.stdin.close()
    process.wait(timeout=120)
    process.stdout.close()


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    (tmp_path / "space.yaml").write_text(SPACE.replace("epochs: 2", "epochs: 30"), encoding="utf-8")
    return ["--space", tmp_path / "space.yaml", "--results", tmp_path / "results"]


def processes_of(records: list[dict]) -> set[str]:
    return {record["worker"] for record in records}


def test_both_nodes_train_into_one_run_directory(cluster, arguments, tmp_path):
    address, _ = cluster
    with running(*arguments, "--trials", 10, "--address", address) as run:
        code, output = run.end()
    assert code == 0, output
    records = records_in(tmp_path / "results" / "small")
    assert [r["state"] for r in records] == ["COMPLETE"] * 10
    assert len(processes_of(records)) >= 2  # a node has one CPU, so they are on two nodes


def test_a_node_that_dies_costs_only_time(cluster, arguments, tmp_path):
    address, process = cluster
    folder = tmp_path / "results" / "small"
    with running(*arguments, "--trials", 14, "--address", address) as run:
        wait_until(lambda: len(processes_of(records_in(folder))) >= 2, run)
        process.stdin.write("kill\n")
        process.stdin.flush()
        assert process.stdout.readline() == "removed\n"
        code, output = run.end()
    assert code == 0, output
    records = records_in(folder)
    assert sorted(r["trial"] for r in records) == list(range(14))
    assert {r["state"] for r in records} == {"COMPLETE"}


LOOK = """
import os
if "RAY_RAYLET_PID" in os.environ:
    import pathlib
    import dacnn_search.search.tune as worker
    begin = worker.TrialWorker._start_training
    def look(self):
        address = self._images.train.images.ctypes.data
        for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            if first <= address < last:
                _, _, start, _, inode, name = line.split(maxsplit=5)
                place = f"{{inode}} {{int(start, 16) + address - first}} {{name.split('/')[1:2]}}"
                pathlib.Path({folder!r}, str(os.getpid())).write_text(place)
        return begin(self)
    worker.TrialWorker._start_training = look
"""


@pytest.fixture
def looked(tmp_path, monkeypatch) -> Path:
    """A folder in which each worker of the cluster notes where in memory its images are."""
    (tmp_path / "looked").mkdir()
    (tmp_path / "patched").mkdir()
    code = LOOK.format(folder=str(tmp_path / "looked"))
    (tmp_path / "patched" / "sitecustomize.py").write_text(code, encoding="utf-8")
    paths = [str(tmp_path / "patched"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("CPUS", "2")
    return tmp_path / "looked"


def test_images_reach_each_node_once(looked, cluster, arguments, tmp_path):
    """Workers of one node see the same place in shared memory, and there is one such place per node."""
    address, _ = cluster
    images = np.random.default_rng(0).integers(256, size=(600, 16, 16, 3)).astype(np.uint8)
    np.savez(tmp_path / "own.npz", train_images=images, train_labels=np.arange(600) % 2)
    text = (tmp_path / "space.yaml").read_text()
    text = re.sub("data: .*", f"data: {{name: npz, root: {tmp_path / 'own.npz'}}}", text)
    (tmp_path / "space.yaml").write_text(text.replace("epochs: 30", "epochs: 5"), encoding="utf-8")
    with running(*arguments, "--trials", 12, "--address", address) as run:
        code, output = run.end()
    assert code == 0, output
    assert len(records_in(tmp_path / "results" / "small")) == 12
    places = [path.read_text() for path in looked.iterdir()]
    assert len(places) >= 3  # workers: one node has one CPU, the other two
    assert len(set(places)) == 2
    assert len({place.split()[0] for place in places}) == 2  # files in memory, one per node
    assert all("dev" in place for place in places)


def test_a_cluster_that_does_not_answer_is_told(arguments, tmp_path):
    with running(*arguments, "--address", "127.0.0.1:1") as run:
        code, output = run.end()
    assert code == 2, output
    assert "a Ray cluster must answer at 127.0.0.1:1" in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


def test_the_driver_does_without_torch():
    """What it gives workers, it gives them as arrays; importing torch would delay the first trial."""
    code = """
import sys
import numpy as np
from dacnn_search.search.cluster.ray_cluster import RaySession
from dacnn_search.search.cluster.slots import Resources
import dacnn_search.search.retrain, dacnn_search.search.search
import ray
with RaySession(Resources(concurrency=1)) as session:
    session.start()
    ray.put(np.zeros(3))
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "False"
