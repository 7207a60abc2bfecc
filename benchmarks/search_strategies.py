"""Our search on a table beside Optuna's TPE and NSGA-II and NNI's evolution tuner, and those of `gpnas bench search`.

    python benchmarks/search_strategies.py nb201.csv [COLUMN] [SEEDS]

The table is one of NAS-Bench-201 cells, as `gpnas bench search` reads it. Each rival has its defaults, with the populations of
evolution set to 10 for budgets of 100; what one asks for again is answered and not counted. Optuna is a development dependency.
"""

import logging
import random
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import optuna
from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
from rich.console import Console

from gpnas.cli import cell_table
from gpnas.tables import regrets_table
from gpnas.tabular_search import POPULATION, STRATEGIES, Strategy, Table, regrets

EVALUATIONS = 100


def values_of(table: Table) -> list[list[str]]:
    return [sorted({choice[k] for choice in table.choices}) for k in range(len(table.choices[0]))]


def by_optuna(sampler: str) -> Strategy:
    def search(table: Table, rng: np.random.Generator) -> Generator[int, float, None]:
        seed, index = int(rng.integers(2**31)), {choice: i for i, choice in enumerate(table.choices)}
        samplers = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
            "nsga-ii": lambda: optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed),
        }
        study = optuna.create_study(direction="maximize", sampler=samplers[sampler]())
        while True:
            trial = study.ask()
            choice = tuple(trial.suggest_categorical(str(k), values) for k, values in enumerate(values_of(table)))
            study.tell(trial, (yield index[choice]))

    return search


def nni_evolution(table: Table, rng: np.random.Generator) -> Generator[int, float, None]:
    random.seed(int(rng.integers(2**31)))  # the tuner draws from both global generators
    np.random.seed(int(rng.integers(2**31)))  # noqa: NPY002 (it is the tuner's own generator)
    index = {choice: i for i, choice in enumerate(table.choices)}
    tuner = EvolutionTuner(optimize_mode="maximize", population_size=POPULATION)
    tuner.update_search_space({str(k): {"_type": "choice", "_value": values} for k, values in enumerate(values_of(table))})
    number = 0
    while True:
        chosen = tuner.generate_parameters(number)
        accuracy = yield index[tuple(chosen[str(k)] for k in range(len(chosen)))]
        tuner.receive_trial_result(number, chosen, accuracy)
        number += 1


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    truth, column = cell_table(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 50
    rivals = {"Optuna TPE": by_optuna("tpe"), "Optuna NSGA-II": by_optuna("nsga-ii"), "NNI evolution": nni_evolution}
    curves = {}
    for name, strategy in (STRATEGIES | rivals).items():
        curves[name] = regrets(strategy, truth, EVALUATIONS, seeds)
        print(name, file=sys.stderr)
    Console(width=160).print(regrets_table(curves, column))


if __name__ == "__main__":
    main()
