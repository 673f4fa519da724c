"""Suites as files: what extends what, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.suite import SourceSpec, load_suite, suites


@pytest.mark.parametrize("name", suites.names())
def test_every_registered_suite_loads(name: str) -> None:
    assert load_suite(name).name == name


def write(folder: Path, **values) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_a_suite_says_only_what_differs(tmp_path: Path) -> None:
    paper = load_suite("paper")
    mine = load_suite(
        write(
            tmp_path,
            extends="paper",
            name="mine",
            models={"Llama-3.1-8B": None},
            training={"epochs": 1},
            tracks={"knowledge": None},
            variants={"knowledge": None},
        )
    )
    assert set(mine.models) == set(paper.models) - {"Llama-3.1-8B"}
    assert (mine.training.epochs, mine.training.batch_size) == (1, paper.training.batch_size)
    assert list(mine.tracks) == ["toxicity"]
    assert mine.tasks == paper.tasks
    assert Path(mine.folder) == tmp_path.resolve()


def test_an_extended_embedded_suite_keeps_its_data(tmp_path: Path) -> None:
    mine = load_suite(write(tmp_path, extends="micro", name="mine"))
    assert mine.folder == load_suite("micro").folder


def test_a_suite_that_extends_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="extends itself"):
        load_suite(write(tmp_path, extends="mine.yaml", name="mine"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"extends": "papper"}, "Did you mean 'paper'"),
        ({"extends": "paper", "name": "mine", "trainning": {}}, "unknown key 'trainning'.*'training'"),
        ({"extends": "paper", "name": "mine", "training": {"epoch": 1}}, r"unknown key 'training\.epoch'.*'epochs'"),
        (
            {"extends": "paper", "name": "mine", "tracks": {"knowledge": {"controls": ["wmdp_chm"]}}},
            "names the task 'wmdp_chm'.*'wmdp_chem'",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_suite(write(tmp_path, **values))


def test_a_source_is_somewhere() -> None:
    with pytest.raises(ValidationError, match="a path or a hub id"):
        SourceSpec(columns={"text": "body"})
