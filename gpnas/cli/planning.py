"""The plan of a search on this machine: its speed is measured, then a limit that was not given and the ladder are chosen.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from gpnas.cli.options import threads_per_worker
from gpnas.units import brief, clock

if TYPE_CHECKING:
    from evaluators.data.records import DetectionData
    from gpnas.cli.sizes import Sizes
    from gpnas.search.budget import Budget
    from gpnas.search.ladder import Ladder
    from gpnas.search.limits import Limits
    from gpnas.search.plan import Costs, Machine, Plan
    from gpnas.search.trial import Candidate, Space

SAMPLES = 200
"""Candidates that are drawn to see what is typical."""

GPU_OVERLAP = 2.0
"""Trainings on one GPU that together take no longer than one alone. It is assumed; the plan adapts to what is measured."""

Spread = Annotated[
    bool,
    typer.Option(
        "--spread", help="candidates of all sizes, for the whole front (default: most cost at least a limit divided by 1.4)"
    ),
]


class Planned(NamedTuple):
    """typical_macs: of the fused form of a typical candidate, on one image of --imgsz pixels. candidates: that
    the budget pays for; None where it does not count time. seconds_per_flop: of training, in one worker. told: lines for the
    user."""

    limits: Limits
    ladder: Ladder
    typical_macs: float
    candidates: float | None
    seconds_per_flop: float
    told: tuple[str, ...]


def plan_search(
    space: Space,
    limits: Limits,
    budget: Budget,
    images: DetectionData,
    sizes: Sizes,
    *,
    imgsz: int,  # pixels, for the cost that the limits bound
    slots: int,  # workers
    device: str,  # "cpu", "cuda" or "cuda:N"
    seed: int,
    spread: bool,
    bounded: bool,  # whether a limit on FLOPs may be chosen where no limit was given
) -> Planned:
    """Measure a few steps of training, choose a limit where none was given, and plan the ladder."""
    from gpnas.graph.cost import cost, deployed_cost
    from gpnas.search.ladder import fidelities
    from gpnas.search.limits import NEAR, Limits
    from gpnas.search.plan import PATIENCE, Costs, affordable_macs, plan, rounded_down

    rng = random.Random(f"{seed}/typical")
    within = _within(space, limits, imgsz, rng, near=not spread)
    lowest = fidelities(1, sizes.proxy_imgsz, sizes.stride)[0].imgsz
    without_limits = limits == Limits()
    example = within[len(within) // (4 if without_limits else 2)]
    machine = _machine(example, images, lowest, slots, device)

    def costs_of(candidate: Candidate) -> Costs:
        macs = cost(candidate.graph, imgsz, imgsz, fused=False).macs
        return Costs(macs, imgsz, len(images.splits["train"]), len(images.splits["val"]), machine)

    told: list[str] = []
    size = {"proxy_imgsz": sizes.proxy_imgsz, "stride": sizes.stride}
    if without_limits and bounded:
        per_flop = deployed_cost(example.graph, imgsz).flops / costs_of(example).macs
        most = per_flop * affordable_macs(budget, **size, costs=costs_of(example)) * NEAR**0.5
        least, largest = (
            deployed_cost(within[0].graph, imgsz).flops,
            deployed_cost(within[9 * len(within) // 10].graph, imgsz).flops,
        )
        if most < largest:
            limits = Limits(max_flops=rounded_down(max(most, NEAR * least)))
            fits = "fits --budget on this machine"
            if budget.kind != "seconds":
                fits = f"lets the first training of a candidate take about {PATIENCE:.0f} s on this machine"
            why = fits if most > NEAR * least else "the smallest architectures need"
            told.append(
                f"no limit was given: candidates may have {brief(limits.max_flops or 0)} FLOPs at {imgsz} px, which {why}; "
                "give --max-flops to choose another limit"
            )
            within = _within(space, limits, imgsz, rng, near=not spread)
    typical = within[len(within) // 2]
    made = plan(budget, **size, costs=costs_of(typical))
    told += _words(made, budget, machine)
    macs = deployed_cost(typical.graph, imgsz).macs
    return Planned(limits, made.ladder, macs, made.candidates, machine.seconds_per_flop, tuple(told))


def _within(space: Space, limits: Limits, imgsz: int, rng: random.Random, *, near: bool) -> list[Candidate]:
    """Samples within the limits by rising MACs: those near the limits if that is wanted and there are any. The smallest
    candidate alone where no sample is within the limits."""
    from gpnas.graph.cost import deployed_cost

    drawn = [space.propose([], rng) for _ in range(SAMPLES)]
    costs = [(deployed_cost(candidate.graph, imgsz), candidate) for candidate in drawn]
    allowed = sorted((pair for pair in costs if limits.allows(pair[0])), key=lambda pair: (pair[0].macs, pair[1].hash))
    close = [pair for pair in allowed if limits.nearly_met(pair[0])] if near else []
    return [candidate for _, candidate in close or allowed] or [space.smallest()]


def _machine(candidate: Candidate, images: DetectionData, imgsz: int, slots: int, device: str) -> Machine:
    from evaluators.training.speed import seconds_per_flop
    from gpnas.search.plan import PROXY_BATCH, Machine

    threads = threads_per_worker(slots)
    seconds = seconds_per_flop(candidate.graph, images, imgsz, batch_size=PROXY_BATCH, threads=threads, device=device)
    return Machine.measured(seconds * max(1.0, slots / GPU_OVERLAP) if device.startswith("cuda") else seconds, slots)


def _words(made: Plan, budget: Budget, machine: Machine) -> list[str]:
    """What the plan means for the user."""
    from gpnas.search.confirm import FEWEST_SEEDS
    from gpnas.search.plan import FEWEST

    speed = f"{brief(1 / machine.seconds_per_flop)} training FLOPs a second"
    if made.candidates is None:
        return [f"a worker does {speed} here"]
    confirmed = " and a confirmation" if (made.fresh_seeds or 0) >= 2 * FEWEST_SEEDS else ""
    words = [f"a worker does {speed} here, so the budget pays for about {made.candidates:.0f} candidates{confirmed}"]
    if made.candidates < FEWEST:
        longer = clock(budget.amount * FEWEST / max(made.candidates, 0.1))
        words.append(
            f"with fewer than {FEWEST} candidates the best is a matter of luck; a --budget of {longer} would pay for them, "
            "and a lower --max-flops, a smaller --imgsz or --proxy-imgsz for more"
        )
    return words
