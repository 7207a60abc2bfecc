"""What a search was asked for: everything that a run needs to go on, kept in its journal as JSON.

settings = RunSettings(version=__version__, budget=parse_budget("2h"), budget_text="2h", ...)
Journal.create(run, settings.to_json())
RunSettings.from_json(journal.settings) == settings
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpnas.errors import JournalError
from gpnas.search.budget import Budget
from gpnas.search.ladder import Ladder
from gpnas.search.limits import Limits

OLDER: Mapping[str, Any] = {
    "warm_start": False,
    "split": "",
    "val": "",
    "strict": False,
    "levels": "3-5",
    "baselines": {},
    "spread": True,
    "seconds_per_flop": 1e-10,
    "then_train": None,
}
"""Settings that older runs lack, with what they mean there."""


@dataclass(frozen=True)
class DataFacts:
    """A dataset as a run knows it. source: as `--data` names it, absolute. digest: of the records of all splits.
    names: of the classes. images: number of images by split. split, val, strict: as the options of the same names gave them;
    val is absolute."""

    source: str
    digest: str
    names: tuple[str, ...]
    images: Mapping[str, int]
    split: str = ""
    val: str = ""
    strict: bool = False


@dataclass(frozen=True)
class RunSettings:
    """The settings of one run.

    version: of the gpnas that started the run. budget_text: the budget as the user wrote it. space: a name or the path of a
    YAML. start: the architecture to search around, as JSON; start_source: what `--start` named. baselines: architectures that
    start in the first wave, as JSON by name, narrowed to the limits. imgsz: pixels, of the final
    detector. levels: on which candidates predict, such as "3-5". spread: candidates are of all sizes within the limits, else
    most are near the limits. seconds_per_flop: of training in one worker, measured before the search. slots: number of worker
    processes. wandb: offline, online or off; wandb_id: of the W&B run of all sessions. then_train: epochs of the full training
    after the search; None for none.
    """

    version: str
    budget: Budget
    budget_text: str
    data: DataFacts
    space: str
    start: str | None
    start_source: str | None
    baselines: Mapping[str, str]
    imgsz: int
    levels: str
    limits: Limits
    spread: bool
    ladder: Ladder
    seconds_per_flop: float
    seed: int
    warm_start: bool
    device: str
    slots: int
    wandb: str
    wandb_id: str
    then_train: int | None

    def to_json(self) -> dict[str, Any]:
        """The settings as the journal keeps them."""
        return {
            "version": self.version,
            "budget": {"text": self.budget_text, "kind": self.budget.kind, "amount": self.budget.amount},
            "data": self.data.source,
            "data_digest": self.data.digest,
            "names": list(self.data.names),
            "images": dict(self.data.images),
            "split": self.data.split,
            "val": self.data.val,
            "strict": self.data.strict,
            "space": self.space,
            "start": self.start,
            "around": self.start_source,
            "baselines": dict(self.baselines),
            "imgsz": self.imgsz,
            "levels": self.levels,
            "max_flops": self.limits.max_flops,
            "max_params": self.limits.max_params,
            "spread": self.spread,
            "ladder": self.ladder.to_dict(),
            "seconds_per_flop": self.seconds_per_flop,
            "seed": self.seed,
            "warm_start": self.warm_start,
            "device": self.device,
            "slots": self.slots,
            "wandb": self.wandb,
            "wandb_id": self.wandb_id,
            "then_train": self.then_train,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RunSettings:
        """Read what `to_json` made; a run of an older gpnas may lack the keys of OLDER. Raises JournalError when another key is
        missing, when a key is unknown, and when a value has a wrong form."""
        rest = {**OLDER, **stored}
        try:
            settings = _take(rest)
        except KeyError as error:
            raise _unreadable(f"lack the key {error}") from error
        except (TypeError, ValueError) as error:
            raise _unreadable(f"hold a wrong value ({error})") from error
        if rest:
            raise _unreadable(f"have unknown keys ({', '.join(sorted(rest))})")
        return settings


def _unreadable(problem: str) -> JournalError:
    return JournalError(f"the settings in the journal {problem}; use the gpnas that made the run")


def _take(stored: dict[str, Any]) -> RunSettings:
    """The settings, whose keys are removed from `stored`."""
    take = stored.pop
    budget = take("budget")
    return RunSettings(
        version=take("version"),
        budget=Budget(budget["kind"], budget["amount"]),
        budget_text=budget["text"],
        data=DataFacts(
            take("data"),
            take("data_digest"),
            tuple(take("names")),
            dict(take("images")),
            take("split"),
            take("val"),
            take("strict"),
        ),
        space=take("space"),
        start=take("start"),
        start_source=take("around"),
        baselines=dict(take("baselines")),
        imgsz=take("imgsz"),
        levels=take("levels"),
        limits=Limits(take("max_flops"), take("max_params")),
        spread=take("spread"),
        ladder=Ladder.from_dict(take("ladder")),
        seconds_per_flop=take("seconds_per_flop"),
        seed=take("seed"),
        warm_start=take("warm_start"),
        device=take("device"),
        slots=take("slots"),
        wandb=take("wandb"),
        wandb_id=take("wandb_id"),
        then_train=take("then_train"),
    )
