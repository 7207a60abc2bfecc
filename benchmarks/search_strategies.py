"""Our search beside Optuna's TPE and NSGA-II, NNI's evolution tuner, and the strategies of `gpnas bench`.

    python benchmarks/search_strategies.py nb201.csv [COLUMN]                                      # cells
    python benchmarks/search_strategies.py benchmarks/gp-bench [digits|bccd] [--skip-first 100]    # detectors

It prints the tables of `gpnas bench search` (regret) or of `gpnas bench front` (share of the area and of the best AP), with
one more row for each rival. `--searches` are those of each strategy. Optuna is a development dependency.

Rivals run with their defaults, except that populations are 10 because budgets are about 100 trainings. A training that a
rival asks for again is answered and costs nothing. A benchmark of detectors holds few of all possible choices, so a rival's
proposal becomes the nearest row, in number of differing choices, that is not trained yet. On detectors TPE and NSGA-II are
told AP and log2 MACs. NNI's tuner has one objective and is told AP. Beside them stand bounds, which know the mean AP of all
seeds (`detector_strategies.BOUNDS`).
"""

import argparse
import functools
import logging
import random
from pathlib import Path

import numpy as np
import optuna
from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
from rich.console import Console
from searches import curves_of, read_detectors

from gpnas.bench import cell_strategies, detector_strategies
from gpnas.bench.accuracy_benchmark import AccuracyBenchmark
from gpnas.bench.cell_strategies import regrets
from gpnas.bench.detector_benchmark import DetectorBenchmark
from gpnas.bench.detector_strategies import share_curves
from gpnas.bench.strategies import POPULATION, Query, Search, Strategy
from gpnas.cli.bench import read_cell_benchmark
from gpnas.report.tables import regrets_table, shares_table

EVALUATIONS, EPOCHS = 100, 800

SAMPLERS = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
    "nsga-ii": lambda seed: optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed),
}


def nni_tuner(values: dict[str, list[str]], seed: int) -> EvolutionTuner:
    """A tuner whose first population is drawn with `seed`; NNI draws it from a generator that cannot be seeded."""
    random.seed(seed)  # NNI mutates with the global generator
    tuner = EvolutionTuner(optimize_mode="maximize", population_size=POPULATION)
    tuner.update_search_space({label: {"_type": "choice", "_value": choices} for label, choices in values.items()})
    tuner.random_state = np.random.RandomState(seed)
    tuner.population.clear()
    for _ in range(POPULATION):
        tuner._random_generate_individual()
    return tuner


def cell_values(benchmark: AccuracyBenchmark) -> dict[str, list[str]]:
    """The values of each position, by its number."""
    return {str(k): sorted(set(values)) for k, values in enumerate(zip(*benchmark.choices, strict=True))}


def sampler_seed(seed: int) -> int:
    return int(np.random.default_rng(seed).integers(2**31))


def cells_by_optuna(sampler: str) -> Strategy[AccuracyBenchmark]:
    def search(benchmark: AccuracyBenchmark, seed: int) -> Search:
        rows = {choices: row for row, choices in enumerate(benchmark.choices)}
        values = cell_values(benchmark)
        study = optuna.create_study(direction="maximize", sampler=SAMPLERS[sampler](sampler_seed(seed)))
        while True:
            trial = study.ask()
            choices = tuple(trial.suggest_categorical(label, options) for label, options in values.items())
            study.tell(trial, (yield Query(rows[choices], 1)))

    return search


def cells_by_nni(benchmark: AccuracyBenchmark, seed: int) -> Search:
    rows = {choices: row for row, choices in enumerate(benchmark.choices)}
    tuner = nni_tuner(cell_values(benchmark), sampler_seed(seed))
    number = 0
    while True:
        chosen = tuner.generate_parameters(number)
        accuracy = yield Query(rows[tuple(chosen[str(k)] for k in range(len(chosen)))], 1)
        tuner.receive_trial_result(number, chosen, accuracy)
        number += 1


