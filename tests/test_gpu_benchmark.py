"""benchmarks/gpu.py on a bare machine: it names its parts and the packages that they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

CODE = """
import sys
sys.path[:0] = [{root!r}, {root!r} + "/benchmarks"]
import gpu
needed, search = set(gpu.PACKAGES), set(gpu.SEARCH_PACKAGES)
absent = (search | {{"wandb", "thop", "optuna", "networkx", "msgspec", "PIL", "hypothesis"}}) - needed
sys.modules.update(dict.fromkeys(absent))  # an import of None is an ImportError
import gpu_parts
assert list(gpu_parts.PARTS) == list(gpu.SECONDS), list(gpu_parts.PARTS)
assert all(part in gpu.__doc__ for part in gpu.SECONDS)
print("imported without", *sorted(absent))
"""


def test_the_parts_import_without_what_only_a_search_needs() -> None:
    code = CODE.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("imported without") and "nni" in done.stdout and "moocore" in done.stdout
