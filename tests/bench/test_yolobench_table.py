"""Reading the two CSV files of YOLOBench."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpnas.bench.yolobench_table import ACCURACIES, DEVICES, LATENCIES, is_yolobench, read_yolobench
from gpnas.errors import InputError

TABLE = Path(__file__).parents[3] / "shared" / "data" / "yolobench"

HEADER = "model_name," + ",".join(f"{device}_latency" for device in DEVICES)


def write(folder: Path, accuracies: str, latencies: str) -> Path:
    (folder / ACCURACIES).write_text(accuracies)
    (folder / LATENCIES).write_text(latencies)
    return folder


def test_a_detector_has_its_structure_size_ap_and_latencies(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        "model_name,mAP_0.5,mAP_0.5:0.95\nyolo6s-d33w25_160,0.5,0.25\nyolo3n_480,0.7,0.5\n",
        f"{HEADER}\nyolo3n_480,6,5,4,3,2,1\nyolo6s-d33w25_160,0.1,0.2,0.3,0.4,0.5,0.6\n",
    )
    first, second = read_yolobench(folder)
    assert (first.structure, first.imgsz, first.ap) == ("yolo6s-d33w25", 160, 0.25)
    assert first.latencies == dict(zip(DEVICES, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True))
    assert (second.structure, second.imgsz, second.latencies["a40_trt"]) == ("yolo3n", 480, 1)


GOOD = ("model_name,mAP_0.5:0.95\nyolo3n_160,0.5\n", f"{HEADER}\nyolo3n_160,1,1,1,1,1,1\n")


@pytest.mark.parametrize(
    ("accuracies", "latencies", "message"),
    [
        ("model_name,mAP_0.5\nyolo3n_160,0.5\n", GOOD[1], "has no column mAP_0.5:0.95"),
        (GOOD[0], "model_name,nano_gpu_latency\nyolo3n_160,1\n", "has no column openvino_latency"),
        ("model_name,mAP_0.5:0.95\n", GOOD[1], "has no line below its header"),
        ("model_name,mAP_0.5:0.95\nyolo3n_160,nan\n", GOOD[1], "line 2: mAP_0.5:0.95 must be a number above 0, got 'nan'"),
        ("model_name,mAP_0.5:0.95\nyolo3n_160\n", GOOD[1], "line 2: mAP_0.5:0.95 must be a number above 0, got None"),
        (GOOD[0], f"{HEADER}\nyolo3n_160,1,1,1,0,1,1\n", "line 2: raspi4_tflite_latency must be a number above 0, got '0'"),
        (GOOD[0] + "yolo3n_160,0.6\n", GOOD[1], "line 3: yolo3n_160 is there twice"),
        (GOOD[0] + "yolo3s_160,0.6\n", GOOD[1], "yolo3s_160 is in one of"),
        (GOOD[0].replace("_160", "_150"), GOOD[1].replace("_160", "_150"), "'yolo3n_150' is no structure_pixels"),
        (GOOD[0].replace("_160", ""), GOOD[1].replace("_160", ""), "'yolo3n' is no structure_pixels"),
    ],
)
def test_a_broken_table_is_one_clear_line(tmp_path: Path, accuracies: str, latencies: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_yolobench(write(tmp_path, accuracies, latencies))
    assert "\n" not in str(error.value)


def test_a_folder_with_one_of_the_files_is_meant_to_be_the_table(tmp_path: Path) -> None:
    assert not is_yolobench(tmp_path)
    (tmp_path / ACCURACIES).write_text(GOOD[0])
    assert is_yolobench(tmp_path)
    with pytest.raises(InputError, match=f"{LATENCIES}: cannot be read"):
        read_yolobench(tmp_path)


@pytest.mark.skipif(not TABLE.is_dir(), reason="../shared is not here")
def test_the_published_table_has_968_detectors() -> None:
    detectors = read_yolobench(TABLE)
    assert len(detectors) == 968 and len({d.structure for d in detectors}) == 88 and len({d.imgsz for d in detectors}) == 11
    best = max(detectors, key=lambda d: d.ap)
    assert best.imgsz == 480 and best.ap > 0.6
