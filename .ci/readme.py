"""Run every `bash` and `python` block of README.md, in order, as a reader would: in the folder above."""

import re
import subprocess
import sys
from pathlib import Path

SHELLS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": ["python", "-c"]}

root = Path(__file__).resolve().parents[1]
blocks = re.findall(r"^```(bash|python)\n(.*?)^```", (root / "README.md").read_text(encoding="utf-8"), re.S | re.M)
for language, block in blocks:
    print(f"--- {language}\n{block.rstrip()}\n---", flush=True)
    if subprocess.run([*SHELLS[language], block], cwd=root, check=False).returncode:
        sys.exit(f"this block of README.md failed:\n{block}")
