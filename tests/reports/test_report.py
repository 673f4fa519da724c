"""The report: what it says, that it asks nobody for anything, and that the same records give the same bytes."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.records import Mark
from unlearn_bench.harness.results import made
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.schema import Row
from unlearn_bench.reports.data import Content, Run
from unlearn_bench.reports.document.escape import visible
from unlearn_bench.reports.figures import tradeoff
from unlearn_bench.reports.figures.style import MOST_LOOKS, looks
from unlearn_bench.reports.figures.training import MOST_PANELS, losses
from unlearn_bench.reports.items import FEWEST_ITEMS, MOST_ITEMS, cap, continuations, flipped, spread
from unlearn_bench.reports.tables import claims as claims_of
from unlearn_bench.reports.write import write

from .conftest import HIDDEN, NASTY, SPEC, cell, checkpoint, noised, sample
from .pages import Reader, rendered

MARKS = {"gibberish": Mark(broken=True)}


def html(content: Content, folder: Path) -> str:
    write(content, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def markdown(content: Content, folder: Path, **options) -> str:
    write(content, folder / "report.md", **options)
    return (folder / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(content, tmp_path_factory) -> str:
    """The report as HTML."""
    return html(content, tmp_path_factory.mktemp("report"))


def said(page: str) -> str:
    """Return the text of a page."""
    return " ".join(Reader(page).text.split())


@pytest.mark.parametrize("ending", ["html", "md"])
def test_two_builds_are_byte_identical(content, tmp_path, ending):
    for name in ("a", "b"):
        write(content, tmp_path / name / f"report.{ending}")
    first, second = (sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_page_names_no_address_and_forbids_every_request(content, run, tmp_path):
    calm = replace(content, runs=[replace(run, items=[])])
    page = unescape(html(calm, tmp_path))
    assert not re.search(r"(https?:)?//[a-z]", page)
    assert "default-src 'none'" in page
    assert not re.search(r"<[^>]+\s(style|on\w+)=", page)
    assert not re.search(r"\ssrc=", page)
    assert set(re.findall(r'\shref="([^"]*)', page)) == set(re.findall(r'\shref="(#[^"]*|data:,)"', page))


def test_ids_are_unique_and_links_within_the_page_lead_somewhere(page):
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_every_figure_says_its_numbers_in_words(page, run):
    figures = re.findall(r"<svg[^>]*>", page)
    assert len(figures) == 8
    assert all('role="img"' in each and "aria-label=" in each for each in figures)
    row = next(row for row in run.board.rows if (row["variant"], row["track"]) == ("rmu", "knowledge"))
    value = row["s_unlearning"]
    words = f"rmu: S {value['value']:.3f}, {value['low']:.3f} to {value['high']:.3f}"
    assert any(words in each for each in figures)


def test_claims_are_those_of_the_board(page, run):
    text = said(page)
    for verdict in run.board.verdicts:
        assert verdict["sentence"].replace("`", "") in text
        for reason in verdict["others"].values():
            assert reason in text
    claims = claims_of(run.board)
    shown = {(row[0].text, row[1].text): row[2].text for row in claims.rows}
    for verdict in run.board.verdicts:
        for variant, reason in verdict["others"].items():
            assert shown[verdict["track"], variant] == reason
        for variant in verdict["winners"]:
            assert shown[verdict["track"], variant].startswith("✓")
    assert text.count("✓") == sum(len(verdict["winners"]) for verdict in run.board.verdicts)
    assert "this checkpoint (1 seed)" in text


def test_published_values_stand_beside_ours_without_an_interval(page):
    text = said(page)
    assert "Published values are those of a paper" in text
    assert re.search(r"knowledge rmu 0\.\d+ \[[^]]+\] 0\.41 ", text)


def test_a_text_of_every_danger_stands_verbatim_and_harmless_in_html(page):
    assert page.count("<script") == 1
    assert "<img" not in page
    assert not any(hidden in page for hidden in HIDDEN)
    shown = " ".join(visible(NASTY).replace("⟦", "").replace("⟧", "").split())
    assert f"calm {shown}" in said(page)


def test_a_text_of_every_danger_stands_verbatim_and_harmless_in_markdown(content, tmp_path):
    page = rendered(markdown(content, tmp_path))
    assert "script" not in page.tags
    assert page.tags.count("img") == 8
    assert "a" not in page.tags
    assert f"calm {visible(NASTY, kept='')}" in page.text


def test_toxic_and_unscored_text_is_covered(page):
    covers = re.findall(r'<details class="covered">.*?</details>', page, flags=re.DOTALL)
    hidden = " ".join(covers)
    for text in ("a toxic continuation", "an unscored continuation", "prompt of p-unscored"):
        assert text in hidden
        assert page.count(text) == hidden.count(text)
    assert "prompt of p-calm" not in hidden
    assert "mild words after p-toxic" not in hidden
    assert "Covered: toxicity 0.93" in hidden


def test_markdown_leaves_toxic_text_out_unless_asked(content, tmp_path):
    covered, asked = markdown(content, tmp_path), markdown(content, tmp_path, show_toxic=True)
    for text in ("a toxic continuation", "an unscored continuation", "prompt of p-unscored"):
        assert text not in covered
        assert text in asked


def test_text_is_covered_by_its_own_score():
    record = {"scores": {"max_toxicity": 0.9}, "marks": {"unjudged": 0.2}, "text_scores": [0.1, 0.5, None, None]}
    assert [each.covered for each in continuations(["mild", "toxic", "unjudged", " "], record)] == [0, 1, 1, 0]
    assert sample("p", "text", 0.1, prompt_toxicity=0.5).covers_prompt
    assert not sample("p", "text", 0.1).covers_prompt


@pytest.mark.parametrize(("worst", "covered"), [(0.1, 0), (0.5, 1), (None, 1)])
def test_texts_of_a_record_without_scores_of_texts_share_a_cover(worst, covered):
    found = continuations(["one", "two", ""], {}, worst)
    assert [each.covered for each in found] == [covered, covered, 0]


def test_failed_cells_are_named_with_their_cause(run, tmp_path):
    cause = "The loss is NaN <b>at step 3</b>.\u202e"
    made = [
        checkpoint("base", None),
        checkpoint("rmu", "knowledge"),
        checkpoint("adap", "knowledge", status="failed", failure=cause, records={}),
    ]
    half = Run("half", build_board(SPEC, made), [cell(each) for each in made], [], {})
    page = html(Content("0.1.0", [half]), tmp_path)
    assert "The loss is NaN &lt;b&gt;at step 3&lt;/b&gt;.⟦U+202E⟧" in page
    assert "\u202e" not in page
    assert "Not all of it was measured" in page
    assert re.search(r"adap failed: The loss is NaN", said(page))


def test_the_goal_stands_in_the_words_of_the_board(run, tmp_path):
    left = {"model": "tiny", "tracks": ["knowledge", "toxicity"], "s": {"rmu": {"knowledge": None, "toxicity": None}}}
    goals = {**left, "interactions": [], "best": {}, "differs": None, "answer": "same", "sentence": "All the same."}
    page = html(Content("0.1.0", [replace(run, board=replace(run.board, goals=[goals]))]), tmp_path)
    assert said(page).count("All the same.") == 2


def test_many_variants_look_like_their_methods(run):
    rows = [row for row in run.board.rows if row["track"] == "knowledge"]
    ranked = next(row for row in rows if row["variant"] == "rmu")
    sweep = [cast(Row, {**ranked, "variant": f"rmu[{i}]"}) for i in range(MOST_LOOKS)]
    few, many = looks(rows), looks([*rows, *sweep])
    assert few["rmu"] != few["adap"]
    assert {many[row["variant"]] for row in sweep} == {many["rmu"]} != {many["adap"]}


def test_training_of_many_variants_is_cut_and_says_so(run):
    trained = next(each for each in run.cells if each.training)
    drawing = losses("k", [replace(trained, variant=f"v{i}") for i in range(MOST_PANELS + 3)], "knowledge")
    assert drawing is not None
    assert f"The first {MOST_PANELS} of {MOST_PANELS + 3} are drawn" in drawing.caption
    assert "forget 5 at first, 0.167 at last" in drawing.words


def test_several_runs_have_a_section_each(run, tmp_path):
    page = html(Content("0.1.0", [run, replace(run, store="other")]), tmp_path)
    assert "tiny · toy in store" in page
    assert "tiny · toy in other" in page


def test_flips_cross_one_half_and_need_a_score_on_both_sides():
    base = {name: {"scores": {"acc": before}} for name, before in (("a", 1.0), ("b", 0.0), ("c", 1.0))}
    base["d"] = {"scores": None}
    records = [{"item": name, "scores": {"acc": after}} for name, after in (("a", 0.0), ("b", 1.0), ("c", 1.0))]
    records += [{"item": "d", "scores": {"acc": 1.0}}, {"item": "e", "scores": {"acc": 1.0}}]
    assert [(row["item"], gained) for row, gained in flipped(records, base, "acc")] == [("a", False), ("b", True)]


def test_items_are_taken_in_turn_from_the_strata():
    rows = [("x", i) for i in range(10)] + [("y", i) for i in range(2)]
    assert spread(rows, 4, lambda row: row[0]) == [("x", 0), ("x", 1), ("y", 0), ("y", 1)]
    assert spread(rows, 20, lambda row: row[0]) == rows


def test_many_cells_show_fewer_items_each():
    assert cap(1) == cap(40) == MOST_ITEMS
    assert FEWEST_ITEMS <= cap(200) < MOST_ITEMS
    assert cap(10_000) == FEWEST_ITEMS


def test_without_matplotlib_the_error_says_what_to_install(content, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'unlearn-bench\[report\]'"):
        write(content, tmp_path / "report.html")


def test_another_ending_is_refused(content, tmp_path):
    with pytest.raises(UserError, match=r"\.html or \.md"):
        write(content, tmp_path / "report.pdf")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A tiny real run: a method trained for a few steps, few items."""
    folder = tmp_path_factory.mktemp("stores") / "tiny"
    asked = {"methods": ("cosine_meta_rmu",), "tracks": ("toxicity",), "limit": 8, "settings": ("training.steps=3",)}
    evaluate(Request(**asked, command="unlearn-bench evaluate --limit 8"), output=folder, executor="inline")
    return folder


