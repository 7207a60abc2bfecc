"""TODO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from evaluators.data.augment import plain_batches
from evaluators.data.bank import ImageBank, load_bank
from evaluators.data.records import DetectionData, Record
from evaluators.detector.ap import CocoEvaluation, coco_evaluation
from evaluators.detector.head import check_head, decode, detections
from evaluators.device import autocast, pick_device
from gpnas.errors import InputError
from gpnas.graph.graph import Branch, Graph
from gpnas.graph.network import Network

_EVALUATION_BATCH = 32


class Split(NamedTuple):
    """Records, by which detections are judged, and their images."""

    records: Sequence[Record]
    bank: ImageBank


def load_split(records: Sequence[Record], imgsz: int, device: str | torch.device = "cpu") -> Split:
    return Split(records, load_bank(records, imgsz, device))


@torch.no_grad()
def detect(network: Network, split: Split, classes: int, *, precision: str = "auto") -> list[NDArray[np.float64]]:
    """What a network, in its fused form, finds in a split that lies on its device: one (n, 6) array for each image: x1, y1, x2,
    y2 in original pixels, score, class; the best first, at most 100, as COCO looks at no more."""
    fused = network if network.is_fused else network.fused()
    fused.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    bank, device = split.bank, split.bank.pixels.device
    strides = [out.stride for out in fused.graph.outputs if out.branch == Branch.MAIN]
    sizes, scales = bank.sizes.tolist(), bank.scales.double().tolist()
    found: list[NDArray[np.float64]] = []
    for images, part in plain_batches(bank, _EVALUATION_BATCH):
        with autocast(device, precision):
            outputs = fused(images)
        boxes, scores = decode(outputs, strides, classes)
        found += detections(boxes, scores, sizes[part], most=100)
    for rows, scale, record in zip(found, scales, split.records, strict=True):
        rows[:, :4] = np.clip(rows[:, :4] / scale, 0, [record.width, record.height] * 2)
    return found


def judge(
    network: Network, split: Split, names: Sequence[str], *, precision: str = "auto"
) -> tuple[CocoEvaluation, list[NDArray[np.float64]]]:
    """What COCOeval says of the detections of `network` on `split`, and the detections."""
    found = detect(network, split, len(names), precision=precision)
    return coco_evaluation(split.records, names, found), found


def evaluate(
    network: Network, split: Split, names: Sequence[str], *, precision: str = "auto"
) -> tuple[dict[str, float], list[NDArray[np.float64]]]:
    """The metrics of `judge`, and the detections."""
    judgement, found = judge(network, split, names, precision=precision)
    return judgement.metrics, found


def validate(
    network: Network, data: DetectionData, split: str, imgsz: int, *, device: str = "auto", precision: str = "auto"
) -> tuple[CocoEvaluation, list[NDArray[np.float64]]]:
    """`judge` of `network` on a split of `data`, at `imgsz` pixels."""
    place = pick_device(device)
    _check_input(network.graph, len(data.names), imgsz)
    loaded = load_split(data.splits[split], imgsz, place)
    return judge(network.to(place), loaded, data.names, precision=precision)


def _check_input(graph: Graph, classes: int, imgsz: int) -> None:
    try:
        check_head(graph, classes, imgsz)
    except ValueError as error:
        raise InputError(f"this network cannot be used here: {error}") from error