class NearestRow:
    """The detectors of a benchmark as points in a grid of choices, most of which is empty."""

    def __init__(self, benchmark: DetectorBenchmark) -> None:
        self.labels = sorted({label for choices in benchmark.choices for label in choices})
        self.rows = np.array([[str(choices.get(label, "")) for label in self.labels] for choices in benchmark.choices])
        self.values = {label: sorted(set(self.rows[:, k])) for k, label in enumerate(self.labels)}
        self.untrained = np.ones(len(self.rows), dtype=bool)

    def take(self, choices: dict[str, str]) -> int:
        """The nearest row that was not taken before."""
        wanted = np.array([choices[label] for label in self.labels])
        differing = (self.rows != wanted).sum(axis=1) + np.where(self.untrained, 0, len(self.labels) + 1)
        row = int(differing.argmin())
        self.untrained[row] = False
        return row


def detectors_by_optuna(sampler: str) -> Strategy[DetectorBenchmark]:
    def search(benchmark: DetectorBenchmark, seed: int) -> Search:
        grid = NearestRow(benchmark)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=SAMPLERS[sampler](seed))
        while grid.untrained.any():
            trial = study.ask()
            row = grid.take({label: trial.suggest_categorical(label, values) for label, values in grid.values.items()})
            ap = yield Query(row, benchmark.epochs)
            study.tell(trial, (ap, float(np.log2(benchmark.macs[row]))))

    return search


def detectors_by_nni(benchmark: DetectorBenchmark, seed: int) -> Search:
    grid = NearestRow(benchmark)
    tuner = nni_tuner(grid.values, seed)
    number = 0
    while grid.untrained.any():
        chosen = tuner.generate_parameters(number)
        tuner.receive_trial_result(number, chosen, (yield Query(grid.take(chosen), benchmark.epochs)))
        number += 1


CELLS: dict[str, Strategy[AccuracyBenchmark]] = cell_strategies.STRATEGIES | {
    "Optuna TPE": cells_by_optuna("tpe"),
    "Optuna NSGA-II": cells_by_optuna("nsga-ii"),
    "NNI evolution": cells_by_nni,
}
DETECTORS: dict[str, Strategy[DetectorBenchmark]] = detector_strategies.STRATEGIES | {
    "Optuna TPE": detectors_by_optuna("tpe"),
    "Optuna NSGA-II": detectors_by_optuna("nsga-ii"),
    "NNI evolution": detectors_by_nni,
    **detector_strategies.BOUNDS,
}


def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)


def search_detectors(path: Path, data: str, skip_first: int, name: str, seed: int) -> np.ndarray:
    """One search, in a worker process."""
    quiet()
    return share_curves(DETECTORS[name], read_detectors(path, data, skip_first), EPOCHS, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="CSV file of cells, or folder of detectors")
    parser.add_argument("column", nargs="?", help="accuracy column (default: the first), or digits (default) or bccd")
    parser.add_argument("--searches", type=int, help="of each strategy (default: 200, of cells 50)")
    parser.add_argument("--skip-first", type=int, default=0, help="detectors to leave out at the start")
    arguments = parser.parse_args()
    path, console = arguments.path, Console(width=160)
    if path.is_dir():
        data = arguments.column or "digits"
        search = functools.partial(search_detectors, path, data, arguments.skip_first)
        count = len(read_detectors(path, data, arguments.skip_first).candidates)
        console.print(shares_table(curves_of(DETECTORS, search, arguments.searches or 200), f"{count} detectors, {data}"))
        return
    quiet()
    cells, column = read_cell_benchmark(path, arguments.column)
    curves = {name: regrets(strategy, cells, EVALUATIONS, arguments.searches or 50) for name, strategy in CELLS.items()}
    console.print(regrets_table(curves, column))


if __name__ == "__main__":
    main()
