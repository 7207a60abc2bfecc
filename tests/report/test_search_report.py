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
from gpnas.report.search_report import FrontPoint, _busy_time, _spearman, front_svg, write_report
from gpnas.run.journal import Journal, TrialRow
from gpnas.search.budget import Budget
from gpnas.search.trial import Cause, Evaluation, Fidelity, Origin, TrialState, failure
from search_spaces.growth import network
from tests.settings import run_settings

SVG = "{http://www.w3.org/2000/svg}"
LOW, HIGH = Fidelity(2, 64), Fidelity(8, 128)

POINTS = [
    FrontPoint(0, flops=1e9, ap=0.2, rung=0),
    FrontPoint(1, flops=2e9, ap=0.4, rung=1),
    FrontPoint(2, flops=3e9, ap=0.3, rung=1),
]


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def named(svg: str, style: str) -> dict[str, tuple[float, float]]:
    """What the circles of a style call themselves, with their centres."""
    return {
        circle.findtext(f"{SVG}title") or "": (float(circle.get("cx", "nan")), float(circle.get("cy", "nan")))
        for circle in parsed(svg).iter(f"{SVG}circle")
        if circle.get("class") == style
    }


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


def test_the_page_shows_what_the_journal_holds(run: Path) -> None:
    fill(run)
    path = write_report(run)
    assert path == run / "report.html"
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    for shown in ("my run", "0.375", "2.00G", "1:00:00", "budget 2h", "data.yaml", "4 evaluations, 1 failed, 13 epochs"):
        assert shown in text
    assert ["0", "0.250", "0.500", "1.00G", "1.00K", "0: 2 epochs, 64 px", "sample", "hash0"] in page.rows
    assert ["1 (best)", "0.375", "0.625", "2.00G", "1.00K", "1: 8 epochs, 128 px", "sample", "hash1"] in page.rows
    trials = page.rows[
        page.rows.index(["trial", "AP", "FLOPs", "params", "score", "seconds", "rung", "state", "cause", "origin"]) :
    ]
    assert trials[1:6] == [
        ["0", "0.250", "1.00G", "1.00K", "0.000", "10.0", "0", "complete", "", "sample"],
        ["1", "0.375", "2.00G", "1.00K", "0.100", "42.5", "1", "complete", "", "sample"],
        ["2", "", "3.00G", "1.00K", "0.200", "1.0", "0", "failed", "oom: out of memory", "sample"],
        ["3", "", "4.00G", "1.00K", "0.300", "0.0", "0", "running", "", "sample"],
        ["4", "", "5.00G", "1.00K", "0.400", "0.0", "", "queued", "", "sample"],
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


def test_every_point_is_drawn_where_it_belongs() -> None:
    svg = front_svg(POINTS, front=[0, 1], best=1)
    others, front = named(svg, "dot"), named(svg, "on-front")
    assert "trial 2: AP 0.300, 3.00G FLOPs, rung 1" in others
    first, second = front["trial 0: AP 0.200, 1.00G FLOPs, rung 0"], front["trial 1: AP 0.400, 2.00G FLOPs, rung 1"]
    third = others["trial 2: AP 0.300, 3.00G FLOPs, rung 1"]
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.2)  # FLOPs 1, 2, 3 on a linear axis
    assert third[1] == pytest.approx((first[1] + second[1]) / 2, abs=0.1)  # AP 0.3 between 0.2 and 0.4
    assert first[1] > second[1]  # a higher AP stands higher


def test_the_front_is_a_step_line_to_the_right() -> None:
    svg = front_svg(POINTS, front=[0, 1], best=1)
    front = named(svg, "on-front")
    (x0, y0), (x1, y1) = (
        front[f"trial {t}: AP {ap} FLOPs, rung {r}"] for t, ap, r in [(0, "0.200, 1.00G", 0), (1, "0.400, 2.00G", 1)]
    )
    lines = [path.get("d") for path in parsed(svg).iter(f"{SVG}path") if path.get("class") == "front"]
    assert f"M{x0} {y0}H{x1}V{y1}H736.0" in lines


def test_best_and_limit_are_marked() -> None:
    svg = front_svg(POINTS, front=[0, 1], best=1, max_flops=2.5e9)
    texts = [text.text for text in parsed(svg).iter(f"{SVG}text")]
    assert "trial 1, AP 0.400" in texts
    assert "limit 2.50G" in texts
    front = named(svg, "on-front")["trial 1: AP 0.400, 2.00G FLOPs, rung 1"]
    best = next(c for c in parsed(svg).iter(f"{SVG}circle") if c.get("class") == "best")
    assert (float(best.get("cx", "nan")), float(best.get("cy", "nan"))) == front
    limit = next(line for line in parsed(svg).iter(f"{SVG}line") if line.get("class") == "limit")
    assert front[0] < float(limit.get("x1", "nan")) < named(svg, "dot")["trial 2: AP 0.300, 3.00G FLOPs, rung 1"][0]
    assert not [line for line in parsed(front_svg(POINTS, front=[])).iter() if line.get("class") in ("limit", "best")]


