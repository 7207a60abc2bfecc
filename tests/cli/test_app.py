"""The command line as a whole."""

import subprocess
import sys

import pytest
import yaml


def test_help_lists_the_commands(gpnas):
    code, out, _ = gpnas("--help")
    assert code == 0
    for command in ("search", "resume", "show", "report", "export", "analyze", "catalogue", "bench", "train", "val", "predict"):
        assert command in out


def test_help_loads_nothing_heavy():
    heavy = "torch numpy nni wandb cv2 sklearn pycocotools pydantic moocore"
    script = f"import sys, gpnas.cli; sys.exit(' '.join(m for m in '{heavy}'.split() if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"loaded: {done.stderr}"


@pytest.mark.parametrize("command", ["train", "analyze", "export"])
def test_an_architecture_with_a_bad_key_or_ratio(refused, architecture, command):
    document = yaml.safe_load(architecture.read_text())
    document["backbone"][2] |= {"split_ratio": 1.5}
    architecture.write_text(yaml.safe_dump(document))
    assert "split_ratio must lie in (0, 1], got 1.5 in backbone[2]" in refused(command, architecture)
    document["backbone"][2] |= {"split_ratio": 0.5, "colour": "red"}
    architecture.write_text(yaml.safe_dump(document))
    assert "unknown key 'colour' in backbone[2]" in refused(command, architecture)
