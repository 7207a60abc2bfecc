"""The parts of benchmarks/gpu.py, which says what each one shows. A part prints lines and writes its results as it goes.

python benchmarks/gpu_parts.py PART RESULTS.jsonl DEVICE PEAK [--quick]
"""

import contextlib
import functools
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evaluators.data.augment import Augmentation
from evaluators.data.bank import ImageBank, load_bank
from evaluators.data.batches import Batch, train_batches
from evaluators.data.colours import draw_colour_matrices
from evaluators.data.digits import digit_scenes
from evaluators.data.gather import gathered_images
from evaluators.data.layout import Layout, draw_layout
from evaluators.data.open import DataSource
from evaluators.data.records import DetectionData
from evaluators.device import forget_peak, free_cache, peak_bytes
from evaluators.judge import Split, detect, judge, load_split
from evaluators.proxy import ProxyEvaluator
from evaluators.training.average import WeightAverage
from evaluators.training.loop import Readings, fit, new_network, set_norm_momentum, training_step
from evaluators.training.optimizer import new_optimizer
from evaluators.training.recipe import Recipe
from evaluators.training.state import TrainingState
from evaluators.training.step import GradientAccumulator
from gpnas.graph.cost import cost
from gpnas.graph.graph import Graph
from gpnas.graph.network import Network
from gpnas.run.gpu_memory import BASE_BYTES, MemoryTable
from gpnas.run.workers import Done, Job, LocalWorkers
from gpnas.search.trial import MEMORY_BYTES, Fidelity
from search_spaces.architecture import candidate, with_classes
from search_spaces.blueprint import Blueprint, open_catalogue
from search_spaces.narrowing import with_multiple

CLASSES = 10
GIB = 2**30


@dataclass
class Setting:
    """Where a part runs, how much it does, and where its results go. peak: TFLOP/s of the GPU."""

    device: torch.device
    quick: bool
    peak: float
    results: Path

    def say(self, text: str, **row: Any) -> None:
        """Print a line and keep its figures. right: whether they are as they should be, where that can be said."""
        verdict = {True: "  ok", False: "  WRONG", None: ""}[row.get("right")]
        print(text + verdict, flush=True)
        with self.results.open("a") as file:
            file.write(f"{json.dumps({'text': text, **row})}\n")

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def of(self, whole: Any, quick: Any) -> Any:
        return quick if self.quick else whole


def network_named(name: str, multiple: float = 1.0) -> Blueprint:
    architecture = with_classes(open_catalogue(name), CLASSES)
    assert isinstance(architecture, Blueprint)
    return architecture if multiple == 1 else with_multiple(architecture, multiple)


@functools.cache
def graph_of(name: str, multiple: float = 1.0) -> Graph:
    return candidate(network_named(name, multiple)).graph


@functools.cache
def scenes(quick: bool) -> DetectionData:
    return digit_scenes(24, 8, 0) if quick else digit_scenes(480, 120, 0)


def images_of(setting: Setting, count: int, size: int, device: torch.device | None = None) -> ImageBank:
    records = scenes(setting.quick).splits["train"]
    return load_bank([records[k % len(records)] for k in range(count)], size, device or setting.device)


