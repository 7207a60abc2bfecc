"""Does a search pay? Its winner beside GELAN-T, YOLOv9-T and the best of some random candidates, on the test split of any data.

    python benchmarks/search_pays.py OUT --data digits --imgsz 128 --max-flops 58.01M --budget 40m --epochs 8
    python benchmarks/search_pays.py OUT --data ../shared/data/bccd --imgsz 320 --max-flops gelan-t --budget 40m --epochs 18

1. `gpnas search` under the limit, with its defaults. `--max-flops gelan-t` means the FLOPs at `--imgsz` of the published
   GELAN-T, with a head for the classes of the data.
2. The rows: the winner; the best that the search found, if a baseline won; GELAN-T and YOLOv9-T narrowed to the winner's FLOPs,
   and to the limit if the winner uses less than 98 % of it (unless `--not-at-limit`); and the best of `--random` candidates.
   These are drawn from the search's space with FLOPs like the winner's and trained by the same recipe with one seed; val
   chooses among them.
3. `gpnas train` trains each row from scratch for `--epochs` with fresh seeds, a thread each: what a user does next. Batches are
   of 8, as in a search: 8 epochs of 480 images are few steps.
4. The table. Intervals are of 95 %: Student's t for means, Welch's t for differences. `minutes` are those of a core, of one
   training; `in all` adds what it took to choose the detector: the search with all its workers, or the random trainings.

It can be stopped: what OUT holds is not done again.
"""

import argparse
import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import FRESH_SEED, Recipe, hash_of, searched, train_all
from gp_bench_detectors import drawn
from intervals import Interval, difference, mean_text

from evaluators.data.open import open_data
from gpnas.cli.baselines import BASELINES
from gpnas.cli.options import absolute
from gpnas.cli.sources import space_around, trial_yaml
from gpnas.errors import LimitError
from gpnas.files import write_text
from gpnas.graph.cost import Cost, deployed_cost
from gpnas.run.journal import Journal
from gpnas.run.results import TrialResult, best_of, trial_results
from gpnas.run.settings import RunSettings
from gpnas.units import brief, parse_count
from search_spaces.architecture import build, read_architecture, with_classes
from search_spaces.blueprint import Blueprint, catalogue, open_catalogue
from search_spaces.genotype import Genotype, Pgi
from search_spaces.narrowing import widest_within

LIKE_FLOPS = 1.4
"""Random candidates differ by this factor in FLOPs at most. The winner is in the middle, or above it near the limit."""

NEAR_LIMIT = 0.98
"""A winner that uses this share of the limit is compared with the baselines at its own FLOPs alone."""

CHOOSING_SEED = 1
"""Of the trainings that choose among random candidates."""


@dataclass(frozen=True)
class Search:
    """A finished search. winner: its best trial; found: its best that is no baseline. minutes: of a core, of all workers."""

    run: Path
    settings: RunSettings
    winner: TrialResult
    found: TrialResult | None
    trained: int
    minutes: float


@dataclass(frozen=True)
class Row:
    """A detector of the table. file: its YAML. minutes: of a core, that it took to choose it."""

    name: str
    file: Path
    hash: str
    cost: Cost
    minutes: float = 0.0


def published_baseline(name: str, classes: int) -> Blueprint:
    """An architecture of the catalogue with a head for `classes` classes."""
    published = with_classes(open_catalogue(name), classes)
    assert isinstance(published, Blueprint)  # with_classes returns the kind that it is given
    return published


def flops_limit(text: str, classes: int, imgsz: int) -> int:
    """The FLOPs that `--max-flops` means: a number, or those of an architecture of the catalogue at `imgsz` pixels."""
    if text in catalogue():
        return deployed_cost(build(published_baseline(text, classes)), imgsz).flops
    return int(parse_count(text, "--max-flops"))


