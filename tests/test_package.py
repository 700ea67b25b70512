import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_wheel_has_the_console_script_types_and_all_files(tmp_path):
    pytest.importorskip("build")
    copied = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, copied.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            target = tmp_path / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist")]
    subprocess.run([*command, str(tmp_path / "source")], capture_output=True, check=True)
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        scripts = next(name for name in names if name.endswith("entry_points.txt"))
        assert "dacnn-search = dacnn_search.cli:main" in wheel.read(scripts).decode()
    source = tmp_path / "source"
    files = {path.relative_to(source).as_posix() for path in (source / "dacnn_search").rglob("*") if path.is_file()}
    assert files <= names
