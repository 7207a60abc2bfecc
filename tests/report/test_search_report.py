"""The report of a run: the page shows the journal, is well formed and self-contained; no text of a user becomes markup."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpnas.errors import InputError
from gpnas.report.search_report import _busy_time, _spearman, write_report
from gpnas.run.journal import Journal, TrialRow
from gpnas.search.budget import Budget
from gpnas.search.trial import Cause, Evaluation, Fidelity, Origin, TrialState, failure
from search_spaces.growth import network
from tests.confirmed import write_confirmed
from tests.report.svg import SVG, parsed
from tests.settings import run_settings

LOW, HIGH = Fidelity(2, 64), Fidelity(8, 128)


class Page(HTMLParser):
    """Tags that are open at the end, all attributes, and the text of tables by row."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "my run"


def fill(run: Path, *, hostile: str = "", clock: Callable[[], float] | None = None) -> None:
    """Trials 0 and 1 measured (1 at two rungs), 2 failed, 3 running, 4 waiting."""
    ticks = itertools.count(0, 60)
    settings = run_settings(budget=Budget("seconds", 7200), budget_text="2h", imgsz=128)
    data = replace(settings.data, source=f"/data/coco{hostile}/data.yaml", names=(f"cat{hostile}",))
    with Journal.create(run, replace(settings, data=data).to_json(), clock=clock or (lambda: float(next(ticks)))) as journal:
        for i in range(5):
            macs = 500_000_000 * (i + 1)
            row = TrialRow(i, f"hash{i}{hostile}", f"width: {i}{hostile}\n", Origin("sample"), i / 10, 1000, macs)
            journal.add_trial(row)
        for i, evaluation in enumerate(
            [
                Evaluation(TrialState.COMPLETE, {"ap": 0.25, "ap50": 0.5}, 10.0, 2),
                Evaluation(TrialState.COMPLETE, {"ap": 0.125}, 11.0, 2),
                failure(Cause.OOM, f"out of memory{hostile}", 1.0, 1),
            ]
        ):
            journal.start_evaluation(i, 0, LOW)
            journal.finish_evaluation(i, 0, evaluation)
        journal.start_evaluation(1, 1, HIGH)
        journal.finish_evaluation(1, 1, Evaluation(TrialState.COMPLETE, {"ap": 0.375, "ap50": 0.625}, 31.5, 8))
        journal.start_evaluation(3, 0, LOW)
        journal.add_elapsed(3600.0)
        journal.set_state("done")


TRIALS_HEAD = ["trial", "AP", "seeds", "FLOPs", "params", "score", "seconds", "rung", "ranked", "state", "cause", "origin"]


def test_the_page_shows_what_the_journal_holds(run: Path) -> None:
    fill(run)
    path = write_report(run)
    assert path == run / "report.html"
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    for shown in ("my run", "0.375", "2.00G", "1:00:00", "budget 2h", "data.yaml", "4 evaluations, 1 failed, 13 epochs"):
        assert shown in text
    assert ["1 (best)", "0.375", "1", "0.625", "2.00G", "1.00K", "1: 8 epochs, 128 px", "sample", "hash1"] in page.rows
    assert not any("hash0" in row for row in page.rows)  # on rung 0: not on the front
    assert "<p>Ranked: 1 trial on rung 1 (8 epochs, 128 px), the highest that was completed; apart: 1 on rung 0. " in text
    assert "<p>Nothing was confirmed with fresh seeds, so chance may have decided" in text
    trials = page.rows[page.rows.index(TRIALS_HEAD) :]
    assert trials[1:6] == [
        ["0", "0.250", "1", "1.00G", "1.00K", "0.000", "10.0", "0", "", "complete", "", "sample"],
        ["1", "0.375", "1", "2.00G", "1.00K", "0.100", "42.5", "1", "yes", "complete", "", "sample"],
        ["2", "", "", "3.00G", "1.00K", "0.200", "1.0", "0", "", "failed", "oom: out of memory", "sample"],
        ["3", "", "", "4.00G", "1.00K", "0.300", "0.0", "0", "", "running", "", "sample"],
        ["4", "", "", "5.00G", "1.00K", "0.400", "0.0", "", "", "queued", "", "sample"],
    ]
    assert "<pre>width: 1\n</pre>" in text  # the best architecture


def test_the_page_asks_for_nothing_from_outside(run: Path) -> None:
    fill(run)
    page = Page(write_report(run).read_text())
    assert not {"script", "link", "img", "iframe", "object", "use"} & page.tags
    assert [value for name, value in page.attributes if "http" in (value or "")] == ["http://www.w3.org/2000/svg"] * 3
    assert not {"src", "href", "xlink:href", "onload"} & {name for name, _ in page.attributes}


