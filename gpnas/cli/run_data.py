"""The data of a run: where they are, what the journal keeps of them, and their images on the lowest rung.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gpnas.cli.options import absolute

if TYPE_CHECKING:
    from evaluators.data.open import DataSource
    from evaluators.data.records import DetectionData
    from gpnas.run.settings import DataFacts, RunSettings


def load_images(settings: RunSettings, images: DetectionData) -> None:
    """Decode the images of the lowest rung into the cache, from which the workers read them, and tell what is wrong with them.

    Raises InputError, before the search starts, when too many are damaged.
    """
    from evaluators.data.memory import streaming_note
    from evaluators.data.problems import check_problems
    from evaluators.proxy import judged_images, load_images

    highest = settings.ladder.fidelities[-1]
    count = round(len(images.splits["train"]) * highest.data_share)
    if note := streaming_note(count, highest.imgsz, settings.device, settings.slots):
        typer.echo(f"data: {note}")
    val, judged = len(images.splits["val"]), len(judged_images(images))
    if judged < val:
        typer.echo(f"data: proxies are evaluated on the same {judged} of the {val} val images")
    problems = load_images(images, settings.ladder.fidelities[0], settings.seed)
    check_problems(settings.data.source, problems, settings.data.strict)
    for problem in problems:
        typer.echo(f"data: {problem}")


def data_source(facts: DataFacts) -> DataSource:
    """Where the data of a run are, and how its splits are chosen."""
    from evaluators.data.open import DataSource

    return DataSource(facts.source, facts.split, facts.val, facts.strict)


def data_facts(source: DataSource, images: DetectionData) -> DataFacts:
    """What a run keeps of its data."""
    from evaluators.data.records import digest
    from gpnas.run.settings import DataFacts

    return DataFacts(
        source=absolute(source.path),
        digest=digest(images),
        names=tuple(images.names),
        images={split: len(records) for split, records in images.splits.items()},
        split=source.split,
        val=absolute(source.val),
        strict=source.strict,
    )