class Stepper:
    """The training loop, a few steps at a time."""

    def __init__(self, graph: Graph, bank: ImageBank, batch: int, precision: str = "auto") -> None:
        network = new_network(graph, CLASSES, bank.pixels.shape[1], 0).train()
        network.to(bank.pixels.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        set_norm_momentum(network, 100)
        optimizer = new_optimizer(network, "adamw", lr=1e-3, momentum=0.9, weight_decay=0.05)
        self.state = TrainingState(network, optimizer, WeightAverage(network, 0.9998), torch.Generator().manual_seed(0))
        self.gradients = GradientAccumulator(network, optimizer, CLASSES, precision)
        self._bank, self._batch, self._readings = bank, batch, Readings()
        self._made = self._epochs()

    def _epochs(self) -> Iterator[Batch]:
        while True:
            yield from train_batches(self._bank, self._batch, Augmentation(), self.state.generator, ahead=True)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            values = training_step(self.state, self.gradients, next(self._made), self.state.network.graph.outputs)
            self._readings.add(values, "a step", 1e-3)


# ---- correct


def correct(setting: Setting) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    cpu, size = torch.device("cpu"), setting.of(256, 64)
    bank, generator = images_of(setting, 16, size, cpu), torch.Generator().manual_seed(1)
    layout = draw_layout(bank, torch.arange(16), Augmentation(), generator)
    colours = draw_colour_matrices(16, Augmentation(), generator)
    there = Layout(*(values.to(setting.device) for values in vars(layout).values()))
    made = gathered_images(bank.pixels.to(setting.device), there, None if colours is None else colours.to(setting.device)).cpu()
    apart = (made - gathered_images(bank.pixels, layout, colours)).abs()
    share = (apart > 1e-3).float().mean().item()
    setting.say(
        f"pixels: differ by {apart.mean().item():.1e} on average, {share:.1e} of them by more than 0.001",
        pixels=apart.mean().item(),
        right=share < 1e-3,
    )
    batch = next(train_batches(bank, 8, Augmentation(), generator))
    graph = graph_of("yolov9-t", 0.5)
    losses, gradients = _gradients(graph, batch, cpu, "fp32", size)
    for precision, near, parallel in (("fp32", 0.01, 0.99), ("bf16", 0.05, 0.9)):
        other, theirs = _gradients(graph, batch, setting.device, precision, size)
        off = ((other - losses).abs() / losses.abs()).max().item()
        cosine = torch.nn.functional.cosine_similarity(theirs, gradients, dim=0).item()
        setting.say(
            f"loss and gradients in {precision}: losses differ by {off:.1e}, cosine of the gradients {cosine:.6f}, "
            f"their lengths' ratio {(theirs.norm() / gradients.norm()).item():.4f}",
            loss=off,
            cosine=cosine,
            right=off < near and cosine > parallel,
        )
    data, recipe = scenes(setting.quick), Recipe(setting.of(12, 1), size // 2, 8, eval_every=0, device=str(setting.device))
    network = new_network(graph, CLASSES, recipe.imgsz, 0)
    result = fit(network, images_of(setting, len(data.splits["train"]), recipe.imgsz), None, data.names, recipe, report=_ignore)
    val = load_split(data.splits["val"], recipe.imgsz)
    expected = judge(result.averaged.cpu(), val, data.names, precision="fp32")[0].metrics
    for precision, near in (("fp32", 0.002), ("bf16", 0.02)):
        moved = Split(val.records, val.bank.to(setting.device))
        metrics = judge(result.averaged.to(setting.device), moved, data.names, precision=precision)[0].metrics
        setting.say(
            f"AP in {precision}: {metrics['ap']:.4f}, on the CPU {expected['ap']:.4f}",
            ap=metrics["ap"],
            cpu=expected["ap"],
            right=abs(metrics["ap"] - expected["ap"]) < near,
        )


def _gradients(
    graph: Graph, batch: Batch, device: torch.device, precision: str, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses and all gradients of a new network, on the CPU."""
    network = new_network(graph, CLASSES, size, 0).train().to(device)
    optimizer = new_optimizer(network, "sgd", lr=0.1, momentum=0.9, weight_decay=0.0)
    moved = Batch(batch.images.to(device), batch.boxes.to(device), batch.classes.to(device), batch.full_size)
    losses = GradientAccumulator(network, optimizer, CLASSES, precision).backward(moved, graph.outputs)
    return losses.cpu(), torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).float().cpu()


def _ignore(row: dict[str, Any]) -> None:
    """A report that nobody reads."""


# ---- waits


@contextlib.contextmanager
def watched(places: Counter[str]) -> Iterator[None]:
    """Count, by the innermost places in our code, what torch says of calls that wait for the GPU."""

    def note(message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
        if "called a synchronizing" not in str(message):  # torch also says that this mode is a prototype
            return
        ours = [f for f in traceback.extract_stack() if "/evaluators/" in f.filename or "/gpnas/" in f.filename]
        inside = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(ours[-3:]))
        places[inside or f"{filename}:{lineno}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        yield


def waits(setting: Setting) -> None:
    for name, size, batch in setting.of((("gelan-t", 128, 8), ("yolov9-t", 256, 16)), (("gelan-t", 64, 4),)):
        bank = images_of(setting, setting.of(480, 16), size)
        recipe = Recipe(3, size, batch, eval_every=0, device=str(setting.device))
        places: Counter[str] = Counter()

        def switch(row: dict[str, Any]) -> None:
            if setting.is_gpu:  # the first epoch warms up
                torch.cuda.set_sync_debug_mode("warn" if row["epoch"] < 3 else "default")

        with watched(places):
            fit(new_network(graph_of(name), CLASSES, size, 0), bank, None, scenes(setting.quick).names, recipe, report=switch)
        steps = 2 * (len(bank.pixels) // batch)
        total = sum(places.values())
        unknown = "" if setting.is_gpu else " (a CPU does not tell)"
        setting.say(
            f"{name} at {size} px, batch {batch}: {total / steps:.3f} waits a step in {steps} steps{unknown}",
            name=name,
            waits_a_step=total / steps,
            right=total <= 4 if setting.is_gpu else None,  # a few an epoch are no harm
        )
        for place, count in places.most_common(12):
            setting.say(f"    {count:5d} x {place}", place=place, count=count)


# ---- kernels


def kernels(setting: Setting) -> None:
    activity = torch.profiler.ProfilerActivity
    cases = (("gelan-t", 128, 8), ("yolov9-t", 128, 8), ("gelan-t", 640, 64), ("gelan-c", 640, 32))
    for name, size, batch in setting.of(cases, [("gelan-t", 64, 4)]):
        stepper = Stepper(graph_of(name), images_of(setting, 4 * batch, size), batch)
        warm, steps = setting.of((10, 20), (1, 1))
        stepper.run(warm)
        setting.wait()
        began = time.perf_counter()
        stepper.run(steps)
        queued = time.perf_counter() - began
        setting.wait()
        seconds = (time.perf_counter() - began) / steps
        with torch.profiler.profile(activities=[activity.CUDA if setting.is_gpu else activity.CPU]) as profile:
            stepper.run(steps)
            setting.wait()
        on = torch.autograd.DeviceType.CUDA if setting.is_gpu else torch.autograd.DeviceType.CPU
        ran = [e for e in profile.events() if e.device_type == on and "#" not in e.name and "ProfilerStep" not in e.name]
        busy = _union([(e.time_range.start, e.time_range.end) for e in ran]) / 1e6 / steps
        what = "kernels" if setting.is_gpu else "operators"
        setting.say(
            f"{name} at {size} px, batch {batch}: {1000 * seconds:.2f} ms a step ({1000 * queued / steps:.2f} to queue it), "
            f"{len(ran) / steps:.0f} {what}, busy {1000 * busy:.2f} ms ({busy / seconds:.0%})",
            name=name,
            size=size,
            seconds=seconds,
            kernels=len(ran) / steps,
            busy=busy / seconds,
        )
        times: Counter[str] = Counter()
        for event in ran:
            times[event.name] += event.time_range.elapsed_us()
        counts = Counter(event.name for event in ran)
        for kernel, micros in times.most_common(6):
            setting.say(f"    {micros / steps / 1000:7.3f} ms in {counts[kernel] / steps:5.0f} x {kernel[:90]}")
        del stepper
        free_cache(setting.device)


def _union(spans: list[tuple[float, float]]) -> float:
    """The length of a union of intervals."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


# ---- proxies


def proxies(setting: Setting) -> None:
    fidelity = setting.of(Fidelity(4, 192), Fidelity(1, 64, 0.05))
    at_once, proxies_ = setting.of((1, 4), (1,)), setting.of(4, 1)
    seconds = {}
    for count in at_once:
        seconds[count], images = _proxies(setting, count, proxies_, fidelity)
        setting.say(
            f"{proxies_} proxies, {count} at once: {seconds[count]:.1f} s, {images / seconds[count]:.0f} trained images/s",
            at_once=count,
            seconds=seconds[count],
            images_a_second=images / seconds[count],
        )
    if len(seconds) == 2:
        setting.say(f"four at once are {seconds[1] / seconds[4]:.2f} times as fast as one after another")


def _proxies(setting: Setting, at_once: int, count: int, fidelity: Fidelity) -> tuple[float, int]:
    """Seconds for `count` proxies in `at_once` processes, without the start of the processes; images that were trained."""
    known = [candidate(network_named("gelan-t", 0.25 + k / 32)) for k in range(count + at_once)]
    evaluator = ProxyEvaluator(DataSource("digits"), device=str(setting.device))
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder, LocalWorkers(evaluator, at_once) as workers:
        for wave, part in enumerate((known[count:], known[:count])):  # the first ones start the processes
            began, waiting, running = time.perf_counter(), list(enumerate(part)), 0
            while waiting or running:
                while waiting and workers.free:
                    number, one = waiting.pop()
                    place = Path(folder) / f"{wave}-{number}"
                    workers.submit(Job((number, wave, 0), one, fidelity, place, None))
                    running += 1
                for message in workers.poll(0.05):
                    if not isinstance(message, Done):
                        continue
                    running -= 1
                    ended = message.evaluation
                    memory = ended.metrics.get(MEMORY_BYTES, 0) / GIB
                    text = f"    {ended.state}: AP {ended.metrics.get('ap', -1):.3f}, {memory:.2f} GiB {ended.message}"
                    setting.say(text, right=str(ended.state) == "complete")
            seconds = time.perf_counter() - began
    return seconds, round(count * fidelity.epochs * fidelity.data_share * 480)


# ---- speed


def speed(setting: Setting) -> None:
    cases = [("gelan-t", 256, 64), ("gelan-c", 256, 64), ("gelan-t", 640, 64), ("gelan-c", 640, 32)]
    for name, size, batch in setting.of(cases, [("gelan-t", 64, 4)]):
        bank = images_of(setting, setting.of(4, 2) * batch, size)
        forget_peak(setting.device)
        stepper = Stepper(graph_of(name), bank, batch)
        warm, steps = setting.of((8, 24), (1, 1))
        stepper.run(warm)
        setting.wait()
        began = time.perf_counter()
        stepper.run(steps)
        setting.wait()
        rate = steps * batch / (time.perf_counter() - began)
        peak = (peak_bytes(setting.device) or 0) / GIB
        teraflops = 6 * cost(graph_of(name), size, size, fused=False).macs * rate / 1e12
        del stepper
        free_cache(setting.device)
        theirs = _ultralytics(name.replace("gelan-", "yolov9"), setting, size, batch) if setting.is_gpu else None
        compared = f"; Ultralytics {theirs:.0f}/s, ratio {rate / theirs:.2f}" if theirs else "; Ultralytics is not here"
        setting.say(
            f"{name} at {size} px, batch {batch}: {rate:.0f} images/s, {peak:.1f} GiB, {teraflops:.1f} TFLOP/s "
            f"({teraflops / setting.peak:.1%} of the peak){compared}",
            name=name,
            size=size,
            images_a_second=rate,
            teraflops=teraflops,
            gib=peak,
            ultralytics=theirs,
        )


def _ultralytics(name: str, setting: Setting, size: int, batch: int) -> float | None:
    """Images a second in the third epoch of Ultralytics' trainer; None if it is not installed."""
    try:
        from ultralytics import YOLO
    except ImportError:
        return None
    from evaluators.data.writers.yolo import write_yolo

    data = scenes(setting.quick)
    with tempfile.TemporaryDirectory() as folder:
        write_yolo(data, Path(folder))
        stamps: list[float] = []
        model = YOLO(f"{name}.yaml")
        model.add_callback("on_train_epoch_start", lambda trainer: stamps.append(time.perf_counter()))
        options = {"imgsz": size, "batch": batch, "device": str(setting.device), "project": folder, "verbose": False}
        model.train(data=str(Path(folder) / "data.yaml"), epochs=4, val=False, plots=False, cache="ram", **options)
    return len(data.splits["train"]) / (stamps[3] - stamps[2])


# ---- memory


def memory(setting: Setting) -> None:
    """Each training in a process of its own, as in a search."""
    table = MemoryTable(100 * GIB)
    cases = [("gelan-t", 0.5, 128), ("gelan-t", 1.0, 320), ("gelan-c", 1.0, 640)]
    for name, multiple, size in setting.of(cases, [("gelan-t", 0.25, 64)]):
        one = candidate(network_named(name, multiple))
        activations = 8 * cost(one.graph, size, size, fused=False).activation_bytes
        planned = table.need(activations)
        evaluator = ProxyEvaluator(DataSource("digits"), device=str(setting.device))
        with tempfile.TemporaryDirectory() as folder, LocalWorkers(evaluator, 1) as workers:
            free = torch.cuda.mem_get_info(setting.device)[0] if setting.is_gpu else 0
            workers.submit(Job((0, 0, 0), one, Fidelity(1, size), Path(folder) / "0", None))
            ended, least = None, free
            while ended is None:
                ended = next((m.evaluation for m in workers.poll(0.02) if isinstance(m, Done)), None)
                least = min(least, torch.cuda.mem_get_info(setting.device)[0]) if setting.is_gpu else 0
            after = torch.cuda.mem_get_info(setting.device)[0] if setting.is_gpu else 0
        measured = ended.metrics.get(MEMORY_BYTES, 0.0)
        table.take("one", activations)
        table.release("one", measured)
        setting.say(
            f"{name} x {multiple} at {size} px: activations {activations / GIB:.2f} GiB, planned {planned / GIB:.2f}, reserved "
            f"{measured / GIB:.2f}; taken from the GPU {(free - least) / GIB:.2f}, afterwards {(free - after) / GIB:.2f}, "
            f"context {(free - least - measured) / GIB:.2f} (BASE_BYTES {BASE_BYTES / GIB:.2f}); the line is now "
            f"{table.line.base / GIB:.2f} GiB + {table.line.slope:.2f} x activations",
            activations=activations,
            planned=planned,
            reserved=measured,
            taken=free - least,
            afterwards=free - after,
            right=planned >= free - least if setting.is_gpu and measured else None,
        )


# ---- out of memory


@contextlib.contextmanager
def limited(setting: Setting, more: float) -> Iterator[None]:
    """Let this process reserve only `more` bytes beyond what its tensors take."""
    if not setting.is_gpu:
        yield
        return
    free_cache(setting.device)
    total = torch.cuda.mem_get_info(setting.device)[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(setting.device) + more) / total, setting.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, setting.device)
        free_cache(setting.device)


def oom(setting: Setting) -> None:
    size, count = setting.of(640, 64), setting.of(64, 8)
    bank = images_of(setting, count, size)
    _short_in_making(setting, bank)
    _short_in_a_step(setting, bank)
    _short_in_evaluation(setting, bank)


def _short_in_making(setting: Setting, bank: ImageBank) -> None:
    count, of_batch = len(bank.pixels), 4 * bank.pixels.numel()

    def make() -> Batch:
        return next(train_batches(bank, count, Augmentation(), torch.Generator().manual_seed(0)))

    whole, need = _peak(setting, make)
    with limited(setting, of_batch + 0.25 * (need - of_batch)):
        pieces = make()
    text = f"making {count} images of {bank.pixels.shape[1]} px takes {need / GIB:.2f} GiB; with less it is done in pieces"
    setting.say(text, bytes=need, right=torch.equal(whole.images, pieces.images))


def _short_in_a_step(setting: Setting, bank: ImageBank) -> None:
    stepper = Stepper(graph_of("gelan-t"), bank, len(bank.pixels))
    _, need = _peak(setting, lambda: stepper.run(1))
    with limited(setting, 4 * bank.pixels.numel() + 0.25 * need):
        stepper.run(2)
    found = stepper.gradients.pieces
    text = f"a step takes {need / GIB:.2f} GiB; with a quarter of it the batch is done in {found} pieces"
    setting.say(text, bytes=need, pieces=found, right=found > 1 if setting.is_gpu else None)


def _short_in_evaluation(setting: Setting, bank: ImageBank) -> None:
    network = new_network(graph_of("gelan-t"), CLASSES, bank.pixels.shape[1], 0)
    network.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def judged() -> list[Any]:
        return detect(network, Split(bank.records, bank), CLASSES, precision="fp32")

    expected, need = _peak(setting, judged)
    with limited(setting, 0.3 * need):
        again = judged()
    same = all(len(a) == len(b) for a, b in zip(expected, again, strict=True))
    text = f"an evaluation takes {need / GIB:.2f} GiB; with 30 % of it, it is done in smaller batches"
    setting.say(text, bytes=need, right=same)


def _peak(setting: Setting, function: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call, and the most bytes that it had allocated at once."""
    if not setting.is_gpu:
        return function(), 0.0
    forget_peak(setting.device)
    before = torch.cuda.memory_allocated(setting.device)
    result = function()
    return result, torch.cuda.max_memory_allocated(setting.device) - before


# ---- resume


def resume(setting: Setting) -> None:
    size, data = setting.of(160, 64), scenes(setting.quick)
    recipe = Recipe(setting.of(6, 2), size, 8, eval_every=0, device=str(setting.device))
    bank = images_of(setting, len(data.splits["train"]), size)

    def trained(**options: Any) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        states: list[dict[str, Any]] = []

        def save(state: TrainingState) -> None:
            if state.epoch == recipe.epochs // 2:  # a copy: the state goes on changing
                with tempfile.TemporaryFile() as file:
                    torch.save(state.state_dict(), file)
                    file.seek(0)
                    states.append(torch.load(file, weights_only=True, map_location="cpu"))

        network = new_network(graph_of("gelan-t", 0.5), CLASSES, size, 0)
        fit(network, bank, None, data.names, recipe, report=_ignore, save=save, **options)
        return _weights(network), states

    (first, states), (second, _) = trained(), trained()
    resumed, _ = trained(resume_from=states[0])
    between, after = (((other - first).norm() / first.norm()).item() for other in (second, resumed))
    setting.say(
        f"weights after {recipe.epochs} epochs: two trainings with one seed differ by {between:.1e} of their length, "
        f"a resumed one by {after:.1e}",
        two=between,
        resumed=after,
        right=after <= (3 * between + 1e-6 if setting.is_gpu else 0.0),
    )


def _weights(network: Network) -> torch.Tensor:
    return torch.cat([p.detach().flatten().cpu() for p in network.parameters()])


# ---- search


def search(setting: Setting) -> None:
    seconds = setting.of(90, 20)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-u",
            "-m",
            "gpnas",
            "search",
            "--data",
            "digits",
            "--budget",
            f"{seconds}s",
            "--imgsz",
            "192",
        ]
        command += ["--max-flops", "100M", "--device", str(setting.device), "--out", f"{folder}/run"]
        began, lines = time.perf_counter(), []
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            for line in process.stdout or ():
                print(f"    [{time.perf_counter() - began:5.1f}] {line.rstrip()}", flush=True)
                lines.append(line)
        took = time.perf_counter() - began
    text = "".join(lines)
    planned = re.search(r"pays for about (\d+) candidates", text)
    trained = re.search(r"(\d+) candidates trained", text)
    setting.say(
        f"a budget of {seconds} s took {took:.1f} s with start and end; planned {planned[1] if planned else '?'} candidates, "
        f"trained {trained[1] if trained else '?'}",
        budget=seconds,
        seconds=took,
        planned=int(planned[1]) if planned else None,
        trained=int(trained[1]) if trained else None,
        right=process.returncode == 0,
    )


PARTS = {part.__name__: part for part in (correct, waits, kernels, proxies, speed, memory, oom, resume, search)}


def run(part: str, results: Path, device: str, peak: float, *, quick: bool) -> None:
    place = torch.device("cuda", 0) if device == "cuda" else torch.device(device)
    setting = Setting(place, quick, peak, results)
    if setting.is_gpu:
        torch.cuda.set_device(place)
        free, total = torch.cuda.mem_get_info(place)
        print(
            f"torch {torch.__version__} on {torch.cuda.get_device_name(place)}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
        )
    PARTS[part](setting)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]), quick="--quick" in sys.argv)
