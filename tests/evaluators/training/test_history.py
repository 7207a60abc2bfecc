from pathlib import Path

from evaluators.training.history import write_history


def test_a_row_an_epoch_with_a_column_for_every_key(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_history(path, [{"epoch": 1, "loss": 12.3456789}])
    write_history(path, iter([{"epoch": 1, "loss": 12.3456789}, {"epoch": 2, "loss": 0.000123456789, "ap": 0.5}]))
    assert path.read_bytes() == b"epoch,loss,ap\n1,12.3457,\n2,0.000123457,0.5\n"
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]
