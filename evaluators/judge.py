"""Detections of a network on a split of the data, and their average precision.

    val = load_split(data.splits["val"], 640, device)
    detect(network, val, len(data.names))                    # detections
    judge(network, val, data.names)[0].metrics["ap"]         # their average precision
    judge_split(network, data, "val", 640)                   # the same, by the name of the split

A network is always used in its fused form, as it is deployed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from evaluators.data.bank import Bank, Served, as_images
from evaluators.data.records import DetectionData, Record
from evaluators.data.streamed import open_bank
from evaluators.detector.ap import CocoEvaluation, Detections, coco_evaluation
from evaluators.detector.head import check_head, decode, non_max_suppression
from evaluators.device import autocast, in_pieces, pick_device
from gpnas.errors import InputError
from gpnas.graph.graph import Branch, Graph
from gpnas.graph.network import Network

_BATCH = 32

COCO_DETECTIONS = 100
"""Detections in an image that COCO's metrics count at most."""

_CANDIDATES = 2000  # before suppression, in an image; more where more detections are wanted


class Split(NamedTuple):
    """A split of the data: the records of the images that can be read, and the images on a device."""

    records: Sequence[Record]
    bank: Bank


def load_split(records: Sequence[Record], imgsz: int, device: str | torch.device = "cpu", *, sharers: int = 1) -> Split:
    """imgsz: pixels. sharers: processes that load as much at the same time. Raises DataError when too many images cannot be
    read."""
    bank = open_bank(records, imgsz, device, sharers=sharers)
    return Split(bank.records, bank)


@torch.no_grad()
def detect(
    network: Network, split: Split, classes: int, *, precision: str = "auto", most: int = COCO_DETECTIONS
) -> list[Detections]:
    """The detections in each image of a split that lies on the network's device: the best first, `most` an image at most.

    _BATCH images are judged at a time, fewer where memory is short. Raises OutOfMemory where not even one fits."""
    fused = network if network.is_fused else network.fused()
    fused.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    bank = split.bank
    strides = [out.stride for out in fused.graph.outputs if out.branch == Branch.MAIN]
    sizes, scales = bank.sizes.tolist(), bank.scales.double().tolist()
    per_image: list[Detections] = []
    device, size = bank.device, bank.size
    parts = [slice(start, min(start + _BATCH, len(bank))) for start in range(0, len(bank), _BATCH)]
    at_once = _BATCH

    def detected(served: Served, sizes: list[tuple[int, int]], part: slice) -> list[Detections]:
        with autocast(device, precision):
            outputs = fused(as_images(served.pixels[served.places[part].to(device)]))
        boxes, scores = decode(outputs, strides, classes)
        return non_max_suppression(boxes, scores, sizes[part], candidates=max(_CANDIDATES, 4 * most), most=most)

    for whole, served in zip(parts, bank.served(torch.arange(part.start, part.stop) for part in parts), strict=True):
        work = functools.partial(detected, served, sizes[whole])
        for found, part in in_pieces(len(served.places), at_once, work, device, f"images of {size} pixels"):
            per_image += found
            at_once = min(at_once, part.stop - part.start)  # where memory was short, it is for the next ones too
    for rows, scale, record in zip(per_image, scales, split.records, strict=True):
        rows[:, :4] = np.clip(rows[:, :4] / scale, 0, [record.width, record.height] * 2)  # pixels of the original image
    return per_image


def judge(
    network: Network, split: Split, names: Sequence[str], *, precision: str = "auto", fast: bool = False
) -> tuple[CocoEvaluation, list[Detections]]:
    """How well the detections of `network` match the boxes of `split`, and the detections. names: of the classes. fast: see
    `coco_evaluation`."""
    per_image = detect(network, split, len(names), precision=precision)
    return coco_evaluation(split.records, names, per_image, fast=fast), per_image


def judge_split(
    network: Network, data: DetectionData, split: str, imgsz: int, *, device: str = "auto", precision: str = "auto"
) -> tuple[CocoEvaluation, list[Detections], Split]:
    """`judge` on the split of that name, at `imgsz` pixels, and the split: images that cannot be read are not part of it.

    Raises InputError for a network that does not fit the data.
    """
    check_network(network.graph, len(data.names), imgsz)
    chosen = pick_device(device)
    loaded = load_split(data.splits[split], imgsz, chosen)
    return *judge(network.to(chosen), loaded, data.names, precision=precision), loaded


def check_network(graph: Graph, classes: int, imgsz: int) -> None:
    """Raises InputError when a network of `graph` cannot be used with `classes` classes at `imgsz` pixels."""
    try:
        check_head(graph, classes, imgsz)
    except ValueError as error:
        raise InputError(f"this network cannot be used here: {error}") from error