def search_under(limit: int, data: str, imgsz: int, budget: str, run: Path) -> Search:
    """The search into `run`: a new one, one that goes on, or one that is done."""
    print(searched(run, "--data", data, "--imgsz", imgsz, "--max-flops", limit, "--budget", budget), end="", flush=True)
    with Journal.open(run, write=False) as journal:
        settings, results, seconds = RunSettings.from_json(journal.settings), trial_results(journal), journal.elapsed()
    was = (settings.data.source, settings.imgsz, settings.limits.max_flops, settings.budget_text)
    if was != (data, imgsz, limit, budget):
        raise SystemExit(f"{run} is a search with other options: {', '.join(map(str, was))}; give these, or another OUT")
    winner = best_of(results)
    if winner is None:
        raise SystemExit(f"{run}: no candidate was trained; give a larger --budget")
    found = best_of([result for result in results if not result.trial.origin.is_known])
    return Search(run, settings, winner, found, len(results), seconds / 60 * settings.slots)


def row_of(name: str, text: str, out: Path, imgsz: int, minutes: float = 0.0) -> Row:
    """A row of the table, whose YAML is written to OUT/rows."""
    file = out / "rows" / f"{name.replace(', ', '-').replace(' ', '-')}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
    cost = deployed_cost(build(read_architecture(text, name)), imgsz)
    return Row(name, file, hash_of(file), cost, minutes)


def found_rows(search: Search, out: Path, main_alone: bool) -> Iterator[Row]:
    """The winner, its main branch alone, and the best that the search found if a baseline won."""
    imgsz, origin = search.settings.imgsz, search.winner.trial.origin
    text = trial_yaml(search.run, search.winner.trial.id)
    yield row_of(f"winner, {origin.name}" if origin.name else "winner", text, out, imgsz, search.minutes)
    if origin.is_known and search.found is not None:
        yield row_of("best found", trial_yaml(search.run, search.found.trial.id), out, imgsz, search.minutes)
    architecture = read_architecture(text)
    # The main branch of a composite network reads the other branch, so it is nothing alone.
    if main_alone and isinstance(architecture, Genotype) and architecture.pgi.kind in ("deep_supervision", "reversible"):
        alone = architecture.model_copy(update={"pgi": Pgi()})
        yield row_of("winner, main alone", alone.to_yaml(), out, imgsz, search.minutes)


def baseline_rows(search: Search, limit: int, at_limit: bool, out: Path) -> Iterator[Row]:
    """The baselines narrowed to the winner's FLOPs, and, with `at_limit`, to the limit if the winner leaves much of it."""
    imgsz, classes = search.settings.imgsz, len(search.settings.data.names)
    flops = search.winner.trial.flops
    for bound in (flops, limit) if at_limit and flops < NEAR_LIMIT * limit else (flops,):
        for name in BASELINES:
            try:
                narrow = widest_within(published_baseline(name, classes), bound, None, imgsz)
            except LimitError as error:
                print(f"{name} is left out: {error}")
                continue
            yield row_of(f"{name}, {brief(bound)}", narrow.to_yaml(), out, imgsz)


def best_random(search: Search, limit: int, count: int, recipe: Recipe, jobs: int, out: Path) -> Row:
    """The best on val of `count` candidates with FLOPs like the winner's. Its minutes are those of all their trainings."""
    settings = search.settings
    space = space_around(settings.space, None, len(settings.data.names), settings.levels)
    high = min(limit, search.winner.trial.flops * math.sqrt(LIKE_FLOPS))
    seen = {search.winner.trial.hash}
    candidates = []
    for k in range(count):
        candidate = drawn(space, high / LIKE_FLOPS, high, settings.imgsz, seen, random.Random(f"random/{k}"))
        seen.add(candidate.hash)
        candidates.append(row_of(f"random {k}", read_architecture(candidate.genotype).to_yaml(), out, settings.imgsz))
    trainings = train_all(out, [(row.file, CHOOSING_SEED) for row in candidates], recipe, jobs)
    best = max(range(count), key=lambda k: -math.inf if math.isnan(trainings[k]["val_ap"]) else trainings[k]["val_ap"])
    minutes = sum(training["seconds"] for training in trainings) / 60
    return row_of(f"best of {count} random", candidates[best].file.read_text(), out, settings.imgsz, minutes)


