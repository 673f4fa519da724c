"""Names that are given twice, or that something else has: refused by the plan with both places, never settled."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.specs import read_yaml
from unlearn_bench.harness.suite import SourceSpec, TaskSpec, load_suite
from unlearn_bench.harness.suites import micro
from unlearn_bench.harness.tuning.study import plan_study

MODEL = Path(micro.__file__).parent / "model"
ASKED = {"tracks": ("knowledge",), "limit": 4, "methods": ("none",)}
QUICK = {**ASKED, "tasks": ("wmdp", "mmlu")}


def dry_run(*arguments: str, output: Path):
    """Run a dry run of the command line on the embedded suite."""
    asked = ["evaluate", "--dry-run", "--limit", "4", "--output", str(output)]
    return CliRunner().invoke(main, [*asked, *arguments])


def suite_of(folder: Path, text: str) -> str:
    file = folder / "own.yaml"
    file.write_text("name: own\nextends: micro\n" + text)
    return str(file)


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("training: {steps: 3}\ntraining: {steps: 4}\n", "training", "lines 3 and 4"),
        ("training:\n  steps: 3\n  epochs: 1\n  steps: 3\n", "steps", "lines 4 and 6"),
        ("training: {steps: 3, 'steps': 4}\n", "steps", "line 3"),
        ("extends: paper\n", "extends", "lines 2 and 3"),
        ("name: other\n", "name", "lines 1 and 3"),
        ("models: {a: {path: m}, b: {path: m}, a: {path: n}}\n", "a", "line 3"),
        (
            "tracks:\n  one:\n    corpora:\n      forget:\n        t: {path: a}\n        t: {path: b}\n",
            "t",
            "lines 7 and 8",
        ),
        ("variants:\n  knowledge:\n    mine: {method: rmu}\n    mine: {method: npo}\n", "mine", "lines 5 and 6"),
        ("variants: {knowledge: {mine: {method: rmu, grid: {alpha: [1], alpha: [2]}}}}\n", "alpha", "line 3"),
        ("models: {a: {path: m, architecture: {rope: {theta: 1, theta: 2}}}}\n", "theta", "line 3"),
        ("stress:\n- {a: 1, a: 2}\n", "a", "line 4"),
        ("x: &x {a: 1}\ny: {<<: *x, <<: *x}\n", "<<", "line 4"),
        ("x: &x {a: 1, a: 2}\ny: {<<: *x}\n", "a", "line 3"),
        ("1: a\n1: b\n", "1", "lines 3 and 4"),
        ("tuned: {}\n? tuned\n: {}\n", "tuned", "lines 3 and 4"),
    ],
)
def test_a_key_that_stands_twice_in_a_suite_file_is_named_with_its_lines(tmp_path: Path, text, key, lines) -> None:
    with pytest.raises(UserError) as error:
        load_suite(suite_of(tmp_path, text))
    assert f"own.yaml: the key {key!r} stands twice, in {lines}" in str(error.value).replace("the key 1", "the key '1'")


def test_a_key_that_stands_twice_in_a_file_that_is_extended_is_named_too(tmp_path: Path) -> None:
    suite_of(tmp_path, "training: {steps: 3, steps: 4}\n")
    top = tmp_path / "top.yaml"
    top.write_text("name: top\nextends: own.yaml\ntraining: {steps: 5}\n")
    with pytest.raises(UserError, match=r"own\.yaml: the key 'steps' stands twice"):
        load_suite(str(top))


def test_anchors_and_merged_keys_are_no_keys_that_stand_twice() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: [*b, *a], y: 4}\nd: *b\ne: {x: {x: 1}, y: [{x: 1}]}\n"
    assert read_yaml(text, "a text") == yaml.safe_load(text)


TREES = st.recursive(
    st.integers() | st.booleans() | st.none() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(tree=st.dictionaries(st.text(max_size=4), TREES, min_size=1, max_size=4), flow=st.booleans())
def test_every_tree_is_read_as_yaml_reads_it_and_refused_with_one_key_more(tree: dict, flow: bool) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True, default_flow_style=flow)
    assert read_yaml(text, "a text") == yaml.safe_load(text)
    pairs = [yaml.nodes.MappingNode("tag:yaml.org,2002:map", yaml.compose(text).value * 2)]
    with pytest.raises(UserError, match="stands twice"):
        read_yaml(yaml.serialize(pairs[0]), "a text")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "rmu", "--set", "rmu.alpha=1", "--set", "rmu.alpha=2"), "rmu.alpha stands twice, as 1 and 2"),
        (("--methods", "rmu", "--set", "training.steps=1", "--set", "training.steps=2"), "as 1 and 2; give it once"),
        (("--methods", "rmu", "--set", "rmu.alpha=1", "--grid", "rmu.alpha=2,3"), "in --set and in --grid"),
        (("--methods", "rmu", "--grid", "rmu.alpha=2", "--grid", "rmu.alpha=3"), "--grid rmu.alpha stands twice"),
        (("--methods", "rmu", "--grid", "rmu.alpha=1,1.0"), "has the value 1.0 twice"),
        (("--methods", "rmu", "--set", "rmu.alpha={a: 1, a: 2}"), "--set rmu.alpha: the key 'a' stands twice"),
        (("--methods", "rmu", "--methods", "npo"), "--methods is given 2 times"),
        (("--methods", "none", "--seeds", "0", "--seeds", "1"), "--seeds is given 2 times; give it once, its values"),
        (("--methods", "none", "--limit", "9"), "--limit is given 2 times"),
        (("--methods", "none", "--engine-option", "a=1", "--engine-option", "a=2"), "has 'a' twice, as 1 and 2"),
        (("--methods", "rmu,npo,rmu"), "--methods has 'rmu' twice"),
        (("--methods", "none", "--seeds", "0,0"), "--seeds has 0 twice"),
        (("--methods", "none", "--seeds", "1,01"), "--seeds has 1 twice"),
        (("--methods", "none", "--tracks", "knowledge,knowledge"), "--tracks has 'knowledge' twice"),
        (("--methods", "none", "--tasks", "wmdp,mmlu,wmdp"), "--tasks has 'wmdp' twice"),
        (("--methods", "none", "--models", "micro,micro"), "--models has 'micro' twice"),
        (("--methods", "none", "--stress", "quantise8,quantise8"), "--stress has 'quantise8' twice"),
        (("--methods", "none", "--nulls", "constant,constant"), "--nulls has 'constant' twice"),
        (("--methods", "none", "--checkpoint", "a=x", "--checkpoint", "a=y"), "has 'a' twice, for x and y"),
    ],
)
def test_what_an_option_has_twice_is_refused_before_anything_runs(tmp_path: Path, arguments, said: str) -> None:
    done = dry_run(*arguments, output=tmp_path / "out")
    assert (done.exit_code, said in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("again", [("--dry-run",), ("--json", "--json")])
def test_a_flag_that_is_given_again_changes_nothing(tmp_path: Path, again) -> None:
    assert dry_run("--methods", "none", "--tracks", "knowledge", *again, output=tmp_path / "out").exit_code == 0


@pytest.mark.parametrize(
    ("label", "like"),
    [
        ("rmu", "the method rmu"),
        ("RMU", "the method rmu"),
        ("ｒｍｕ", "the method rmu"),
        ("npo", "the method npo"),
        ("base", "the base model's row"),
        ("Noise", "the row of noise"),
        ("constant", "the null constant"),
        ("shuffled", "the null shuffled"),
        ("unrelated", "the null unrelated"),
        ("mine+relearn", "one under the stress relearn"),
        ("mine+quantise4", "one under the stress quantise4"),
        ("rmu[alpha=2]", "a sweep of the method rmu"),
        ("tuned one", "the variant Tuned One"),
    ],
)
def test_a_checkpoint_is_not_called_like_what_has_a_row_of_its_own(tmp_path: Path, label: str, like: str) -> None:
    suite = suite_of(tmp_path, "variants: {knowledge: {Tuned One: {method: rmu}}}\n")
    with pytest.raises(UserError, match="is called like") as error:
        make_plan(Request(suite=suite, checkpoints={label: MODEL}, **ASKED), None)
    assert f"{label!r} is called like {like}" in str(error.value)


def test_checkpoints_are_told_apart_by_more_than_case_and_same_files_are_said() -> None:
    with pytest.raises(UserError, match="'Mine' is called like the checkpoint mine"):
        make_plan(Request(checkpoints={"mine": MODEL, "Mine": MODEL}, **ASKED), None)
    plan = make_plan(Request(checkpoints={"one": MODEL, "other": MODEL}, **ASKED), None)
    assert "the checkpoints one, other hold the same files" in plan.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: {WMDP: {task: wmdp, data: {path: w.jsonl}}}", "The tasks 'wmdp' and 'WMDP' of suite own are too much"),
        ("models: {Micro: {path: model}}", "The models 'micro' and 'Micro' of suite own are too much alike"),
        ("variants: {knowledge: {Own: {method: rmu}, own: {method: rmu}}}", "The variants 'Own' and 'own' of track"),
        ("variants: {knowledge: {npo: {method: rmu}}}", "called like the method npo, and is one of rmu"),
        ("variants: {knowledge: {noise: {method: rmu}}}", "called like the row of noise; rename it"),
        (
            "variants: {knowledge: {rmu: {method: rmu, grid: {alpha: [1]}}, 'rmu[alpha=1]': {method: rmu}}}",
            "Two variants are called 'rmu[alpha=1]'",
        ),
    ],
)
def test_names_of_a_suite_file_that_would_be_taken_for_each_other_are_refused(tmp_path: Path, text, said) -> None:
    with pytest.raises(UserError) as error:
        make_plan(Request(suite=suite_of(tmp_path, text + "\n"), **{**ASKED, "methods": ("rmu",)}), None)
    assert said in str(error.value)


def test_no_two_checkpoints_stand_in_one_place_of_a_board(tmp_path: Path) -> None:
    stresses = "{a+b: {transform: quantise, settings: {bits: 3}}, b: {transform: quantise, settings: {bits: 2}}}"
    asked = {**ASKED, "methods": ("rmu",), "stress": ("a+b", "b")}
    suite = suite_of(
        tmp_path, f"variants: {{knowledge: {{x+a: {{method: rmu}}, x: {{method: rmu}}}}}}\nstress: {stresses}\n"
    )
    with pytest.raises(UserError, match=r"2 checkpoints of micro are called 'knowledge/x\+a\+b#0'; rename"):
        make_plan(Request(suite=suite, **asked), None)


@pytest.mark.parametrize(
    "given",
    [
        {"seeds": (0, 1, 0)},
        {"methods": ("none", "none")},
        {"tasks": [TaskSpec(task="mmlu", data=SourceSpec(path=path)) for path in ("a.jsonl", "b.jsonl")]},
        {"models": [ModelSpec(name="m", path=path) for path in ("a", "b")]},
        {"models": ["micro", ModelSpec(name="micro", path="a")]},
    ],
)
def test_from_python_too_what_is_given_twice_is_refused(given: dict) -> None:
    with pytest.raises(UserError, match="twice; give it once"):
        make_plan(Request(**{**ASKED, **given}), None)


def test_a_study_does_not_search_twice_either() -> None:
    with pytest.raises(UserError, match="--seeds has 5 twice"):
        plan_study(Request(methods=("rmu",), tracks=("knowledge",), seeds=(5, 5)), 2)


def test_a_later_run_says_once_what_the_board_no_longer_shows(tmp_path: Path, capsys) -> None:
    asked = {"output": tmp_path, "executor": "inline"}
    first = evaluate(Request(checkpoints={"one": MODEL}, **QUICK), **asked)
    assert first.replaced is None
    assert evaluate(Request(checkpoints={"one": MODEL}, **QUICK), **asked).replaced is None
    assert evaluate(Request(checkpoints={"one": MODEL, "two": MODEL}, **QUICK), **asked).replaced is None
    capsys.readouterr()
    said = evaluate(Request(checkpoints={"three": MODEL}, **QUICK), **asked).replaced or ""
    assert "now shows this run instead of the one before. gone: one, two; new: three; as before: base." in said
    assert capsys.readouterr().err.count("now shows this run") == 1
    fewer = {**QUICK, "limit": 3}
    said = evaluate(Request(checkpoints={"three": MODEL}, **fewer), **asked).replaced or ""
    assert "tasks that are gone or asked otherwise: mmlu, wmdp" in said
    line = "evaluate --methods none --tracks knowledge --tasks wmdp,mmlu --limit 3 --executor inline --output"
    done = CliRunner().invoke(main, [*line.split(), str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("gone: three; as before: base") == 1