def test_baselines_are_labelled_by_name_on_the_front_and_off_it() -> None:
    named_points = [
        FrontPoint(0, 1e9, 0.2, 1, "gelan-t"),
        FrontPoint(1, 2e9, 0.4, 1),
        FrontPoint(2, 3e9, 0.3, 1, "a<b"),
        FrontPoint(3, 3.5e9, 0.1, 0),
    ]
    svg = front_svg(named_points, front=[0, 1], best=1)
    labels = [text.text for text in parsed(svg).iter(f"{SVG}text") if (text.get("class") or "").startswith("label")]
    assert labels == ["trial 1, AP 0.400", "a<b", "gelan-t"]
    assert "trial 0 (gelan-t): AP 0.200, 1.00G FLOPs, rung 1" in named(svg, "on-front")
    best = front_svg(named_points, front=[0, 1], best=0)
    assert "gelan-t, AP 0.200" in [text.text for text in parsed(best).iter(f"{SVG}text")]


@pytest.mark.parametrize("ap", [0.3, 0.0])
def test_baselines_that_are_near_copies_are_both_named(ap: float) -> None:
    points = [FrontPoint(0, 2e9, ap, 1, "gelan-t"), FrontPoint(1, 2e9, ap, 1, "yolov9-t"), FrontPoint(2, 1e9, 0.6, 1)]
    root = parsed(front_svg(points, front=[2], best=2))
    labels = {t.text: t for t in root.iter(f"{SVG}text") if (t.get("class") or "").startswith("label")}
    assert labels.keys() == {"trial 2, AP 0.600", "gelan-t", "yolov9-t"}
    heights = [float(labels[name].get("y", "nan")) for name in ("gelan-t", "yolov9-t")]
    assert abs(heights[0] - heights[1]) >= 12 and all(44 < y < 352 for y in heights)


def test_a_name_has_its_place_before_the_ids_around_it() -> None:
    points = [FrontPoint(0, 2e9, 0.3, 1, "gelan-t"), FrontPoint(1, 2e9, 0.305, 1), FrontPoint(2, 1e9, 0.6, 1)]
    svg = front_svg(points, front=[1, 2], best=2)
    label = next(t for t in parsed(svg).iter(f"{SVG}text") if t.text == "gelan-t")
    at = named(svg, "dot")["trial 0 (gelan-t): AP 0.300, 2.00G FLOPs, rung 1"]
    assert float(label.get("y", "nan")) == pytest.approx(at[1] - 8, abs=0.1)


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


def test_a_drawing_tells_what_it_shows_to_those_who_cannot_see_it() -> None:
    root = parsed(front_svg(POINTS, front=[0, 1], title="AP & FLOPs"))
    assert root.get("role") == "img"
    assert root.get("aria-label") == "AP & FLOPs: 3 measured trials, 2 of them on the Pareto front"


@pytest.mark.parametrize(
    "points",
    [
        [],
        [FrontPoint(0, 1e9, 0.0)],
        [FrontPoint(i, 1e9, 0.5) for i in range(3)],
        [FrontPoint(0, 0.0, 0.5), FrontPoint(1, 1e12, 1.0)],
        [FrontPoint(i, 10.0**i, 0.1) for i in range(1, 13)],
    ],
)
def test_any_points_are_drawn_inside_the_frame(points: list[FrontPoint]) -> None:
    svg = front_svg(points, front=[p.id for p in points[:1]], best=points[0].id if points else None)
    for style in ("dot", "on-front"):
        for name, (x, y) in named(svg, style).items():
            assert 64 <= x <= 736, name
            assert (44 <= y <= 352) or name.startswith("rung"), name
    assert "nan" not in svg.split("</style>")[1]


def test_labels_of_a_crowded_front_do_not_overlap() -> None:
    points = [FrontPoint(i, 1e9 * (1 + i / 50), 0.2 + i / 1000) for i in range(40)]
    root = parsed(front_svg(points, front=range(40), best=39))
    labels = [text for text in root.iter(f"{SVG}text") if (text.get("class") or "").startswith("label")]
    assert 1 < len(labels) < 40
    boxes = [(float(t.get("x", "nan")), float(t.get("y", "nan")), 6.6 * len(t.text or "")) for t in labels]
    for (x, y, w), (x2, y2, w2) in itertools.combinations(boxes, 2):
        assert x <= x2 - w2 or x2 <= x - w or abs(y - y2) >= 12


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
    best = next(path.get("d") for path in root.iter(f"{SVG}path") if path.get("class") == "front" and "V" in path.get("d", ""))
    assert best == f"M{first[0]} {first[1]}H{last[0]}V{last[1]}H736.0"
    assert root.findtext(f"{SVG}desc") == "best AP 0.375 after 3 complete evaluations"
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
    assert styles == ["on-front", "on-front", "dot", "dot", "dot"]  # trial 1 climbed to AP 0.75 at 2 GMACs


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