def test_text_is_never_markup(run: Path) -> None:
    fill(run, hostile="<script>alert('1')</script>\"&")
    text = write_report(run).read_text()
    assert "<script" not in text
    assert Page(text).open == []
    parsed((run / "front.svg").read_text())


def test_the_report_changes_nothing_but_its_own_files(run: Path) -> None:
    fill(run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    write_report(run)
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    assert set(after) - set(before) == {"report.html", "front.svg"}
    assert {name: after[name] for name in before} == before
    first = after["report.html"]
    assert write_report(run).read_bytes() == first  # the same journal, the same page


def test_a_report_of_a_run_without_results_says_so(run: Path) -> None:
    with Journal.create(run, run_settings().to_json()):
        text = write_report(run).read_text()  # while the search is running
    assert Page(text).open == []
    assert "no trial was measured" in text
    assert "gpnas run, running" in text


def test_a_folder_that_is_no_run_is_refused(run: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_report(run)


def test_the_page_begins_with_the_comparison(run: Path) -> None:
    with Journal.create(run, run_settings(baselines={"gelan-t": '{"blocks": []}'}).to_json()) as journal:
        for i, (origin, ap) in enumerate([(Origin("baseline", name="gelan-t"), 0.25), (Origin("sample"), 0.375)]):
            journal.add_trial(TrialRow(i, f"hash{i}", "", origin, 0.5, 1000, 10**9 * (i + 1)))
            journal.start_evaluation(i, 0, LOW)
            journal.finish_evaluation(i, 0, Evaluation(TrialState.COMPLETE, {"ap": ap}))
    text = write_report(run).read_text()
    sentence = (
        "<p>Best 0.375 (trial 1, 4.00G FLOPs); baseline gelan-t 0.250 (2.00G FLOPs): +0.125, on rung 0 (2 epochs, 64 px); "
    )
    assert text.index("</dl>") < text.index(sentence) < text.index("<svg")
    rows = Page(text).rows
    assert any("baseline gelan-t" in row for row in rows) and ["baselines", "gelan-t"] in rows
    assert ">gelan-t</text>" in text


def test_pauses_between_sessions_are_no_search_time(run: Path) -> None:
    # Busy from 0 to 10 (two at once) and from 100 to 104.
    moments = iter([0.0, 0.0, 2.0, 8.0, 10.0, 100.0, 104.0, 104.0])
    with Journal.create(run, {}, clock=lambda: next(moments)) as journal:
        for i in range(3):
            journal.add_trial(TrialRow(i, f"hash{i}", "", Origin("sample"), 0.0, 1, 1))
        journal.start_evaluation(0, 0, LOW)
        journal.start_evaluation(1, 0, LOW)
        done = Evaluation(TrialState.COMPLETE, {"ap": 0.5})
        journal.finish_evaluation(0, 0, done)
        journal.finish_evaluation(1, 0, done)
        journal.start_evaluation(2, 0, LOW)
        journal.finish_evaluation(2, 0, done)
        busy = _busy_time(journal.evaluations())
    assert [busy(t) for t in (0.0, 8.0, 10.0, 50.0, 100.0, 104.0)] == [0.0, 8.0, 10.0, 10.0, 10.0, 14.0]


def test_the_gradient_timeline_of_the_best_is_drawn_when_its_graph_is_given(run: Path) -> None:
    fill(run)
    graph = network("resnet", 3)
    text = write_report(run, {"width: 1\n": graph}.__getitem__).read_text()  # the genotype of trial 1
    assert "How gradients reach its layers" in text
    assert all(graph.ops[i].name in text for i in graph.layers)
    assert not Page(text).open
    assert "How gradients reach" not in write_report(run).read_text()


def drawn(text: str, title: str) -> ET.Element:
    """The drawing of a page whose title begins so."""
    start = text.index(f"<title>{title}")
    return parsed(text[text.rindex("<svg", 0, start) : text.index("</svg>", start) + len("</svg>")])


def circles(root: ET.Element) -> dict[str, tuple[float, float]]:
    """Centres of the marks by their titles, without those of the legend."""
    named = {c.findtext(f"{SVG}title") or "": c for c in root.iter(f"{SVG}circle")}
    return {name: (float(c.get("cx", "nan")), float(c.get("cy", "nan"))) for name, c in named.items() if "AP" in name}


def test_progress_is_drawn_over_the_time_in_which_something_was_evaluated(run: Path) -> None:
    """Evaluations take a minute each with a minute's pause after it: they end after 1, 2 and 4 minutes of search."""
    fill(run)
    root = drawn(write_report(run).read_text(), "AP over time")
    marks = circles(root)
    first = marks["trial 0: AP 0.250 at rung 0"]
    second, last = marks["trial 1: AP 0.125 at rung 0"], marks["trial 1: AP 0.375 at rung 1"]
    assert last[0] - first[0] == pytest.approx(3 * (second[0] - first[0]), abs=0.3)
    assert second[1] - first[1] == pytest.approx(first[1] - last[1], abs=0.2)
    lines = [path.get("d") for path in root.iter(f"{SVG}path") if path.get("class") == "front"]
    assert f"M{last[0]} {last[1]}H736.0" in lines  # of rung 1 alone
    assert root.findtext(f"{SVG}desc") == "best AP 0.375 on rung 1 after 3 complete evaluations"
    assert "minutes of search" in "".join(root.itertext())


def fill_scores(run: Path, trials: int) -> None:
    """APs of trials on rung 0 whose ranks swap two pairs of scores, one trial that climbed, a warm start and a failure."""
    aps = [0.25, 0.125, 0.5, 0.375, 0.625][:trials]
    with Journal.create(run, run_settings().to_json()) as journal:
        for i in range(trials + 2):
            origin = Origin("mutate", (0,), 0) if i == trials else Origin("sample")
            journal.add_trial(TrialRow(i, f"hash{i}", "", origin, i / 4, 1000, 10**9 * (1 + i)))
            journal.start_evaluation(i, 0, LOW)
        for i, ap in enumerate([*aps, 0.9]):
            journal.finish_evaluation(i, 0, Evaluation(TrialState.COMPLETE, {"ap": ap}))
        journal.finish_evaluation(trials + 1, 0, failure(Cause.NAN, "loss is nan"))
        journal.start_evaluation(1, 1, HIGH)
        journal.finish_evaluation(1, 1, Evaluation(TrialState.COMPLETE, {"ap": 0.75}))


def test_the_score_is_compared_with_ap_on_the_lowest_rung_without_warm_starts(run: Path) -> None:
    fill_scores(run, 5)
    # Ranks 1 2 3 4 5 against 2 1 4 3 5: rho = 1 - 6 (1 + 1 + 1 + 1 + 0) / (5 (25 - 1)) = 0.8.
    root = drawn(write_report(run).read_text(), "Score against AP: Spearman correlation 0.80 over 5 trials")
    marks = circles(root)
    assert list(marks) == [
        f"trial {i}: score {score:.3f}, AP {ap:.3f}"
        for i, score, ap in [(0, 0, 0.25), (1, 0.25, 0.125), (2, 0.5, 0.5), (3, 0.75, 0.375), (4, 1, 0.625)]
    ]
    xs, ys = zip(*marks.values(), strict=True)
    assert [b - a for a, b in itertools.pairwise(xs)] == pytest.approx([xs[1] - xs[0]] * 4, abs=0.2)
    assert ys[0] - ys[1] == pytest.approx(ys[2] - ys[3], abs=0.2)
    styles = [c.get("class") for c in root.iter(f"{SVG}circle") if "AP" in (c.findtext(f"{SVG}title") or "")]
    assert styles == ["dot", "on-front", "dot", "dot", "dot"]  # trial 1 alone climbed to rung 1


def test_few_trials_have_no_correlation(run: Path) -> None:
    fill_scores(run, 4)
    root = drawn(write_report(run).read_text(), "Score against AP")
    assert root.findtext(f"{SVG}title") == "Score against AP"
    assert root.findtext(f"{SVG}desc") == "4 trials at rung 0"


@pytest.mark.parametrize(
    ("a", "b", "rho"),
    [
        ([1, 1, 1, 2, 2], [1, 2, 3, 4, 5], 7.5 / 75**0.5),  # mean ranks 2, 2, 2, 4.5, 4.5
        ([5, 4, 3, 2, 1], [1, 2, 3, 4, 9], -1.0),
        ([1, 1, 1, 1, 1], [1, 2, 3, 4, 5], None),
        ([1, 2, 3, 4, 5], [7, 7, 7, 7, 7], None),
        ([1, 2, 3, 4], [1, 2, 3, 4], None),
    ],
)
def test_the_rank_correlation_is_spearman_s(a: list[float], b: list[float], rho: float | None) -> None:
    assert _spearman(a, b) == (None if rho is None else pytest.approx(rho))


@pytest.mark.parametrize(
    ("seconds", "unit"), [(179.0, "seconds"), (180.0, "minutes"), (10799.0, "minutes"), (10800.0, "hours"), (1.0, "seconds")]
)
def test_time_is_drawn_in_the_largest_unit_that_fits_three_times(run: Path, seconds: float, unit: str) -> None:
    moments = iter([0.0, 50.0, 50.0 + seconds])
    with Journal.create(run, run_settings().to_json(), clock=lambda: next(moments)) as journal:
        journal.add_trial(TrialRow(0, "hash0", "", Origin("sample"), 0.0, 1, 1))
        journal.start_evaluation(0, 0, LOW)
        journal.finish_evaluation(0, 0, Evaluation(TrialState.COMPLETE, {"ap": 0.5}))
    assert f">{unit} of search<" in write_report(run).read_text()


def test_a_report_needs_no_graph_of_a_run_without_results(run: Path) -> None:
    Journal.create(run, run_settings().to_json()).close()
    text = write_report(run, lambda genotype: pytest.fail("there is no best trial")).read_text()
    assert "<dt>best AP</dt><dd>none</dd><dd class=note>no trial was measured</dd>" in text
    assert "no evaluation is complete" in text and "<p>None yet.</p>" in text and "no trial was measured" in text


def test_the_settings_are_a_table(run: Path) -> None:
    fill(run)
    rows = Page(write_report(run).read_text()).rows
    assert ["budget", '{"text": "2h", "kind": "seconds", "amount": 7200}'] in rows
    assert ["space", "gradient-path"] in rows and ["imgsz", "128"] in rows


@pytest.fixture
def confirmed_page(run: Path) -> str:
    write_confirmed(run).close()
    return write_report(run).read_text()


def test_the_page_of_a_confirmed_search_ranks_means(confirmed_page: str) -> None:
    page = Page(confirmed_page)
    assert not page.open
    front = page.rows[page.rows.index(["trial", "AP", "seeds", "AP50", "FLOPs", "params", "rung", "origin", "hash"]) :]
    assert [row[:3] for row in front[1:3]] == [["3 (best)", "0.405 +- 0.007", "2"], ["2", "0.410 +- 0.010", "3"]]
    trials = page.rows[page.rows.index(TRIALS_HEAD) :][1:7]
    assert [(row[0], row[1], row[2], row[7], row[8], row[10]) for row in trials] == [
        ("0", "0.370 +- 0.017", "3", "2", "confirmed", ""),
        ("1", "0.060", "1", "0", "", ""),
        ("2", "0.410 +- 0.010", "3", "2", "confirmed", ""),
        ("3", "0.405 +- 0.007", "2", "2", "confirmed", "fresh seed 2 on rung 2: oom: too large"),
        ("4", "0.900", "1", "2", "", ""),
        ("5", "0.190", "1", "1", "", ""),
    ]
    tile = "<dd>0.405</dd><dd class=note>trial 3, 28 epochs at 192 px; +- 0.007 between 2 fresh seeds</dd>"
    assert tile in confirmed_page
    assert "<p>Trial 3 (AP 0.405 +- 0.007, " in confirmed_page and "<p>Found 0.405 +- 0.007 (trial 3, " in confirmed_page
    assert "<p>Ranked: 3 trials confirmed by fresh seeds on rung 2 (28 epochs, 192 px); apart: 1 on rung 2, " in confirmed_page


def test_the_front_of_a_confirmed_search_has_the_pooled_standard_errors(confirmed_page: str) -> None:
    """The pooled variance is .00017: over three seeds the error is .0075, over two .0092."""
    root = drawn(confirmed_page, "AP over FLOPs")
    told = [circle.findtext(f"{SVG}title") or "" for circle in root.iter(f"{SVG}circle")]
    assert "trial 2: AP 0.410, standard error 0.008, 1.80K FLOPs, rung 2, confirmed" in told
    assert "trial 3: AP 0.405, standard error 0.009, 1.20K FLOPs, rung 2, confirmed" in told
    assert "trial 4: AP 0.900, 2.20K FLOPs, rung 2" in told


def test_fresh_seeds_are_no_progress_and_no_test_of_the_score(confirmed_page: str) -> None:
    progress = drawn(confirmed_page, "AP over time")
    assert progress.findtext(f"{SVG}desc") == "best AP 0.900 on rung 2 after 47 complete evaluations"  # 14 and 33
    styles = [(c.get("class"), c.findtext(f"{SVG}title")) for c in progress.iter(f"{SVG}circle")]
    assert ("fresh", "trial 2: AP 0.420 at rung 2, fresh seed 2") in styles and ("dot", "trial 4: AP 0.900 at rung 2") in styles
    assert "best so far on rung 2" in "".join(progress.itertext())
    score = drawn(confirmed_page, "Score against AP")
    assert score.findtext(f"{SVG}desc") == "6 trials at rung 0"


def test_a_lucky_fresh_seed_is_not_the_best_so_far(run: Path) -> None:
    with Journal.create(run, run_settings().to_json()) as journal:
        journal.add_trial(TrialRow(0, "hash0", "", Origin("sample"), 0.0, 1, 1))
        for seed, ap in ((0, 0.5), (10, 0.75)):
            journal.start_evaluation(0, 0, replace(LOW, seed=seed))
            journal.finish_evaluation(0, 0, Evaluation(TrialState.COMPLETE, {"ap": ap}), seed)
    root = drawn(write_report(run).read_text(), "AP over time")
    assert root.findtext(f"{SVG}desc") == "best AP 0.500 on rung 0 after 2 complete evaluations"
