"""Detectors from what a user names: checkpoints, exported files, runs, architectures. `gpnas.load` is `load`.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpnas.cli.options import check_imgsz, resolved_device
from gpnas.cli.sources import for_classes, is_run, read_source, searched_imgsz
from gpnas.errors import InputError
from gpnas.export.metadata import RUNNABLE

if TYPE_CHECKING:
    from evaluators.predict import Detector
    from evaluators.training.checkpoint import DetectorCheckpoint
    from gpnas.export.metadata import FileFacts
    from gpnas.graph.network import Network
    from search_spaces.architecture import Architecture

_BEST = "best.pt"


def load(
    source: str | Path,
    *,
    imgsz: int | None = None,
    device: str = "auto",
) -> Detector:
    """The detector that `source` names, ready to use: a checkpoint, the folder of a training or of a search, an exported .onnx
    or .xml file, an architecture YAML, or a name of the catalogue.

        found = gpnas.load("best.pt")("photo.jpg")
        found.boxes, found.scores, found.classes

    imgsz: pixels (default: those of the training; 640 for an architecture). device: auto, cpu or cuda; exported files run on
    the CPU. The weights of an architecture are random, and a warning says so. Raises InputError.
    """
    import warnings

    detector = open_detector(source, imgsz, device)
    if detector.weights == RANDOM:
        warnings.warn(f"{source} has no weights: they are random, and so is what it finds", stacklevel=2)
    return detector


RANDOM = "random (seed 0)"
"""The description of weights that nobody trained."""


def open_detector(source: str | Path, imgsz: int | None = None, device: str = "auto") -> Detector:
    """`load`, without a warning for random weights."""
    if Path(source).suffix.lower() in RUNNABLE:
        return exported_detector(Path(source), imgsz, device)[0]
    loaded = open_network(str(source))
    size = loaded.imgsz if imgsz is None else imgsz
    check_imgsz(size)
    return torch_detector(loaded, size, device)


def exported_detector(path: Path, imgsz: int | None = None, device: str = "auto") -> tuple[Detector, FileFacts]:
    """The detector of an exported file, and what the file says about itself. Raises InputError as `load` does."""
    from evaluators.predict import Detector
    from gpnas.export.runtimes import open_exported

    if device not in ("auto", "cpu"):
        raise InputError(f"--device {device}: {path} runs on the CPU; leave out --device")
    file = open_exported(path)
    facts = file.facts
    if imgsz not in (None, facts.imgsz):
        raise InputError(
            f"--imgsz {imgsz}: {path} has {facts.imgsz} pixels; leave out --imgsz, or export it again at that size"
        )
    return Detector(facts.names, facts.imgsz, file.run, facts.nms, file.batch, facts.weights), facts


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in train form with its weights, and what belongs to them.

    names: of the classes. imgsz: of the training or the search, in pixels; 640 where neither is known. source: as the user
    named it. weights: a description; RANDOM where nobody trained them. split, data_digest: of the data of the training
    (DetectorCheckpoint); "" without one.
    """

    network: Network
    architecture: Architecture
    names: tuple[str, ...]
    imgsz: int
    source: str
    weights: str
    split: str = ""
    data_digest: str = ""

    @property
    def is_trained(self) -> bool:
        return self.weights != RANDOM


def torch_detector(loaded: LoadedNetwork, imgsz: int, device: str = "auto") -> Detector:
    """A detector that torch computes, at `imgsz` pixels, fused. Raises InputError for an image size that a stride does not
    divide."""
    import torch

    from evaluators.judge import check_network
    from evaluators.predict import Detector
    from gpnas.export.decoding import DecodedNetwork

    check_network(loaded.network.graph, len(loaded.names), imgsz)
    place = torch.device(resolved_device(device))
    module = DecodedNetwork(loaded.network.fused(), len(loaded.names), imgsz).to(place)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(images):  # type: ignore[no-untyped-def]  # NDArray -> NDArray, whose names would load numpy
        with torch.no_grad():
            batch = torch.from_numpy(images).to(place, memory_format=torch.channels_last)
            return module(batch).float().cpu().numpy()

    return Detector(loaded.names, imgsz, run, weights=loaded.weights)


def open_network(source: str, classes: int | None = None) -> LoadedNetwork:
    """The network that `source` names, with its weights: those of a checkpoint, or random ones for an architecture.

    classes: give an architecture a head for this many. Raises InputError, also for the classes of a checkpoint, which are
    fixed.
    """
    from evaluators.training.loop import new_network
    from search_spaces.architecture import candidate, classes_of

    file = checkpoint_of(source)
    if file is not None:
        loaded = open_checkpoint(file)
        if classes not in (None, len(loaded[1].names)):
            raise InputError(f"--classes {classes}: {file} was trained for {len(loaded[1].names)}; give an architecture YAML")
        return _of_checkpoint(source, file, *loaded)
    architecture = read_source(source)
    imgsz = searched_imgsz(architecture)
    count = classes_of(architecture) if classes is None else classes
    architecture = for_classes(architecture, count, stderr=True)
    return LoadedNetwork(
        network=new_network(candidate(architecture).graph, count, imgsz, seed=0),
        architecture=architecture,
        names=names_of(architecture, count),
        imgsz=imgsz,
        source=source,
        weights=RANDOM,
    )


def names_of(architecture: Architecture, classes: int) -> tuple[str, ...]:
    """The names of the classes that a search wrote into its YAML; class0, class1, ... where there are none."""
    found = (architecture.found or {}).get("names", ())
    return tuple(map(str, found)) if len(found) == classes else tuple(f"class{i}" for i in range(classes))


def checkpoint_of(source: str) -> Path | None:
    """The checkpoint that `source` names: the file, or best.pt of the folder of a training, or of the training in a run's
    folder (`--then-train`). None for an architecture."""
    path = Path(source)
    if path.is_dir():
        best = path / "train" / _BEST if is_run(path) else path / _BEST
        return best if best.is_file() else None
    if path.suffix.lower() == ".pt":
        return path
    try:
        with path.open("rb") as file:
            return path if file.read(4) == b"PK\x03\x04" else None  # torch writes zip archives
    except OSError:
        return None


def open_checkpoint(path: Path) -> tuple[Network, DetectorCheckpoint, Architecture]:
    """The network of a checkpoint with its weights, the checkpoint, and its architecture. Raises InputError."""
    from evaluators.training.checkpoint import load_detector, load_weights
    from gpnas.graph.network import Network
    from search_spaces.architecture import candidate, read_architecture

    detector = load_detector(path)
    architecture = read_architecture(detector.genotype, str(path))
    network = Network(candidate(architecture).graph)
    load_weights(network, detector.weights, path)
    return network, detector, architecture


def _of_checkpoint(
    source: str, file: Path, network: Network, detector: DetectorCheckpoint, architecture: Architecture
) -> LoadedNetwork:
    ap = f", AP {detector.metrics['ap']:.3f} on val" if "ap" in detector.metrics else ""
    weights = f"{file.name}, epoch {detector.epoch}{ap}"
    return LoadedNetwork(
        network, architecture, detector.names, detector.imgsz, source, weights, detector.split, detector.data_digest
    )
