"""The process that ends what Ray leaves behind kills Ray's own processes, and no one else's."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import ray

from dacnn_search.search.cluster.cleanup import _ray_processes, guarded


def test_the_folder_goes_and_a_user_who_looks_at_a_log_stays():
    with guarded() as folder:
        (folder / "raylet.log").write_text("a line\n")
        watcher = subprocess.Popen(["tail", "-f", folder / "raylet.log"], stdout=subprocess.DEVNULL)
        left = subprocess.Popen(
            ["bash", "-c", f"exec -a ray::IDLE tail -f {folder}/raylet.log"], stdout=subprocess.DEVNULL
        )
        while _ray_processes(str(folder)) != {left.pid}:
            time.sleep(0.05)
    assert not folder.exists()
    assert left.wait(timeout=10) != 0
    assert watcher.poll() is None
    watcher.terminate()
    watcher.wait()


def users_of(folder):
    """All processes with a file open in a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(file.readlink()).startswith(str(folder)) for file in (process / "fd").iterdir()):
                found.add(int(process.name))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_is_recognised_by_its_command_lines():
    """All that Ray starts; an upgrade may rename its programs."""
    handler = signal.getsignal(signal.SIGTERM)
    with guarded() as folder:
        ray.init(address="local", num_cpus=1, include_dashboard=False, _temp_dir=str(folder), log_to_driver=False)
        try:
            worker = ray.get(ray.remote(lambda: os.getpid()).remote())
            found = _ray_processes(str(folder))
            assert worker in found
            assert len(found) >= 3  # the GCS, the raylet, a worker and, by version, agents
            assert users_of(folder) - {os.getpid()} == found - {os.getpid()}
        finally:
            ray.shutdown()
            signal.signal(signal.SIGTERM, handler)
