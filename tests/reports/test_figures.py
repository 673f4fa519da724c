"""The paper's figures and frontiers: drawn where a run has what they need, with their numbers in words."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.reports.data import Content, Run
from unlearn_bench.reports.document.blocks import Words
from unlearn_bench.reports.figures import layers, probes, training
from unlearn_bench.reports.figures import tradeoff as plane
from unlearn_bench.reports.figures.style import label_beside, looks
from unlearn_bench.reports.sections import outline

from .conftest import LAYER_SETS, SPEC, cell, checkpoint, probed


def of_track(content: Content, track: str):
    (run,) = content.runs
    rows = [row for row in run.board.rows if row["track"] == track]
    return rows, [each for each in run.cells if each.track == track and each.kind == "method"]


def headings(content: Content) -> list[str]:
    return [section.title for section in outline(content).sections]


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_what_a_run_lacks_is_not_drawn(content, swept):
    assert not any(re.match("Probes|Layers", title) for title in headings(content))
    assert [title for title in headings(swept) if re.match("Probes|Layers", title)] == [
        "Probes: toxicity",
        "Layers of probe: toxicity",
    ]


def test_cosines_are_those_of_the_cell_with_the_most_layers(swept):
    _, cells = of_track(swept, "toxicity")
    found = probes.probed(cells)
    assert found is not None
    assert found.layers == tuple(range(9))
    drawing = probes.cosines("k", found)
    assert "layers 0 and 1: -0.25" in drawing.words
    assert texts(drawing.svg).count("1.00") == 9
    assert probes.probed([replace(each, setup={}) for each in cells]) is None


def test_weights_tell_how_many_are_large(swept):
    _, cells = of_track(swept, "toxicity")
    drawing = probes.weights("k", cells[0])
    assert "layer 0: 4.7% of the weights beyond twice" in drawing.words


def test_each_layers_loss_is_smoothed_over_steps_and_seeds(swept):
    _, cells = of_track(swept, "toxicity")
    one = next(each for each in cells if each.layers == (4,))
    twice = replace(
        one, seed=1, training=[{**row, "forget_layer_4": 3 * row["forget_layer_4"]} for row in one.training]
    )
    drawing = training.layer_losses("k", [one, twice], "toxicity")
    assert drawing is not None
    assert f"layer 4 {2 * (5 / 1 + 5 / 2) / 2:.3g} at first, {2 * (5 / 39 + 5 / 40) / 2:.3g} at last" in drawing.words
    plain = training.losses("k", [one], "toxicity")
    assert plain is not None
    assert "forget_layer" not in plain.words


def test_names_stand_beside_the_ends_of_their_lines():
    axes = Figure().add_subplot()
    axes.set_yscale("log")
    axes.plot([0, 1, 2], [1.0, 10.0, 1000.0])
    label_beside(axes, [(2, 1.0, "low", "k"), (2, 1000.0, "high", "k")], 3.0)
    heights = {text.get_text(): text.xyann[1] for text in axes.texts if isinstance(text, Annotation)}
    assert heights["low"] < 0.1
    assert heights["high"] > 0.9


def test_a_layer_study_holds_what_differs_in_layers_alone(swept):
    rows, cells = of_track(swept, "toxicity")
    (study,) = layers.studies(rows, cells)
    assert [len(each.layers) for each in study.sets] == [1, 1, 1, 3, 3, 3, 9]
    assert [each.name for each in study.sets] == ["0", "4", "8", "0-2", "2,4,6", "6-8", "0-8"]
    other = json.dumps({"method": "probe", "settings": {"layers": [0], "probe_c": 2.0}})
    mixed = [replace(each, settings=other) if each.layers == (0,) else each for each in cells]
    assert [len(found.sets) for found in layers.studies(rows, mixed)] == [len(LAYER_SETS) - 1]
    assert layers.studies(rows, cells[:2]) == []


def test_layer_sets_are_named_in_the_plane_and_counted_beside(swept):
    rows, cells = of_track(swept, "toxicity")
    (study,) = layers.studies(rows, cells)
    drawing = layers.plane("k", SPEC, study, "toxicity")
    assert {"0-2", "2,4,6", "0-8", "base"} <= set(texts(drawing.svg))
    assert "layers 0-2: rtp 0.250" in drawing.words
    assert "9 layers (0-8): S " in layers.numbers("k", SPEC, study, "toxicity").words


def test_a_sweep_is_a_curve_of_one_look_and_is_compared_at_equal_utility(swept):
    (run,) = swept.runs
    rows, _ = of_track(swept, "knowledge")
    frontier = next(each for each in run.board.frontiers if each["track"] == "knowledge")
    drawing = plane.trade_off("k", SPEC, rows, "tiny", frontier)
    assert drawing is not None
    assert f"Frontier of rmu: {', '.join(frontier['methods'][0]['curve'])}" in drawing.words
    assert len({looks(rows)[row["variant"]] for row in rows if row["kind"] == "method"}) == 1
    words = " ".join(
        block.text for section in outline(swept).sections for block in section.blocks if hasattr(block, "text")
    )
    assert "mostly ranks how it was tuned" in words
    assert words.count(frontier["sentence"]) == 2


def test_all_models_stand_in_one_figure(run):
    made = [checkpoint("base", None), checkpoint("rmu", "knowledge")]
    both = [*made, *(replace(each, model="other", cell=f"o-{each.cell}") for each in made)]
    two = Content("0.1.0", [Run("store", build_board(SPEC, both), list(map(cell, both)), [], {})])
    assert "All models" in headings(two)
    drawing = plane.metrics("k", SPEC, two.runs[0].board.rows, "knowledge")
    assert drawing is not None
    assert {"other", "tiny"} <= set(texts(drawing.svg))
    assert drawing.words.count("rmu: wmdp 0.350") == 2
    assert "All models" not in headings(Content("0.1.0", [run]))


def test_of_several_models_each_goal_names_its_own(run):
    made = [checkpoint("base", None), *(checkpoint("rmu", track) for track in SPEC.tracks)]
    made += [checkpoint("adap", track) for track in SPEC.tracks]
    both = [*made, *(replace(each, model="other", cell=f"o-{each.cell}") for each in made)]
    two = Content("0.1.0", [Run("store", build_board(SPEC, both), list(map(cell, both)), [], {})])
    words = [block.text for block in outline(two).sections[0].blocks if isinstance(block, Words)]
    for model in ("tiny", "other"):
        assert sum(text.startswith(f"**Does the best method depend on the goal ({model})?**") for text in words) == 1


@pytest.mark.parametrize("wanted", [[0], [3, 1]])
def test_layers_are_known_from_settings_where_a_log_does_not_say(wanted):
    made = replace(probed(checkpoint("rmu", "toxicity"), wanted), setup={})
    assert made.layers == tuple(sorted(wanted))
    assert cell(checkpoint("rmu", "toxicity")).layers is None
