"""`gpnas search`, `resume`, `show` and `report`."""

import json

import pytest

from tests.cli.pictures import write_coco


def test_a_budget_that_is_none(refused):
    assert "--budget soon: not a budget; write 90s" in refused("search", "--budget", "soon")


def test_an_impossible_limit_names_the_smallest_architecture(refused, tmp_path):
    line = refused("search", "--budget", "1m", "--max-flops", "1", "--out", tmp_path / "run")
    assert "--max-flops 1: nothing in the space is that small; its smallest architecture" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-flops", "lots"], "--max-flops lots: not a positive number"),
        (["--imgsz", "100"], "--imgsz 100: must be a positive multiple of 32"),
        (["--space", "nowhere"], "--space nowhere: no such space or file; ready spaces are gradient-path"),
        (["--workers", "many"], "--workers many: must be auto or local:N"),
        (["--device", "cuda:0"], "--device cuda:0: no CUDA device is here"),
        (["--wandb", "maybe"], "--wandb maybe: must be offline, online or off"),
        (["--nonsense"], "No such option"),
        (["--start", "absent.yaml"], "absent.yaml: no such file"),
    ],
)
def test_options_out_of_range_are_named(refused, arguments, message):
    assert message in refused("search", "--budget", "1m", *arguments)


def test_a_budget_is_needed(refused):
    assert "--budget" in refused("search")


def test_an_out_that_is_no_run_is_left_alone(refused, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    line = refused("search", "--budget", "1m", "--out", tmp_path / "precious")
    assert "exists and is not a gpnas run; choose another folder" in line
    assert [p.name for p in (tmp_path / "precious").iterdir()] == ["file"]


def missing_image(document):
    document["images"][0]["file_name"] = "gone.png"


def box_outside(document):
    document["annotations"][0]["bbox"] = [50, 50, 40, 40]


def unknown_category(document):
    document["annotations"][0]["category_id"] = 99


def empty_split(document):
    document["images"].clear()
    document["annotations"].clear()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing_image, ["gone.png"]),
        (box_outside, ["50", "64"]),
        (unknown_category, ["99"]),
        (empty_split, ["train", "no image"]),
    ],
)
def test_coco_data_that_cannot_be_trained_on(refused, tmp_path, change, words):
    folder = write_coco(tmp_path / "data", change)
    line = refused("search", "--budget", "1m", "--data", folder, "--out", tmp_path / "run")
    for word in words:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_a_data_folder_that_is_not_there(refused, tmp_path):
    assert "absent" in refused("search", "--budget", "1m", "--data", tmp_path / "absent")


@pytest.mark.parametrize("command", ["show", "resume", "report"])
def test_what_is_no_run_cannot_be_shown_or_resumed(refused, tmp_path, command):
    assert "does not exist" in refused(command, tmp_path / "absent")
    assert "is not a gpnas run" in refused(command, tmp_path)


def test_a_search_starts_from_a_published_architecture_as_wide_as_the_limits_allow(gpnas, refused, architecture, tmp_path):
    from search_spaces.blueprint import read_blueprint

    run = tmp_path / "run"
    options = ["--budget", "3trials", "--imgsz", "64", "--max-flops", "8M", "--wandb", "off", "--out", run]
    code, out, _ = gpnas("search", "--start", "yolov9-t", *options)
    assert code == 0 and "searching around yolov9-t" in out and "yolov9-t has" in out and "at width_multiple" in out
    shown = json.loads(gpnas("show", run, "--json")[1])
    assert len(shown["trials"]) == 3 and all(trial["flops"] <= 8e6 for trial in shown["trials"])
    best = read_blueprint((run / "best.yaml").read_text())
    assert best.hash == next(trial["hash"] for trial in shown["trials"] if trial["id"] == shown["best"])
    code, out, _ = gpnas("resume", run, "--budget", "4trials")
    assert code == 0 and " evaluations are finished, 0 were under way" in out and len(list((run / "trials").iterdir())) == 4
    assert "leave out --space" in refused("search", "--start", "yolov9-t", "--space", "elan", "--budget", "1trials")
    assert "even at its narrowest" in refused("search", "--start", "yolov9-t", "--max-flops", "1K", "--budget", "1trials")
    assert "beyond the limits" in refused("export", architecture, "--max-flops", "1K")


def test_a_search_from_data_to_best_yaml_then_training_and_validation(gpnas, tmp_path):
    """The whole way on four tiny images; the numbers mean nothing, the files and the hand-overs are what is tested."""
    from gpnas.graph.cost import cost
    from search_spaces.architecture import candidate
    from search_spaces.genotype import read_genotype

    data, run = write_coco(tmp_path / "data"), tmp_path / "run"
    common = ["--data", data, "--imgsz", "64", "--seed", "1"]
    code, out, err = gpnas("search", *common, "--budget", "2trials", "--max-flops", "60M", "--out", run, "--workers", "local:1")
    assert code == 0, err
    assert "best.yaml" in out and "Pareto front" in out
    for name in ("journal.sqlite", "pareto.csv", "best.yaml", "report.html"):
        assert (run / name).is_file()
    assert list((run / "wandb").glob("offline-run-*"))

    genotype = read_genotype((run / "best.yaml").read_text())
    rebuilt = cost(candidate(genotype).graph.inference(), 64, 64)
    assert genotype.found["hash"] == genotype.hash
    assert (genotype.found["cost"]["flops"], genotype.found["cost"]["params"]) == (rebuilt.flops, rebuilt.params)
    assert rebuilt.flops <= 60e6

    code, out, _ = gpnas("show", run, "--json")
    told = json.loads(out)
    assert code == 0 and told["state"] == "done" and len(told["trials"]) == 2
    assert all(trial["state"] == "complete" and trial["flops"] <= 60e6 for trial in told["trials"])

    code, out, err = gpnas("train", run, "--data", data, "--epochs", "2", "--out", tmp_path / "full", "--device", "cpu")
    assert code == 0, err
    assert (tmp_path / "full" / "best.pt").is_file()
    code, out, err = gpnas("val", tmp_path / "full" / "best.pt", "--data", data)
    assert code == 0, err
    assert "AP50" in out
