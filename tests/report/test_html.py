"""The HTML report is one file that asks for nothing and executes nothing but its own code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from saikei.errors import InputError
from saikei.report import (
    compare_runs,
    front_picture,
    render_comparison,
    render_html,
    write_html,
)
from saikei.report.html import render_diff
from saikei.report.tuning import setting_rows
from saikei.runs.candidate import Candidate, Training
from saikei.runs.details import (
    Calibration,
    ClassRow,
    Details,
    Flip,
    MemberRow,
    Outcome,
    Point,
    Sensitivity,
    SiteCurve,
    Timed,
)
from saikei.runs.details import PredictedFront as Front
from saikei.runs.explained import Agreement, Attention, SampleMaps
from saikei.runs.graph_diff import GraphDiff, Node, Side
from saikei.runs.record import Run
from tests.report.sample import sample_run

HOSTILE = (
    "</script><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\"'&{{7*7}}"
)
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "formaction"}


class Page(HTMLParser):
    """The elements of a page with their attributes, the text outside scripts, and the scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text.append(data)

    def attributes(self, names: set[str]) -> Iterator[tuple[str, str]]:
        for _, attributes in self.elements:
            yield from ((k, v or "") for k, v in attributes.items() if k in names)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_html(sample_run()))


@pytest.fixture(scope="module")
def attacked() -> Page:
    return Page(render_html(sample_run(HOSTILE)))


@pytest.mark.parametrize("hostile", ["", HOSTILE])
def test_nothing_is_loaded_from_anywhere(hostile: str) -> None:
    page = Page(render_html(sample_run(hostile)))
    for _, value in page.attributes(LOADING):
        assert value.startswith("#")
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"link", "iframe", "img", "object", "embed", "base", "form", "video", "audio"}
    css = re.search(r"<style>(.*?)</style>", render_html(sample_run(hostile)), re.DOTALL)
    assert css is not None
    assert "url(" not in css[1]
    assert "@import" not in css[1]


def test_a_policy_forbids_what_the_page_does_not_need(page: Page) -> None:
    policies = [a["content"] or "" for _, a in page.elements if "http-equiv" in a]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")
    assert "http" not in policies[0]


def test_text_from_outside_is_shown_and_never_executed(attacked: Page, page: Page) -> None:
    assert HOSTILE in attacked.words
    assert len(attacked.scripts) == len(page.scripts) == 2
    assert not any("alert(1)" in script and "charts" not in script for script in attacked.scripts)
    handlers = [name for _, a in attacked.elements for name in a if name.startswith("on")]
    assert handlers == []
    # Everywhere the attack could break out it is data: the JSON holds it whole.
    charts = json.loads(attacked.scripts[0])
    known = {"front", "choices", "training", "library", "slider", "calibration"}
    assert set(charts) == known | {"sensitivity", "settings"}


def test_a_hostile_candidate_is_shown_by_its_name_in_tables_and_charts() -> None:
    run = sample_run()
    renamed = replace(run.candidate("a1-pruned"), name=HOSTILE)
    candidates = tuple(renamed if c.name == "a1-pruned" else c for c in run.candidates)
    front = tuple(HOSTILE if name == "a1-pruned" else name for name in run.front)
    attacked = Page(
        render_html(
            replace(run, candidates=candidates, front=front, chosen=HOSTILE, comparisons=())
        )
    )
    assert len(attacked.scripts) == 2
    assert HOSTILE in attacked.words
    lines = json.loads(attacked.scripts[0])["training"]["lines"]
    assert HOSTILE in [line["name"] for line in lines]


def test_every_candidate_and_decision_is_in_the_page(page: Page) -> None:
    run = sample_run()
    for candidate in run.candidates:
        assert candidate.name in page.words
    for decision in run.decisions:
        assert decision.reason.strip() in page.words
    for value in run.fingerprint.values():
        assert value in page.words


def test_every_candidate_is_a_point_of_the_front_with_its_cost(page: Page) -> None:
    run = sample_run()
    chart = json.loads(page.scripts[0])["front"]
    drawn = {(p["x"]["macs"], p["y"]) for p in chart["points"]}
    assert drawn == {(c.cost.macs, 100 * c.validation.value) for c in run.candidates}
    axes = {axis["name"]: axis for axis in chart["axes"]}
    assert list(axes) == ["macs", "params", "bytes", "memory", "latency"]
    assert axes["macs"]["limit"] == run.settings.limits["macs"]
    for name, axis in axes.items():
        assert {cost for cost, _ in axis["front"]} <= {p["x"][name] for p in chart["points"]}


