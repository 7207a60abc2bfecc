"""A checkpoint as gpnas train writes it, without a training."""

from __future__ import annotations

from pathlib import Path

from evaluators.detector.head import initialise_head
from evaluators.training.checkpoint import save_checkpoint
from search_spaces.architecture import candidate, classes_of, read_architecture
from tests.export.detectors import live_network


def write_checkpoint(path: Path, genotype: str, imgsz: int = 64) -> Path:
    """Random weights, whose normalisations saw random images, under the names cell0, cell1, ..."""
    architecture = read_architecture(genotype)
    network = live_network(candidate(architecture).graph, imgsz)
    initialise_head(network, classes_of(architecture), imgsz)  # boxes of a few cells, which do not all suppress each other
    content = {
        "genotype": genotype,
        "names": [f"cell{i}" for i in range(classes_of(architecture))],
        "ema": {key: value.clone() for key, value in network.state_dict().items()},
        "recipe": {"imgsz": imgsz},
        "epoch": 7,
        "metrics": {"ap": 0.25},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, content)
    return path
