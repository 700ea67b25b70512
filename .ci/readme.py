"""Run every `bash` block of README.md, in order, as a reader would: in the folder above, one shell per block."""

import re
import subprocess
import sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
for block in re.findall(r"^```bash\n(.*?)^```", (root / "README.md").read_text(encoding="utf-8"), re.S | re.M):
    print(f"$ {block.strip()}", flush=True)
    if subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=root, check=False).returncode:
        sys.exit(f"this block of README.md failed: {block.strip()}")