def with_training(run: Run, **changes: Any) -> Run:
    def changed(candidate: Candidate) -> Candidate:
        training: Training | None = candidate.training
        return replace(candidate, training=training and replace(training, **changes))

    return replace(run, candidates=tuple(map(changed, run.candidates)))


def test_a_loss_that_was_infinite_leaves_a_gap_and_the_page_whole() -> None:
    run = with_training(sample_run(), curves={"val_loss": (float("inf"), 2.0, float("nan"))})
    scripts = Page(render_html(run)).scripts

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    charts = json.loads(scripts[0], parse_constant=refuse)
    assert charts["training"]["lines"][0]["values"]["val_loss"] == [None, 2.0, None]


def test_a_run_with_nothing_trained_or_compared_has_a_page() -> None:
    run = sample_run()
    alone = replace(run.candidate("original"), kind="given", fits=True)
    page = Page(
        render_html(
            replace(
                run,
                candidates=(alone,),
                chosen="original",
                front=("original",),
                comparisons=(),
                test=None,
            )
        )
    )
    assert "Nothing was compared" in page.words
    assert 'keras.saving.load_model("best.keras")' in page.words
    assert not any(a.get("id") == "training" for _, a in page.elements)


def test_the_file_is_written_whole_and_alone(tmp_path: Path) -> None:
    path = write_html(sample_run(), tmp_path / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [path]


PNG = "data:image/png;base64,AA"


def details(name: str = "conv") -> Details:
    """Details with every part, in which names are hostile."""

    def side(number: int, channels: int, *inputs: str) -> Side:
        shape, time = (4, 4, channels), 1.5 if channels == 8 else 0.7
        return Side(f"{name}{number}", "Conv2D", shape, channels, 10, 1000, inputs, time)

    first, branch = side(0, 8), side(1, 8, f"{name}0")
    nodes = (
        Node("same", first, first, ()),
        Node("removed", branch, None, (0,)),
        Node("narrower", side(2, 8, f"{name}0"), side(2, 3, f"{name}0"), (0,)),
        Node("same", side(3, 8, f"{name}1", f"{name}2"), side(3, 8, f"{name}2"), (1, 2)),
    )
    calibration = Calibration(0.02, ((0.95, 0.97, 300),))
    rows = (ClassRow(name, 300, 0.97, 0.95, name),)
    flips = (
        Flip(3, name, name, 0.9, PNG, ""),
        Flip(4, name, name, 0.8, "", name),
    )
    outcome = Outcome(300, 8, 2, 290, rows, flips, calibration, calibration)
    costs = {"macs": 1e5, "params": 1e4, "bytes": 4e4}
    curve = ((0.25, 0.1),)
    return Details(
        graphs=(GraphDiff(name, name, nodes, (4000, 2000), (40, 30)),),
        fronts={"original": Front("nats", costs, {"macs": (Point(costs, 0.1, (name,)),)})},
        outcome=outcome,
        members=(MemberRow(name, 0.5, 0.97, 0.01, (1.0,), None),),
        classes=(name,),
        sensitivity=Sensitivity(
            "original", "macs", "nats", (SiteCurve(f"channels:{name}", "prune", curve, (name,)),)
        ),
        times=(Timed(name, ((1.0, 0.5), (32.0, 4.0))),),
        machine=name,
        attention=Attention(
            (name, name),
            (Agreement("Grad-CAM", 0.5, -0.1),),
            (),
            (SampleMaps(0, name, name, PNG, (PNG, PNG), (PNG, PNG)),),
        ),
    )


def test_details_are_shown_and_never_executed() -> None:
    page = Page(render_html(sample_run(), details(HOSTILE)))
    assert len(page.scripts) == 2
    assert not [name for _, a in page.elements for name in a if name.startswith("on")]
    pictures = [a["src"] or "" for tag, a in page.elements if tag == "img"]
    assert pictures == [PNG] * 6
    sections = ("Who gains and who loses", "The members", "Another budget", "Sensitivity of each")
    figures = ("3 of 8", "1.50 → 0.70", "4 ms", "by 0.50 on the same sample, and by −0.10")
    for words in (f"{HOSTILE}1", *sections, *figures):
        assert words in page.words
    charts = json.loads(page.scripts[0])
    assert charts["slider"]["points"][0]["changes"] == [HOSTILE]
    assert charts["sensitivity"]["lines"][0]["name"] == HOSTILE


def test_a_setting_that_decides_the_metric_has_all_of_its_variance() -> None:
    run = sample_run()
    first = run.candidate("a1-pruned")
    rates, optimizers = (1e-4, 1e-3, 1e-2, 1e-1, 1.0), ("adam", "sgd", "adam", "sgd", "adam")
    tried = []
    for number, (rate, optimizer) in enumerate(zip(rates, optimizers, strict=True)):
        assert first.training is not None
        training = replace(first.training, learning_rate=rate)
        score = replace(first.validation, value=0.5 + rate / 10)
        plan = {**first.plan, "settings": {"optimizer": optimizer, "batch_size": 32}}
        name = f"c{number}"
        tried.append(replace(first, name=name, plan=plan, training=training, validation=score))
    original = run.candidate("original")
    varied = replace(run, candidates=(original, *tried), chosen="c0", comparisons=(), test=None)
    rows = {row.name: row for row in setting_rows(varied)}
    assert set(rows) == {"learning_rate", "optimizer"}
    assert rows["learning_rate"].share == pytest.approx(1)
    assert rows["optimizer"].share == pytest.approx(0)
    page = Page(render_html(replace(varied, front=("original",))))
    lines = json.loads(page.scripts[0])["settings"]["lines"]
    assert lines[0]["values"] == ["adam", 1e-4]


def test_two_branches_are_a_block_that_folds() -> None:
    page = Page(render_diff(details().graphs[0]))
    blocks = [a for tag, a in page.elements if tag == "details"]
    assert len(blocks) == 1
    assert "2 layers: 1 removed, 1 narrower" in page.words
    removed = [a for tag, a in page.elements if a.get("class") == "node removed"]
    assert len(removed) == 1


def test_a_report_of_a_hundred_candidates_is_small() -> None:
    run = sample_run()
    many = [replace(run.candidate("a1-pruned"), name=f"more-{n}") for n in range(100)]
    page = render_html(replace(run, candidates=(*run.candidates, *many)), details())
    assert len(page.encode()) < 3_000_000


HOSTILE_NAME = "<script>alert('\"run\"')</script>"


def other_run() -> Run:
    run = sample_run()
    return replace(run, chosen="a2-pruned", settings=replace(run.settings, effort=7, seed=3))


def test_two_runs_are_compared_and_their_names_stay_text() -> None:
    runs = {HOSTILE_NAME: sample_run(), "second": other_run()}
    page = render_comparison(runs, [details(), details()])
    assert HOSTILE_NAME not in page
    compared = compare_runs(runs)
    assert compared.winners[0][1:] == (
        "a1-pruned (kept weights, knapsack)",
        "a2-pruned (kept weights, knapsack)",
    )
    assert {name for name, *_ in compared.settings} == {"Epochs of all trainings", "Seed"}
    assert "Both runs used the same data" in page
    assert page.count("<h3>") == 2
    assert "same data" in str(compared) and "a2-pruned" in str(compared)


def test_runs_on_other_data_are_marked_and_those_with_another_metric_refused() -> None:
    run = sample_run()
    elsewhere = replace(run, fingerprint={**run.fingerprint, "data": "other"})
    assert "different data" in compare_runs({"a": run, "b": elsewhere}).data
    scores = [replace(c, validation=replace(c.validation, name="r2")) for c in run.candidates]
    with pytest.raises(InputError, match="different metrics"):
        compare_runs({"a": run, "b": replace(run, candidates=tuple(scores))})


def test_the_picture_of_a_front_is_xml_with_a_dot_for_each_candidate() -> None:
    picture = front_picture({HOSTILE_NAME: sample_run(HOSTILE_NAME), "second": other_run()})
    root = ElementTree.fromstring(picture)
    drawn = [one for one in root.iter() if one.tag.endswith("}g")]
    assert len(drawn) == 2 * len(sample_run().candidates)
    assert not [one for one in root.iter() if one.tag.endswith("script")]
