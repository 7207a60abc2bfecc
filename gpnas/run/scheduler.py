"""What a search runs next, within its budget: it explores, then it confirms, then it uses what is left.

    scheduler = Scheduler(controller, journal, budget, durations, slots=2)
    for suggestion in scheduler.ready(free=2, running=[], left=540.0):
        scheduler.start(suggestion)
        scheduler.tell(suggestion, evaluation)

While it explores, the controller suggests candidates and promotions. When the budget has room for nothing but the confirmation
of the leaders (gpnas/search/confirm.py), that begins. What time is left then goes to further fresh seeds, and to exploration.

A search that was stopped goes on by the same calls. The controller adopts the candidates of the journal and decides again,
which depends only on the seed and the results. When the confirmation begins depends on the clock, so an event in the journal
says which trials it has. Results that are in the journal are replayed, not trained again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import replace

from gpnas.errors import JournalError
from gpnas.run.durations import Durations
from gpnas.run.events import Confirming, Noted
from gpnas.run.journal import CONFIRM, PLAN, Journal, TrialRow
from gpnas.search.budget import Budget
from gpnas.search.confirm import CONFIRM_SHARE, LEADERS, SEEDS, Chosen, Confirmation, choose, leaders
from gpnas.search.controller import Controller, Key, Suggestion
from gpnas.search.ladder import REDUCTION
from gpnas.search.plan import FEWEST
from gpnas.search.trial import FIRST_FRESH, Evaluation, TrialState
from gpnas.units import clock

PACKED = 0.9
"""Share of the time for the confirmation that its evaluations may fill: seeds are whole, and estimates err."""

MOST_SEEDS = 12
"""Fresh seeds of a trial, at most, where a time budget has room for more than the confirmation asks."""


FEWEST_RUNGS = 2
"""Rungs that a search keeps, however slow its evaluations are."""

NOTHING_CONFIRMED = "the budget does not pay for a confirmation: each result is one training"


class Scheduler:
    """The phases of a search. confirmation: None while the search explores."""

    def __init__(
        self,
        controller: Controller,
        journal: Journal,
        budget: Budget,
        durations: Durations,
        slots: int,  # workers
    ) -> None:
        self.confirmation: Confirmation | None = None
        self._controller, self._journal, self._budget, self._durations = controller, journal, budget, durations
        self._slots = slots
        self._is_restored = self._explored = False
        self._room = 0.0  # for the confirmation, since it began: worker seconds, epochs or training FLOPs
        self._late: set[Key] = set()  # evaluations that began before the confirmation and end after its begin
        self._epochs = sum(_spent(row.evaluation) for row in journal.evaluations() if row.evaluation)
        self._is_replanned = any(event.kind == PLAN and event.data["decision"] for event in journal.events())
        self.notes: list[Noted | Confirming] = []  # events that nobody has taken yet
        self._shortest = math.inf  # seconds of the shortest evaluation for which no time was left

    def ready(
        self,
        free: int,  # workers
        running: Collection[Suggestion],
        left: float | None,  # seconds of a time budget; None for another kind of budget
    ) -> list[Suggestion]:
        """Up to `free` suggestions that the budget still pays for, the most important first.

        Raises JournalError when a candidate does not rebuild to the one in the journal.
        """
        if free == 0:
            self._replay(1)  # one decision is made ahead while all workers are busy
            return []
        if not self._is_restored:
            self._is_restored = True
            self._restore()
        if self.confirmation is None:
            self._replan()
            chosen = self._explore(free, running, left, self._reserve())
            if chosen or not self._explored:
                return chosen
            self._confirm(running, left)
        if self._late:
            late = [s for s in self._replay(free) if s.key in self._late]  # in a resumed run they may have to run again
            if late:
                return late[:free]
            if self._late <= self._controller.results.keys():
                self._late = set()
                self._confirm(running, left)  # the last results may change who leads
        return self._fresh(running, left)[:free] or self._explore(free, running, left, 0.0)

    def start(self, suggestion: Suggestion) -> None:
        """The evaluation runs: do not suggest it again."""
        self._asked(suggestion).start(suggestion)

    def tell(self, suggestion: Suggestion, evaluation: Evaluation) -> None:
        """Record a result that is in the journal."""
        self._asked(suggestion).tell(suggestion, evaluation)
        self._durations.record(suggestion, evaluation)
        self._epochs += _spent(evaluation)

    def why_ended(self, left: float | None) -> str:
        """Why nothing is left to start, in one line."""
        if self._budget.kind == "trials" and len(self._controller.trials) >= self._budget.amount:
            return f"all {self._budget.amount} candidates were trained"
        if left is not None and left > 0 and self._shortest < math.inf:
            return f"{clock(left)} of the budget are left, less than the shortest evaluation takes ({clock(self._shortest)})"
        if self._budget.kind == "epochs" or (left is not None and left <= 0):
            return "the budget is spent"
        return "the space has no further candidate within the limits"

    def spent_share(self) -> float:
        """The share of a budget of trials or epochs that is spent, in [0, 1]."""
        results = self._controller.results
        trained = len({trial for trial, _, _ in results}) if self._budget.kind == "trials" else self._epochs
        return min(1.0, trained / self._budget.amount)

    def _replan(self) -> None:
        """After the first wave, see how many candidates a time budget pays for at the measured speed. With fewer than FEWEST,
        the search does without its top rung."""
        controller, rungs = self._controller, len(self._controller.fidelities)
        first = [trial for trial, rung, _ in controller.results if rung == 0]
        if self._is_replanned or self._budget.kind != "seconds" or len(first) < controller.ladder.wave:
            return
        self._is_replanned = True
        trials = [controller.trials[i] for i in first]
        medians = [
            statistics.median(self._durations.estimate(Suggestion(trial, rung, fidelity)) for trial in trials)
            for rung, fidelity in enumerate(controller.ladder.fidelities)
        ]
        explored = (1 - CONFIRM_SHARE) * self._budget.amount * self._slots

        def candidates(count: int) -> float:
            return float(explored / sum(seconds / REDUCTION**rung for rung, seconds in enumerate(medians[:count])))

        while rungs > FEWEST_RUNGS and candidates(rungs) < FEWEST:
            rungs -= 1
        text = f"at the speed of the first candidates the budget pays for about {candidates(rungs):.0f}"
        if rungs < len(controller.fidelities):
            text += f", and does without the top rung: with it, it would pay for {candidates(len(controller.fidelities)):.0f}"
        decision = controller.use_rungs(rungs)
        self._journal.add_event(PLAN, {"decision": decision, "rungs": rungs, "candidates": round(candidates(rungs), 1)})
        self.notes.append(Noted(text))

    def _explore(self, free: int, running: Collection[Suggestion], left: float | None, reserve: float) -> list[Suggestion]:
        """Suggestions of the controller for which the budget has room beside the `reserve`, in seconds or epochs.

        `_explored` is set when there will be none any more: the controller has nothing to suggest, or the budget no room.
        """
        seconds = None if left is None else left - reserve
        room = self._epochs_left(sum(map(self._durations.new_epochs, running))) - reserve
        suggestions = self._suggestions(free, seconds)
        fitting: list[Suggestion] = []
        for suggestion in suggestions:
            epochs = self._durations.new_epochs(suggestion)
            if epochs <= room and self._fits([suggestion], seconds):
                room -= epochs
                fitting.append(suggestion)
        self._explored = not fitting and bool(suggestions or not running)
        return fitting[:free]

    def _suggestions(self, free: int, left: float | None) -> list[Suggestion]:
        """Suggestions of the controller. A promotion that takes longer than the time left is pruned, so that the controller
        can decide what comes after it."""
        while True:
            suggestions = self._replay(free)
            too_long = [s for s in suggestions if s.rung and not self._fits([s], left)]
            if not too_long:
                return suggestions
            for suggestion in too_long:
                self._prune(suggestion)

    def _fresh(self, running: Collection[Suggestion], left: float | None) -> list[Suggestion]:
        """Suggestions of the confirmation that can be finished up to the top rung."""
        assert self.confirmation is not None  # the search has explored
        begun = [s for s in running if s.fidelity.seed >= FIRST_FRESH]
        room = self._epochs_left(sum(self._durations.new_epochs(s) for first in begun for s in self.confirmation.rest(first)))
        fitting = []
        for suggestion in self._replay_confirmation():
            rest = self.confirmation.rest(suggestion)
            epochs = sum(map(self._durations.new_epochs, rest))
            if epochs <= room and self._fits(rest, left):
                room -= epochs
                fitting.append(suggestion)
        return fitting

    def _epochs_left(self, promised: int) -> float:
        """Epochs that remain of a budget of epochs, without those that are promised; infinity for another kind of budget."""
        return self._budget.amount - self._epochs - promised if self._budget.kind == "epochs" else math.inf

    def _fits(self, evaluations: Sequence[Suggestion], left: float | None) -> bool:
        """Whether `left` seconds are enough for all of them, one after the other."""
        if left is None:
            return True
        needed = sum(map(self._durations.estimate, evaluations))
        if needed > left:
            self._shortest = min(self._shortest, needed)
        return needed <= left

    def _reserve(self) -> float:
        """What is kept for the confirmation, in seconds or epochs: CONFIRM_SHARE of the budget, or less where the confirmation
        of as many trials as can be would take less. 0 for a budget of trials, in which it does not count."""
        if self._budget.kind == "trials":
            return 0.0
        share = CONFIRM_SHARE * self._budget.amount
        measured = leaders(self._controller.trials, self._controller.results, self._controller.best_first)
        if not measured:
            return share
        most = SEEDS * (LEADERS + len(self._known())) * max(map(self._cost_of_a_seed, measured))
        return min(share, most / self._slots if self._budget.kind == "seconds" else most)

    def _room_left(self, left: float | None) -> float:
        """What the rest of the budget pays for; of a budget of trials, as much as CONFIRM_SHARE would be of all training. left:
        seconds of a time budget."""
        if self._budget.kind == "trials":
            return self._durations.flops_so_far * CONFIRM_SHARE / (1 - CONFIRM_SHARE)
        return self._epochs_left(0) if left is None else left * self._slots

    def _choice(self, room: float) -> Chosen:
        """The trials whose confirmation the room pays for."""
        order = leaders(self._controller.trials, self._controller.results, self._controller.best_first)
        chosen = choose(order, self._known(), self._cost_of_a_seed, PACKED * room)
        # The slowest first, so that the workers end at about the same time.
        return replace(chosen, trials=tuple(sorted(chosen.trials, key=self._cost_of_a_seed, reverse=True)))

    def _known(self) -> list[int]:
        return [trial.id for trial in self._controller.trials if trial.origin.is_known]

    def _cost_of_a_seed(self, trial_id: int) -> float:
        """Of one seed of a trial on all rungs: seconds, epochs or, for a budget of trials, training FLOPs."""
        trial = self._controller.trials[trial_id]
        rungs = [Suggestion(trial, rung, fidelity) for rung, fidelity in enumerate(self._controller.fidelities)]
        if self._budget.kind == "epochs":
            return float(rungs[-1].fidelity.epochs)
        return sum(map(self._durations.estimate if self._budget.kind == "seconds" else self._durations.flops, rungs))

    def _confirm(self, running: Collection[Suggestion], left: float | None) -> None:
        """Begin the confirmation, or choose its trials again."""
        if self.confirmation is None:
            self._room = self._room_left(left)
            self._late = {suggestion.key for suggestion in running}
        chosen = self._choice(self._room)  # the same room where late results may have changed who leads
        if self.confirmation is not None and {trial.id for trial in self.confirmation.trials} == set(chosen.trials):
            return
        event = {
            "trials": chosen.trials,
            "seeds": chosen.seeds,
            "rungs": len(self._controller.fidelities),
            "budget": self._budget.amount,
            "room": self._room,
            "late": sorted(self._late),
        }
        self._journal.add_event(CONFIRM, event)
        self._open_confirmation(chosen, running)

    def _open_confirmation(self, chosen: Chosen, running: Collection[Suggestion]) -> None:
        trials = [self._controller.trials[i] for i in chosen.trials]
        most = MOST_SEEDS if self._budget.kind == "seconds" else None
        self.confirmation = Confirmation(trials, self._controller.fidelities, chosen.seeds, most)
        for suggestion in running:
            self._asked(suggestion).start(suggestion)
        self.notes.append(Confirming(chosen.trials, chosen.seeds) if chosen.trials else Noted(NOTHING_CONFIRMED))

    def _restore(self) -> None:
        """Go on with the confirmation that an earlier session began in this budget, if there is one."""
        begun = [event.data for event in self._journal.events() if event.kind == CONFIRM]
        if begun and begun[-1]["budget"] == self._budget.amount:
            self._replay(1)
            self._room = begun[-1]["room"]
            self._late = {(trial, rung, seed) for trial, rung, seed in begun[-1]["late"]}
            self._open_confirmation(Chosen(tuple(begun[-1]["trials"]), begun[-1]["seeds"]), [])

    def _replay(self, wanted: int) -> list[Suggestion]:
        """Ask the controller until it suggests evaluations whose results are not in the journal, and tell it those that are.

        Returns its suggestions once there are `wanted` or it has no more. Every suggestion is looked up, because an earlier
        session may have decided in another order, with a smaller budget perhaps. Raises JournalError when a candidate does not
        rebuild to the one in the journal.
        """
        while True:
            suggestions = self._controller.ask(wanted)
            _record_trials(self._controller, self._journal)
            if not self._told_from_journal(self._controller, suggestions):
                return suggestions

    def _replay_confirmation(self) -> list[Suggestion]:
        """The same with the confirmation."""
        assert self.confirmation is not None
        while True:
            suggestions = self.confirmation.ask()
            if not self._told_from_journal(self.confirmation, suggestions):
                return suggestions

    def _told_from_journal(self, asked: Controller | Confirmation, suggestions: Sequence[Suggestion]) -> bool:
        """Tell `asked` the results of its suggestions that the journal holds; returns whether there were any."""
        found = [(s, self._journal.lookup(s.trial.candidate.hash, s.fidelity)) for s in suggestions]
        known = [(suggestion, evaluation) for suggestion, evaluation in found if evaluation is not None]
        for suggestion, evaluation in known:
            asked.start(suggestion)
            asked.tell(suggestion, evaluation)
            self._durations.record(suggestion, evaluation)
        return bool(known)

    def _prune(self, suggestion: Suggestion) -> None:
        trial, rung, seed = suggestion.key
        evaluation = Evaluation(TrialState.PRUNED, message="the budget left no time for it")
        self._journal.start_evaluation(trial, rung, suggestion.fidelity)
        self._journal.finish_evaluation(trial, rung, evaluation, seed)
        self.start(suggestion)
        self.tell(suggestion, evaluation)

    def _asked(self, suggestion: Suggestion) -> Controller | Confirmation:
        """Who suggested it."""
        if suggestion.fidelity.seed < FIRST_FRESH:
            return self._controller
        assert self.confirmation is not None  # fresh seeds are trained after it began
        return self.confirmation


def _record_trials(controller: Controller, journal: Journal) -> None:
    """Add new trials to the journal, and check that the others have the hashes that the journal holds."""
    held = journal.trials()
    for trial in controller.trials[: len(held)]:
        if held[trial.id].hash != trial.candidate.hash:
            raise JournalError(
                f"trial {trial.id} was {held[trial.id].hash} and is now {trial.candidate.hash}: this run was made by another "
                "version of gpnas; resume it with that version"
            )
    for trial in controller.trials[len(held) :]:
        journal.add_trial(
            TrialRow(
                id=trial.id,
                hash=trial.candidate.hash,
                genotype=trial.candidate.genotype,
                origin=trial.origin,
                score=trial.score,
                params=trial.cost.params,
                macs=trial.cost.macs,
            )
        )


def _spent(evaluation: Evaluation) -> int:
    """Epochs that a budget counts: at least one for each attempt, else immediate failures would never spend a budget."""
    return 0 if evaluation.state is TrialState.PRUNED else max(1, evaluation.epochs)
