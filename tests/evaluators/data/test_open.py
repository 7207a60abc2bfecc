"""Which format is opened, and what is refused whatever the format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluators.data.bank import load_bank
from evaluators.data.open import open_data
from tests.evaluators.data.small_data import (
    refusal,
    write_data_yaml,
)

BCCD = Path("/work/shared/data/bccd")


def test_what_is_not_there_is_refused_with_what_could_be_given(tmp_path: Path) -> None:
    assert "no data at 'digit' (did you mean 'digits'?)" in refusal("digit")
    message = refusal(tmp_path / "nowhere")
    assert "nowhere" in message
    assert "give 'digits', a COCO folder, or the path of a data.yaml" in message
    (tmp_path / "notes.md").write_text("")
    assert "neither a folder nor a .yaml" in refusal(tmp_path / "notes.md")


def test_a_train_split_without_labels_is_refused(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "labels/train/a.txt").unlink()
    assert "no image of the split 'train' has a box" in refusal(file)


@pytest.mark.skipif(not BCCD.is_dir(), reason=f"no blood cell data at {BCCD}")
def test_the_blood_cells_open_as_their_source_counts_them() -> None:
    data = open_data(str(BCCD))
    assert data.names == ("Platelets", "RBC", "WBC")
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 205, "val": 87, "test": 72}
    classes = np.concatenate([r.classes for records in data.splits.values() for r in records])
    assert np.bincount(classes).tolist() == [361, 4153, 372]
    bank = load_bank(data.splits["test"][:4], 160)
    assert bank.sizes.tolist() == [[120, 160]] * 4