def without_copies(rows: list[Row]) -> list[Row]:
    """The first row of each network: a baseline that won is also what narrowing makes of it at its own FLOPs."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.hash, row)
    return list(first.values())


def print_table(rows: list[Row], trainings: dict[str, list[dict[str, Any]]]) -> None:
    """The table, and a verdict for each row but the first, which is the winner. trainings: of each hash."""
    winner, *others = rows
    ap = {row.hash: [training["ap"] for training in trainings[row.hash]] for row in rows}
    width = max(len(row.name) for row in rows) + 2
    title = "test AP: mean, 95 % interval, least to most"
    print(f"{'':{width}}{'FLOPs':>9}{'params':>9}  {title:45}{'AP50':>6}{'minutes':>9}{'in all':>8}  winner less this")
    for row in rows:
        ap50, seconds = ([training[key] for training in trainings[row.hash]] for key in ("ap50", "seconds"))
        minutes = statistics.mean(seconds) / 60
        less = difference(ap[winner.hash], ap[row.hash])
        print(
            f"{row.name:{width}}{brief(row.cost.flops):>9}{brief(row.cost.params):>9}  {mean_text(ap[row.hash]):45}"
            f"{statistics.mean(ap50):6.3f}{minutes:9.1f}{row.minutes + minutes:8.1f}"
            + ("" if row is winner else f"  {less.mean:+.3f}, {less}")
        )
    for row in others:
        print(f"against {row.name}: {verdict(difference(ap[winner.hash], ap[row.hash]))}")


def verdict(less: Interval) -> str:
    """What an interval says of the winner."""
    if math.isnan(less.low):
        return "nothing can be said: a training diverged"
    if less.low > 0:
        return f"the winner is better by {less.mean:.3f} AP; the interval, {less}, excludes zero"
    if less.high < 0:
        return f"the winner is worse by {-less.mean:.3f} AP; the interval, {less}, excludes zero"
    return f"no difference is shown; the interval, {less}, contains zero"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="digits", help="as of `gpnas search`; it must have a test split")
    parser.add_argument("--imgsz", type=int, default=128, help="pixels, of the limit and of the trainings")
    parser.add_argument("--max-flops", default="gelan-t", help="a number such as 58.01M, or a name of the catalogue")
    parser.add_argument("--budget", default="40m", help="of the search")
    parser.add_argument("--epochs", type=int, default=8, help="of each training")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each row, at least 2")
    parser.add_argument("--random", type=int, default=8, help="random candidates; 0: leave out the row")
    parser.add_argument("--not-at-limit", action="store_true", help="baselines at the winner's FLOPs alone")
    parser.add_argument("--main-alone", action="store_true", help="add the winner without its auxiliary branch")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time, a thread each")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error(f"--seeds {arguments.seeds}: must be at least 2, for an interval")
    images = open_data(arguments.data)
    if "test" not in images.splits:
        parser.error(f"--data {arguments.data}: has no test split, on which the detectors are compared; add one")
    out, data, jobs = arguments.out.resolve(), absolute(arguments.data), arguments.jobs
    recipe = Recipe(data, arguments.imgsz, arguments.epochs, arguments.batch)
    limit = flops_limit(arguments.max_flops, len(images.names), arguments.imgsz)
    search = search_under(limit, data, arguments.imgsz, arguments.budget, out / "search")
    rows = [*found_rows(search, out, arguments.main_alone), *baseline_rows(search, limit, not arguments.not_at_limit, out)]
    chosen = best_random(search, limit, arguments.random, recipe, jobs, out) if arguments.random else None
    rows = without_copies([*rows, *([chosen] if chosen else [])])
    tasks = [(row, FRESH_SEED + k) for k in range(arguments.seeds) for row in rows]
    trained = train_all(out, [(row.file, seed) for row, seed in tasks], recipe, jobs)
    trainings: dict[str, list[dict[str, Any]]] = {row.hash: [] for row in rows}
    for (row, _), training in zip(tasks, trained, strict=True):
        trainings[row.hash].append(training)
    print(
        f"{arguments.data}: a search of {arguments.budget} with {search.settings.slots} workers, under {brief(limit)} FLOPs at "
        f"{arguments.imgsz} px, trained\n{search.trained} candidates; here {arguments.epochs} epochs, batches of "
        f"{arguments.batch}, {arguments.seeds} seeds each"
    )
    print_table(rows, trainings)
    if chosen:
        paid = search.minutes / chosen.minutes * arguments.random
        cost = f"{search.minutes:.0f} minutes of a core, {arguments.random} random trainings {chosen.minutes:.0f}"
        print(f"cost of the choice: the search {cost}; for its cost a random search could train {paid:.0f}")


if __name__ == "__main__":
    main()
