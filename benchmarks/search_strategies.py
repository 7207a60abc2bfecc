"""Our search on a table beside Optuna's TPE and NSGA-II, NNI's evolution tuner, and the strategies of `gpnas bench`.

    python benchmarks/search_strategies.py nb201.csv [COLUMN] [SEEDS]                        # as gpnas bench search
    python benchmarks/search_strategies.py benchmarks/gp-bench [digits|bccd] [SEEDS] [BUT]   # as gpnas bench front

Each rival has its defaults, with the populations of evolution set to 10 for budgets of 100. What one asks for again is answered
and not counted. A table of detectors holds few of the choices that there are: what a rival asks for stands for the nearest
row, in choices, that is not trained yet. TPE and NSGA-II are told AP and log MACs there, NNI's tuner, which knows one
objective, AP. Optuna is a development dependency.
"""

import functools
import logging
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import optuna
from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
from rich.console import Console

from gpnas.bench import detector_strategies as front_search
from gpnas.bench.cell_strategies import POPULATION, STRATEGIES, Strategy, Table, regrets
from gpnas.bench.detector_strategies import FrontTable, share
from gpnas.cli.bench import cell_table, detector_table
from gpnas.report.tables import regrets_table, shares_table

EVALUATIONS, EPOCHS = 100, 800


def values_of(table: Table) -> list[list[str]]:
    return [sorted({choice[k] for choice in table.choices}) for k in range(len(table.choices[0]))]


SAMPLERS = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
    "nsga-ii": lambda seed: optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed),
}


def by_optuna(sampler: str) -> Strategy:
    def search(table: Table, rng: np.random.Generator) -> Generator[int, float, None]:
        seed, index = int(rng.integers(2**31)), {choice: i for i, choice in enumerate(table.choices)}
        study = optuna.create_study(direction="maximize", sampler=SAMPLERS[sampler](seed))
        while True:
            trial = study.ask()
            choice = tuple(trial.suggest_categorical(str(k), values) for k, values in enumerate(values_of(table)))
            study.tell(trial, (yield index[choice]))

    return search


def nni_tuner(values: dict[str, list[str]], seed: int) -> EvolutionTuner:
    """With a first population of the seed's: it would draw one from a generator that the system seeds."""
    random.seed(seed)  # where it mutates
    tuner = EvolutionTuner(optimize_mode="maximize", population_size=POPULATION)
    tuner.update_search_space({label: {"_type": "choice", "_value": of} for label, of in values.items()})
    tuner.random_state = np.random.RandomState(seed)
    tuner.population.clear()
    for _ in range(POPULATION):
        tuner._random_generate_individual()
    return tuner


def nni_evolution(table: Table, rng: np.random.Generator) -> Generator[int, float, None]:
    index = {choice: i for i, choice in enumerate(table.choices)}
    tuner = nni_tuner({str(k): values for k, values in enumerate(values_of(table))}, int(rng.integers(2**31)))
    number = 0
    while True:
        chosen = tuner.generate_parameters(number)
        accuracy = yield index[tuple(chosen[str(k)] for k in range(len(chosen)))]
        tuner.receive_trial_result(number, chosen, accuracy)
        number += 1


class Snapped:
    """A table of detectors as a grid of choices, most of it empty."""

    def __init__(self, table: FrontTable) -> None:
        self.labels = sorted({label for choices in table.choices for label in choices})
        self.rows = np.array([[str(choices.get(label, "")) for label in self.labels] for choices in table.choices])
        self.values = {label: sorted(set(self.rows[:, k])) for k, label in enumerate(self.labels)}
        self.free = np.ones(len(self.rows), dtype=bool)

    def row(self, asked: dict[str, str]) -> int:
        """The nearest row that is not trained yet, which then is."""
        wanted = np.array([asked[label] for label in self.labels])
        away = (self.rows != wanted).sum(axis=1) + np.where(self.free, 0, len(self.labels) + 1)
        row = int(away.argmin())
        self.free[row] = False
        return row


def front_by_optuna(sampler: str) -> front_search.Strategy:
    def search(table: FrontTable, seed: int) -> Generator[tuple[int, int], float, None]:
        grid = Snapped(table)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=SAMPLERS[sampler](seed))
        while grid.free.any():
            trial = study.ask()
            row = grid.row({label: trial.suggest_categorical(label, values) for label, values in grid.values.items()})
            ap = yield row, table.epochs
            study.tell(trial, (ap, float(np.log2(table.macs[row]))))

    return search


def front_by_nni(table: FrontTable, seed: int) -> Generator[tuple[int, int], float, None]:
    grid = Snapped(table)
    tuner = nni_tuner(grid.values, seed)
    number = 0
    while grid.free.any():
        chosen = tuner.generate_parameters(number)
        tuner.receive_trial_result(number, chosen, (yield grid.row(chosen), table.epochs))
        number += 1


FRONTS = front_search.STRATEGIES | {
    "Optuna TPE": front_by_optuna("tpe"),
    "Optuna NSGA-II": front_by_optuna("nsga-ii"),
    "NNI evolution": front_by_nni,
}

detectors = functools.cache(detector_table)


def of_front(path: Path, data: str, but: int, name: str, seed: int) -> np.ndarray:
    """One search, in a worker process."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    return share(FRONTS[name], detectors(path, data, but), EPOCHS, seed)


def fronts(path: Path, data: str, seeds: int, but: int) -> None:
    curves = {}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for name in FRONTS:
            began = time.monotonic()
            curves[name] = np.array(list(pool.map(functools.partial(of_front, path, data, but, name), range(seeds))))
            print(f"{name}: {seeds} searches in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    Console(width=160).print(shares_table(curves, f"{len(detectors(path, data, but).candidates)} detectors, {data}"))


def main() -> None:
    path, which = Path(sys.argv[1]), (sys.argv[2] if len(sys.argv) > 2 else None)
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 50
    if path.is_dir():
        fronts(path, which or "digits", seeds, int(sys.argv[4]) if len(sys.argv) > 4 else 0)
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    cells, column = cell_table(path, which)
    rivals = {"Optuna TPE": by_optuna("tpe"), "Optuna NSGA-II": by_optuna("nsga-ii"), "NNI evolution": nni_evolution}
    curves = {}
    for name, of_cells in (STRATEGIES | rivals).items():
        curves[name] = regrets(of_cells, cells, EVALUATIONS, seeds)
        print(name, file=sys.stderr)
    Console(width=160).print(regrets_table(curves, column))


if __name__ == "__main__":
    main()