def report(*arguments: object):
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_a_real_store_makes_a_small_report(store, tmp_path):
    done = report(store, "--out", tmp_path / "report.html")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page) < 3e6
    for heading in ("Summary", "Leaderboard: toxicity", "Training", "Cost", "Items behind the numbers", "Provenance"):
        assert re.search(rf"<h[23][^>]*>{heading}", page)
    assert "unlearn-bench evaluate --limit 8" in page
    assert str(store.parent) not in page


def test_a_report_of_a_half_failed_store_names_what_is_missing(store, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(store, half)
    for folder in (half / "cells").iterdir():
        if json.loads((folder / "manifest.json").read_text())["cell"]["transform"] == "train":
            shutil.rmtree(folder)
            folder.mkdir()
            (folder / "failure.json").write_text(json.dumps({"schema": 1, "cause": "Out of luck.", "traceback": ""}))
    assert report(half, "--out", tmp_path / "report.md").exit_code == 0
    assert "Out of luck." in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("planned", [True, False])
def test_an_empty_store_says_that_nothing_is_there_and_what_to_run(store, tmp_path, planned):
    empty = tmp_path / "empty"
    (empty / "plans").mkdir(parents=True)
    shutil.copy(store / "store.json", empty)
    if planned:
        shutil.copy(store / "plans" / "micro.json", empty / "plans")
    assert report(empty, "--out", tmp_path / "report.html").exit_code == 0
    text = said((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Nothing is measured yet" in text if planned else "holds no run" in text
    assert "unlearn-bench evaluate" in text


def test_items_without_their_data_stand_by_id(store, tmp_path, monkeypatch):
    from unlearn_bench.harness.planning.plan import PlannedTask

    def gone(self):
        raise UserError("No rows there.")

    monkeypatch.setattr(PlannedTask, "build", gone)
    assert report(store, "--out", tmp_path / "report.html").exit_code == 0
    assert "cannot be read, so its items stand by id only" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_no_store_and_no_such_suite_are_said(store, tmp_path):
    done = report(tmp_path / "nowhere", "--out", tmp_path / "x.html")
    assert done.exit_code == 2
    assert "is no store" in done.output
    done = report(store, "--suite", "paper", "--out", tmp_path / "x.html")
    assert done.exit_code == 2
    assert "holds a run of suite 'paper'" in done.output


def test_a_run_ends_by_naming_its_report(store, tmp_path):
    again = ["evaluate", "--methods", "cosine_meta_rmu", "--tracks", "toxicity", "--limit", "8"]
    again += ["--set", "training.steps=3", "--output", str(store), "--executor", "inline"]
    done = CliRunner().invoke(main, again)
    assert done.exit_code == 0, done.output
    assert f"Report: {store / 'reports' / 'micro.html'}" in done.output
    assert (store / "reports" / "micro.html").is_file()


def test_a_report_is_drawn_again_only_where_what_it_is_made_from_changed(store, monkeypatch):
    again = ["evaluate", "--methods", "cosine_meta_rmu", "--tracks", "toxicity", "--limit", "8"]
    again += ["--set", "training.steps=3", "--output", str(store), "--executor", "inline"]
    page = store / "reports" / "micro.html"

    def drawn() -> bool:
        before = page.stat().st_mtime_ns
        assert CliRunner().invoke(main, again).exit_code == 0
        return page.stat().st_mtime_ns != before

    assert CliRunner().invoke(main, again).exit_code == 0
    assert not drawn()
    page.write_text("cut")
    assert drawn()
    assert page.read_text().startswith("<!")
    monkeypatch.setattr(made, "version", lambda name: "another")
    assert drawn()


def test_a_report_that_cannot_be_written_does_not_fail_the_run(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (store / "reports" / "micro.html").unlink(missing_ok=True)
    again = ["evaluate", "--methods", "cosine_meta_rmu", "--tracks", "toxicity", "--limit", "8"]
    again += ["--set", "training.steps=3", "--output", str(store), "--executor", "inline"]
    done = CliRunner().invoke(main, again)
    assert done.exit_code == 0, done.output
    assert "No report: A report needs matplotlib" in done.output


@pytest.fixture(scope="module")
def broken() -> Content:
    """A method of one seed that lies above base, one of three that wins, and one whose answers are gibberish."""
    marked = replace(SPEC, margin=0.08, tasks={**SPEC.tasks, "rtp": replace(SPEC.tasks["rtp"], marks=MARKS)})
    bad = checkpoint("bad", "toxicity")
    gibberish = [replace(row, marks={"gibberish": 1.0}) for row in bad.records["rtp"]]
    bad = replace(bad, records={**bad.records, "rtp": gibberish})
    seeds = [replace(checkpoint("rmu", "toxicity"), seed=seed, cell=f"rmu-{seed}") for seed in range(3)]
    made = [checkpoint("base", None), *noised(checkpoint("adap", "toxicity"), bad, *seeds)]
    made += noised(checkpoint("rmu", "knowledge"))
    rows = [cell(each) for each in made if each.beside is None]
    return Content("0.1.0", [Run("store", build_board(marked, made), rows, [], {})])


def test_a_report_tells_methods_points_and_broken_rows_apart(broken, tmp_path):
    text = said(html(broken, tmp_path))
    assert "✓ beats base and its noise, utility kept" in text
    assert "lies above base and its noise, utility kept; not replicated" in text
    assert "Leaderboard: knowledge (points, not methods)" in text
    assert "Leaderboard: toxicity (points" not in text
    assert "bad: 100% of its answers to the forget task are none. Not ranked; raw values: forget 0.250" in text
    assert "broken: 100% of its answers are none" in text
    assert "Not drawn, as most of their answers are none: bad." in text
    assert "bad (broken): rtp 0.250" in text
    assert "Beside S: Harmonic mean of the shares" in text
    assert "**" not in text.replace("**bold**", "")


def test_no_figure_of_s_holds_a_broken_row_and_each_row_stands_beside_its_noise(broken):
    (run,) = broken.runs
    rows = [row for row in run.board.rows if row["track"] == "toxicity"]
    plane, forest = tradeoff.trade_off("k", run.board.spec, rows, "t"), tradeoff.forest("k", run.board.spec, rows, "t")
    for drawing in (plane, forest):
        assert drawing is not None
        assert "bad:" not in drawing.words
    noise = next(row for row in rows if row["variant"] == "rmu")["noise"]
    assert f"its noise {noise['value']:.3f}" in forest.words
    assert "A faint cross is noise" in plane.caption


def test_a_frontier_of_noise_is_drawn_where_noise_stands(swept):
    (run,) = swept.runs
    frontier = next(each for each in run.board.frontiers if each["track"] == "knowledge")
    assert {"noise", "rmu"} == {each["method"] for each in frontier["methods"]}
    rows = [row for row in run.board.rows if row["track"] == "knowledge"]
    assert tradeoff.trade_off("k", SPEC, rows, "t", frontier) is not None
    many = [{**row, "unclipped": None} if row["variant"] == "rmu[alpha=1]" else row for row in rows]
    assert tradeoff.trade_off("k", SPEC, cast("list[Row]", many), "t", frontier) is not None
