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
from typing import Any

from gpnas.errors import JournalError
from gpnas.run.durations import Durations
from gpnas.run.events import Confirming, Noted
from gpnas.run.journal import CONFIRM, PLAN, Journal, TrialRow
from gpnas.search.budget import Budget
from gpnas.search.confirm import CONFIRM_SHARE, LEADERS, PACKED, SEEDS, Chosen, Confirmation, choose, leaders
from gpnas.search.controller import Controller, Key, Suggestion
from gpnas.search.plan import FEWEST, explored_candidates
from gpnas.search.trial import FIRST_FRESH, Evaluation, TrialState

MOST_SEEDS = 12
"""Fresh seeds of a trial, at most, where a time budget has room for more than the confirmation asks."""

MOST_UNFIT = 8
"""Suggestions without room beside which the controller is asked for further, smaller ones."""

FEWEST_RUNGS = 2
"""Rungs that a search keeps, however slow its evaluations are."""

NOTHING_CONFIRMED = "the budget does not pay for a confirmation with fresh seeds"


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
        self._is_restored = self._is_resumed = self._explored = False
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
        self._shortest = math.inf
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
            if again := self._killed(free, left):
                return again
            if self._late <= self._controller.results.keys():
                self._late = set()
                self._confirm(running, left)  # the last results may change who leads
        return self._fresh(running, left)[:free] or self._explore(free, running, left, 0.0)

    def _killed(self, free: int, left: float | None) -> list[Suggestion]:
        """Explorations that ran when the confirmation began, and that a kill interrupted: they run again if there is time."""
        if not self._is_resumed:
            return []
        killed = [suggestion for suggestion in self._replay(1) if suggestion.key in self._late]
        for suggestion in killed:
            if not self._fits([suggestion], left):
                self._prune(suggestion)
        return [suggestion for suggestion in killed if suggestion.key not in self._controller.results][:free]

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
            return f"{left:.0f} s of the budget are left, and the shortest evaluation takes about {self._shortest:.0f} s"
        if self._epochs_left([]) < self._controller.ladder.fidelities[0].epochs or (left is not None and left <= 0):
            return "the budget is spent"
        return "the space has no further candidate within the limits"

    def spent_share(self) -> float | None:
        """The share of a budget of trials or epochs that is spent, in [0, 1]; None where nobody can tell: while it confirms."""
        if self._budget.kind == "epochs":
            return min(1.0, self._epochs / self._budget.amount)
        trained = len({trial for trial, _, _ in self._controller.results})
        return None if self.confirmation else (1 - CONFIRM_SHARE) * min(1.0, trained / self._budget.amount)

    def _replan(self) -> None:
        """After the first wave, see how many candidates a time budget pays for at the measured speed. With fewer than FEWEST,
        the search does without its top rung."""
        controller, rungs = self._controller, len(self._controller.fidelities)
        first = [trial for trial, rung, seed in controller.results if rung == seed == 0]
        if self._is_replanned or self._budget.kind != "seconds" or len(first) < controller.ladder.wave:
            return
        self._is_replanned = True
        trials = [controller.trials[i] for i in first]
        medians = [
            statistics.median(self._durations.estimate(Suggestion(trial, rung, fidelity)) for trial in trials)
            for rung, fidelity in enumerate(controller.ladder.fidelities)
        ]

        def candidates(count: int) -> float:
            return explored_candidates(medians[:count], self._budget.amount, self._slots)

        while rungs > FEWEST_RUNGS and candidates(rungs) < FEWEST:
            rungs -= 1
        before = len(controller.fidelities)
        text = f"at the speed of the first candidates the budget pays for about {candidates(before):.0f} candidates"
        if rungs < before:
            text += f"; without the top rung, which the search now leaves out, for about {candidates(rungs):.0f}"
        decision = controller.use_rungs(rungs)
        self._journal.add_event(PLAN, {"decision": decision, "rungs": rungs, "candidates": round(candidates(rungs), 1)})
        self.notes.append(Noted(text))

    def _explore(self, free: int, running: Collection[Suggestion], left: float | None, reserve: float) -> list[Suggestion]:
        """Suggestions of the controller for which the budget has room beside the `reserve`, in seconds or epochs.

        `_explored` is set when there will be none any more: the controller has nothing to suggest, or the budget no room.
        """
        seconds = None if left is None else left - reserve
        room = self._epochs_left(running) - reserve
        fitting: list[Suggestion] = []
        for most in range(free, free + MOST_UNFIT + 1):
            suggestions = self._suggestions(most, room, seconds)
            fitting, rest = [], room
            for suggestion in suggestions:
                epochs = self._durations.new_epochs(suggestion)
                if epochs <= rest and self._fits([suggestion], seconds):
                    rest -= epochs
                    fitting.append(suggestion)
            if len(fitting) >= free or len(suggestions) < most or room < self._controller.fidelities[0].epochs:
                break
        self._explored = not fitting and bool(suggestions or not running)
        return fitting[:free]

    def _suggestions(self, wanted: int, room: float, left: float | None) -> list[Suggestion]:
        """Suggestions of the controller. A promotion for which there is no room is pruned, so that the controller can decide
        what comes after it. room: epochs. left: seconds."""
        while True:
            suggestions = self._replay(wanted)
            too_long = [
                s for s in suggestions if s.rung and not (self._durations.new_epochs(s) <= room and self._fits([s], left))
            ]
            if not too_long:
                return suggestions
            for suggestion in too_long:
                self._prune(suggestion)

    def _fresh(self, running: Collection[Suggestion], left: float | None) -> list[Suggestion]:
        """Suggestions of the confirmation that can be finished up to the top rung: first of seeds that have begun."""
        assert self.confirmation is not None  # the search has explored
        suggestions = self._replay_confirmation()
        begun = [s for s in suggestions if s.rung]
        room, fitting = self._epochs_left(running), [s for s in begun if self._fits(self.confirmation.rest(s), left)]
        for suggestion in suggestions:
            rest = self.confirmation.rest(suggestion)
            epochs = sum(map(self._durations.new_epochs, rest))
            if not suggestion.rung and epochs <= room and self._fits(rest, left):
                room -= epochs
                fitting.append(suggestion)
        return fitting

    def _epochs_left(self, running: Collection[Suggestion]) -> float:
        """Epochs that remain of a budget of epochs when what runs has ended, and each fresh seed that has begun is on the top
        rung; infinity for another kind of budget."""
        if self._budget.kind != "epochs":
            return math.inf
        promised = [s for s in running if s.fidelity.seed < FIRST_FRESH]
        if self.confirmation is not None:
            begun = [s for s in running if s.fidelity.seed >= FIRST_FRESH] + [s for s in self.confirmation.ask() if s.rung]
            promised += [rest for first in begun for rest in self.confirmation.rest(first)]
        return self._budget.amount - self._epochs - sum(map(self._durations.new_epochs, promised))

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

    def _room_left(self, running: Collection[Suggestion], left: float | None) -> float:
        """What the rest of the budget pays for; of a budget of trials, as much as CONFIRM_SHARE would be of all training. left:
        seconds of a time budget."""
        if self._budget.kind == "trials":
            return self._durations.flops_so_far * CONFIRM_SHARE / (1 - CONFIRM_SHARE)
        return self._epochs_left(running) if left is None else left * self._slots

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
        """Begin the confirmation; or let those that lead after the last results take the places of trials that lead no more and
        have not begun."""
        if self.confirmation is None:
            self._room = self._room_left(running, left)
            self._late = {suggestion.key for suggestion in running}
            chosen = self._choice(self._room)
            before = [event for event in self._confirmations() if event["trials"]]
            if not chosen.trials and before:  # a resumed run that has less left than it had
                self._open_confirmation(Chosen(tuple(before[-1]["trials"]), before[-1]["seeds"]), running)
                return
        else:
            chosen = self._with_late_leaders(self.confirmation)
        event = {
            "trials": chosen.trials,
            "seeds": chosen.seeds,
            "rungs": len(self._controller.fidelities),
            "budget": self._budget.amount,
            "room": self._room,
            "late": sorted(self._late),
        }
        self._journal.add_event(CONFIRM, event)
        if self.confirmation is None or {trial.id for trial in self.confirmation.trials} != set(chosen.trials):
            self._open_confirmation(chosen, running)

    def _with_late_leaders(self, open_one: Confirmation) -> Chosen:
        self._replay_confirmation()  # in a resumed run it may not know yet what has begun
        leading = self._choice(self._room).trials
        ids = [trial.id for trial in open_one.trials]
        places = [i for i in ids if i not in leading and not open_one.has_begun(i)]
        taken = dict(zip(places, (i for i in leading if i not in ids), strict=False))
        return Chosen(tuple(taken.get(i, i) for i in ids), open_one.seeds)

    def _confirmations(self) -> list[dict[str, Any]]:
        """The events of confirmations so far, of all sessions."""
        return [event.data for event in self._journal.events() if event.kind == CONFIRM]

    def _open_confirmation(self, chosen: Chosen, running: Collection[Suggestion]) -> None:
        trials = [self._controller.trials[i] for i in chosen.trials]
        most = MOST_SEEDS if self._budget.kind == "seconds" else None
        self.confirmation = Confirmation(trials, self._controller.fidelities, chosen.seeds, most)
        for suggestion in running:
            self._asked(suggestion).start(suggestion)
        self.notes.append(Confirming(chosen.trials, chosen.seeds) if chosen.trials else Noted(NOTHING_CONFIRMED))

    def _restore(self) -> None:
        """Go on with the confirmation that an earlier session began in this budget, if there is one."""
        begun = [event for event in self._confirmations() if event["budget"] == self._budget.amount]
        if not begun:
            return
        last, wanted = begun[-1], 1
        # What was running when the process was killed is suggested again, and the trials that came after it follow.
        while len(self._replay(wanted)) >= wanted and len(self._controller.trials) <= max(last["trials"], default=-1):
            wanted += 1
        self._is_resumed, self._room = True, last["room"]
        self._late = {(trial, rung, seed) for trial, rung, seed in last["late"]}
        self._open_confirmation(Chosen(tuple(last["trials"]), last["seeds"]), [])

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
