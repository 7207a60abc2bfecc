"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpnas.cli import options
from gpnas.errors import InputError
from gpnas.search.limits import Limits


def test_an_input_size_is_channels_height_width() -> None:
    assert options.parse_input_size("3x640x480") == (3, 640, 480)
    assert options.parse_input_size("1X32X96") == (1, 32, 96)


@pytest.mark.parametrize("text", ["640", "3x640", "3x640x", "3x0x640", "3x-1x640", "3x640x480x2", "axbxc"])
def test_other_input_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"--input {text}: must be channels x height x width, such as 3x640x640"):
        options.parse_input_size(text)


@pytest.mark.parametrize(("imgsz", "nearest"), [(0, 32), (-64, 32), (31, 32), (100, 96), (115, 128), (641, 640)])
def test_an_image_size_is_a_multiple_of_32_and_the_nearest_is_named(imgsz: int, nearest: int) -> None:
    with pytest.raises(InputError, match=f"--imgsz {imgsz}: must be a positive multiple of 32; try {nearest}$"):
        options.check_imgsz(imgsz)


def test_multiples_of_32_are_image_sizes() -> None:
    for imgsz in (32, 96, 640):
        options.check_imgsz(imgsz)


@pytest.mark.parametrize(("cores", "gpu"), [(2, 2), (16, 4)])
def test_workers_are_one_a_core_and_few_on_a_gpu(monkeypatch: pytest.MonkeyPatch, cores: int, gpu: int) -> None:
    monkeypatch.setattr(options, "cpu_cores", lambda: cores)
    assert options.worker_slots("auto", "cpu") == cores
    assert options.worker_slots("auto", "cuda") == options.worker_slots("auto", "cuda:1") == gpu
    assert options.worker_slots("local:7", "cuda") == 7


@pytest.mark.parametrize("workers", ["many", "local:0", "local:-1", "local:", "local", "remote:3"])
def test_other_workers_are_refused(workers: str) -> None:
    with pytest.raises(InputError, match=f"--workers {workers}: must be auto or local:N with N at least 1"):
        options.worker_slots(workers, "cpu")


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "cpu_cores", lambda: 8)
    assert [options.threads_per_worker(slots) for slots in (1, 3, 8, 9)] == [8, 2, 1, 1]


def test_limits_are_counts_with_units() -> None:
    assert options.parse_limits("10G", "2.5M") == Limits(1e10, 2.5e6)
    assert options.parse_limits(None, None) == Limits(None, None)
    with pytest.raises(InputError, match="--max-params few: not a positive number"):
        options.parse_limits(None, "few")


@pytest.mark.parametrize(("available", "auto"), [(False, "cpu"), (True, "cuda")])
def test_the_device_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool, auto: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: available)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert options.resolved_device("auto") == auto
    assert options.resolved_device("cpu") == "cpu"
    for wrong in ("gpu", "cuda:x", "cudax", "cuda:"):
        with pytest.raises(InputError, match=f"--device {wrong}: must be auto, cpu, cuda or cuda:N"):
            options.resolved_device(wrong)
    if available:
        assert options.resolved_device("cuda:1") == "cuda:1"
        with pytest.raises(InputError, match="--device cuda:2: there are 2 CUDA devices here, cuda:0 to cuda:1"):
            options.resolved_device("cuda:2")
    else:
        with pytest.raises(InputError, match="--device cuda:1: no CUDA device is here; use --device cpu"):
            options.resolved_device("cuda:1")


def test_only_a_gpu_has_memory_to_share_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options.gpu_memory_table("cpu") is None
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: {"cuda:1": (3_000, 8_000)}[device])
    table = options.gpu_memory_table("cuda:1")
    assert table is not None and table.total == 3_000


def test_a_new_folder_is_named_after_the_kind_and_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpnas.cli.options.time.strftime", lambda form: form.replace("%Y%m%d-%H%M%S", "20261121-160018"))
    assert options.new_run_folder() == Path("runs/search-20261121-160018")
    assert options.new_run_folder("train") == Path("runs/train-20261121-160018")
