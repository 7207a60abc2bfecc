"""`gpnas bench`: every command on a small table."""

import json
from pathlib import Path


def test_bench_correlation_reads_a_table_and_writes_features(gpnas, refused, tmp_path):
    cells = ["000000", "000300", "300030", "333333", "111111", "100330", "222222", "000200"]
    rows = "".join(f"{cell},{k * 1.5}\n" for k, cell in enumerate(cells))
    (tmp_path / "cells.csv").write_text("cell,acc\n" + rows)
    out_file = tmp_path / "features.csv"
    code, out, _ = gpnas("bench", "correlation", "--table", tmp_path / "cells.csv", "--json", "--out", out_file)
    told = json.loads(out)
    assert code == 0 and -1 <= told["score"]["acc"]["spearman"] <= 1
    written = out_file.read_text().splitlines()
    assert len(written) == 1 + len(cells) and written[0].startswith("cell,score,capacity")
    (tmp_path / "cells.csv").write_text("cell,acc\n0000009,1\n000000,2\n")
    assert "a cell is six digits" in refused("bench", "correlation", "--table", tmp_path / "cells.csv")
    assert "cannot be read" in refused("bench", "correlation", "--table", tmp_path / "absent.csv")


def test_bench_search_and_surrogate_read_a_table(gpnas, refused, tmp_path):
    cells = [f"{a}{b}{c}{d}30" for a in "0134" for b in "013" for c in "013" for d in "34"]
    rows = "".join(f"{cell},{sum(map(int, cell)) + 0.01 * k},{k}\n" for k, cell in enumerate(cells))
    (tmp_path / "cells.csv").write_text("cell,acc,other\n" + rows)
    table, curves = tmp_path / "cells.csv", tmp_path / "curves.csv"
    code, out, _ = gpnas("bench", "search", "--table", table, "--evaluations", "12", "--seeds", "2", "--out", curves)
    assert code == 0 and "mean regret, acc" in out and "regularised evolution" in out
    assert len(curves.read_text().splitlines()) == 1 + 4 * 12
    code, out, _ = gpnas("bench", "surrogate", "--table", table, "--column", "other", "--draws", "2")
    assert code == 0 and "surrogate, other" in out and "one-hot encoding" in out
    assert "--skip-first 3" in refused("bench", "surrogate", "--table", table, "--skip-first", "3")
    assert "--column nothing" in refused("bench", "search", "--table", table, "--column", "nothing")


def test_bench_surrogate_reads_the_shipped_detectors(gpnas, refused):
    table = Path(__file__).parents[2] / "benchmarks/gp-bench"
    code, out, _ = gpnas("bench", "surrogate", "--table", table, "--skip-first", "150", "--draws", "2")
    assert code == 0 and "surrogate, digits" in out and "Spearman, 20 trained" in out and "nan" not in out
    assert "are needed" in refused("bench", "surrogate", "--table", table, "--skip-first", "199")


def test_bench_published_prints_kendall_for_every_recipe(gpnas):
    code, out, _ = gpnas("bench", "published")
    assert code == 0 and out.count("Kendall with box AP") == 4


def test_bench_published_prints_our_parameters_beside_the_integers_of_the_authors_code(gpnas):
    _, out, _ = gpnas("bench", "published")
    rows = [line.split() for line in out[: out.index("Kendall")].splitlines() if line.split()[1:2] in (["train"], ["fused"])]
    assert ["yolov9-m", "train", "32,878,400", "32", "32,878,432", "32,878,432", "0"] in rows
    assert ["yolov9-m", "fused", "19,978,656", "16", "19,978,672", "19,978,672", "0"] in rows
    assert len(rows) == 20 and all(row[-1] == "0" for row in rows)


def test_bench_growth_prints_the_table_and_draws_the_pictures_of_the_docs(gpnas, tmp_path):
    code, out, err = gpnas("bench", "growth", "--out", tmp_path / "pictures")
    assert (code, err) == (0, "")
    docs = Path(__file__).parents[2] / "docs"
    assert out in (docs / "gradient-paths.md").read_text()
    drawn = sorted((tmp_path / "pictures").iterdir())
    names = ("densenet", "prn", "resnet", "sparsenet")
    assert [file.name for file in drawn] == [f"{kind}-{name}.svg" for kind in ("sources", "timeline") for name in names]
    assert all(file.read_text() == (docs / file.name).read_text() for file in drawn)
