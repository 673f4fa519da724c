"""Content that changes under a path: a session sees what a new process sees, and keeps no result of mixed files."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.api import Result
from unlearn_bench.harness.data import load_rows
from unlearn_bench.harness.data import rows as data
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.jobs import evaluate as measuring
from unlearn_bench.harness.models import cache as model_cache
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.planning.sources import SourceReader
from unlearn_bench.harness.store import files as store_files
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import FileDigests, folder_digest, read_jsonl
from unlearn_bench.harness.suite import SourceSpec
from unlearn_bench.harness.suites import micro

MICRO = Path(micro.__file__).parent


def in_place(file: Path, content: bytes) -> None:
    """Write into a file: its inode stays, and its size where the content is as long."""
    with file.open("r+b") as stream:
        stream.write(content)
        stream.truncate()


def with_its_times(file: Path, content: bytes) -> None:
    """Write into a file and set its times back."""
    times = file.stat()
    in_place(file, content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def by_another(file: Path, content: bytes) -> None:
    """Put another file, as old, in its place."""
    times, other = file.stat(), file.with_name(f".{file.name}.new")
    other.write_bytes(content)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(file)


def by_a_link(file: Path, content: bytes) -> None:
    """Let the path lead to another file."""
    other = file.parent.parent / f"other-{file.name}"
    other.write_bytes(content)
    file.unlink()
    file.symlink_to(other)


WAYS = [in_place, with_its_times, by_another, by_a_link]
Change = Callable[[Path, bytes], None]


def table(suffix: str, texts: list[str]) -> bytes:
    frame = pd.DataFrame({"text": texts})
    match suffix:
        case ".jsonl":
            return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        case ".json":
            return json.dumps([{"text": text} for text in texts]).encode()
        case ".csv" | ".tsv":
            return frame.to_csv(index=False, sep="\t" if suffix == ".tsv" else ",").encode()
        case ".parquet":
            return frame.to_parquet()
        case _:
            return "\n".join(texts).encode()


@pytest.mark.parametrize("change", WAYS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt"])
def test_rows_are_those_of_the_file_as_it_is_now(tmp_path: Path, suffix: str, change: Change) -> None:
    (tmp_path / "data").mkdir()
    source, file = SourceSpec(path=f"rows{suffix}"), tmp_path / "data" / f"rows{suffix}"
    file.write_bytes(table(suffix, ["one", "two"]))
    before = load_rows(source, file.parent)
    assert [row["text"] for row in before.rows] == ["one", "two"]
    change(file, table(suffix, ["six", "ten"]))
    now = load_rows(source, file.parent)
    assert [row["text"] for row in now.rows] == ["six", "ten"]
    assert now.digest != before.digest
    change(file, table(suffix, ["one", "two"]))
    assert load_rows(source, file.parent) == before


@pytest.mark.parametrize("change", [in_place, with_its_times, by_another])
def test_a_downloaded_copy_is_read_as_it_is_now(tmp_path: Path, hub_copy, change: Change) -> None:
    rows = {"default": {"train": [{"text": "one"}, {"text": "two"}]}}
    hub_copy(tmp_path, "own/set", rows)
    source, file = SourceSpec(hub="own/set"), tmp_path / "own/set/default/train.jsonl"
    assert [row["text"] for row in load_rows(source, tmp_path).rows] == ["one", "two"]
    change(file, file.read_bytes().replace(b"two", b"ten"))
    assert [row["text"] for row in load_rows(source, tmp_path).rows] == ["one", "ten"]


def test_files_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    stand_in = SourceSpec(path="instead.txt", note="instead")
    source = SourceSpec(path=["many/*.txt", "one.txt"], otherwise=stand_in)

    def texts() -> list[str]:
        return [row["text"] for row in load_rows(source, tmp_path).rows]

    with pytest.raises(UserError, match="No file matches"):
        load_rows(source, tmp_path)
    (tmp_path / "instead.txt").write_text("instead")
    assert texts() == ["instead"]
    in_place(tmp_path / "instead.txt", b"INSTEAD")
    assert texts() == ["INSTEAD"]
    (tmp_path / "one.txt").write_text("one")
    assert texts() == ["one"]
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "b.txt").write_text("b")
    assert texts() == ["b"]
    (tmp_path / "many" / "a.txt").write_text("a")
    assert texts() == ["a", "b"]
    (tmp_path / "many" / "b.txt").unlink()
    assert texts() == ["a"]


def test_a_relative_folder_is_that_of_the_folder_of_work(tmp_path: Path, monkeypatch) -> None:
    for name in ("here", "there"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "rows.txt").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        assert load_rows(SourceSpec(path="rows.txt"), Path("data")).rows == [{"text": name}]


def test_who_changes_rows_changes_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "choices": [["x", "y"]], "more": {"k": 1}}\n')
    source = SourceSpec(path="rows.jsonl")
    first = load_rows(source, tmp_path).rows[0]
    first["choices"][0].pop()
    first["more"]["k"] = 2
    del first["text"]
    assert load_rows(source, tmp_path).rows == [{"text": "a", "choices": [["x", "y"]], "more": {"k": 1}}]


def test_a_file_that_changes_while_it_is_read_is_refused_and_not_kept(tmp_path: Path, monkeypatch) -> None:
    file, source = tmp_path / "rows.txt", SourceSpec(path="rows.txt")
    file.write_text("one")
    read = data._read

    def slowly(*arguments):
        rows = read(*arguments)
        in_place(file, b"two")
        return rows

    monkeypatch.setattr(data, "_read", slowly)
    with pytest.raises(UserError, match=r"rows\.txt changed while it was read; wait until it is written"):
        load_rows(source, tmp_path)
    monkeypatch.undo()
    assert load_rows(source, tmp_path).rows == [{"text": "two"}]


def test_the_hub_is_asked_once_a_plan(tmp_path: Path, monkeypatch) -> None:
    from datasets import Dataset

    given: list[list[dict]] = [[{"text": "old"}], [{"text": "new"}]]
    asked: list[str] = []

    def load(path, **_):
        asked.append(path)
        if len(asked) == 3:
            raise ConnectionError("no route")
        return Dataset.from_list(given[len(asked) - 1])

    monkeypatch.setattr("datasets.load_dataset", load)
    source = SourceSpec(hub="own/set")
    for text in ("old", "new"):
        reader = SourceReader()
        assert [reader.rows(source, tmp_path).rows, load_rows(source, tmp_path).rows] == [[{"text": text}]] * 2
    SourceReader()
    for _ in range(2):
        with pytest.raises(UserError, match="no route"):
            load_rows(source, tmp_path)
    assert len(asked) == 3


def test_a_source_of_two_folders_is_two(tmp_path: Path) -> None:
    reader, source = SourceReader(), SourceSpec(path="rows.txt")
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.txt").write_text(name)
        assert reader.rows(source, tmp_path / name).rows == [{"text": name}]


@pytest.fixture
def remembered(monkeypatch) -> Callable[[], int]:
    """Let digests be remembered of files of any age; returns how many files were read for theirs."""
    count = 0
    read = store_files.file_sha256

    def counted(path: Path) -> str:
        nonlocal count
        count += 1
        return read(path)

    monkeypatch.setattr(store_files, "FRESH", -1.0)
    monkeypatch.setattr(store_files, "file_sha256", counted)
    return lambda: count


@pytest.mark.parametrize("change", WAYS)
def test_a_remembered_digest_goes_with_any_change_of_the_file(tmp_path: Path, remembered, change: Change) -> None:
    folder, digests = tmp_path / "model", FileDigests(tmp_path / "digests.json")
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"before")
    before = folder_digest(folder, ["*.bin"], digests)
    assert folder_digest(folder, ["*.bin"], digests) == before
    assert remembered() == 1
    time.sleep(0.05)
    change(folder / "a.bin", b"behind")
    assert folder_digest(folder, ["*.bin"], digests) != before
    assert folder_digest(folder, ["*.bin"], FileDigests(digests.path, anew=True)) != before
    assert remembered() == 3


def test_a_file_that_was_just_written_has_no_remembered_digest(tmp_path: Path) -> None:
    digests = FileDigests(tmp_path / "digests.json")
    (tmp_path / "a.bin").write_bytes(b"new")
    folder_digest(tmp_path, ["*.bin"], digests)
    assert not digests.path.exists()


def test_digests_of_an_earlier_version_are_none(tmp_path: Path, remembered) -> None:
    digests = FileDigests(tmp_path / "digests.json")
    (tmp_path / "a.bin").write_bytes(b"new")
    size, modified, *_ = store_files.stamp_of(tmp_path / "a.bin")
    digests.save({str(tmp_path / "a.bin"): [size, modified, "0" * 64]})
    assert folder_digest(tmp_path, ["*.bin"], digests) == folder_digest(tmp_path, ["*.bin"])


def test_a_file_that_changes_while_its_digest_is_taken_is_refused(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.bin").write_bytes(b"before")
    monkeypatch.setattr(store_files, "file_sha256", lambda path: path.write_bytes(b"later") or "")
    with pytest.raises(UserError, match=r"a\.bin changed while it was read"):
        folder_digest(tmp_path, ["*.bin"])


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """A suite file over copies of the embedded suite's model, scorer and data."""
    folder = tmp_path_factory.mktemp("originals")
    for part in ("model", "judge"):
        shutil.copytree(MICRO / part, folder / part)
    shutil.copytree(MICRO / "model", folder / "checkpoint")
    (folder / "data").mkdir()
    for name, count in (("wmdp", 6), ("mmlu", 6), ("prompts", 3), ("forget_alchemy", 20), ("retain", 20)):
        lines = (MICRO / "data" / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (folder / "data" / f"{name}.jsonl").write_text("".join(lines[:count]))
    corpora = "{forget: {alchemy: {path: data/forget_alchemy.jsonl}}, retain: {path: data/retain.jsonl}}"
    (folder / "suite.yaml").write_text(
        f"""name: small
models: {{micro: {{path: model}}}}
tasks:
  wmdp: {{task: wmdp, data: {{path: data/wmdp.jsonl}}, settings: {{form: continuation}}}}
  mmlu: {{task: mmlu, data: {{path: data/mmlu.jsonl}}, settings: {{form: continuation}}}}
  prompts:
    task: realtoxicityprompts
    data: {{path: data/prompts.jsonl}}
    settings: {{decoding: {{samples: 1, max_new_tokens: 4}}}}
tracks:
  knowledge: {{forget_task: wmdp, retain_task: mmlu, corpora: {corpora}}}
  toxicity: {{forget_task: prompts, retain_task: mmlu, corpora: {corpora}}}
training: {{batch_size: 4, max_length: 32, steps: 2, learning_rate: 1.0e-3}}
scorer: {{kind: trust, path: judge}}
"""
    )
    return folder


@pytest.fixture
def home(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "home"))


def run(home: Path, track: str = "knowledge", executor: str = "inline", output: Path | None = None, **asked) -> Result:
    request = Request(suite=str(home / "suite.yaml"), tracks=(track,), **{"methods": ("none",), **asked})
    return evaluate(request, output=output or home / "out", executor=executor, workers=1)


def answers(result: Result, variant: str, task: str = "wmdp", kind: str = "outcomes") -> list[dict]:
    """The stored rows of a row's task."""
    [status] = [status for status in result.cells if status.cell.spec.variant == variant]
    return read_jsonl(getattr(status, kind)[task].file(f"{kind}.jsonl"))


def other_weights(folder: Path) -> bytes:
    """Return a weight file as long as the folder's, of other weights."""
    raw = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    return raw[:start] + bytes(byte ^ 0x80 if place % 4 == 3 else byte for place, byte in enumerate(raw[start:]))


@pytest.fixture(scope="module")
def negated(originals: Path) -> bytes:
    return other_weights(originals / "model")


@pytest.mark.parametrize(
    ("change", "executor"),
    [(with_its_times, "inline"), (by_another, "inline"), (by_a_link, "inline"), (in_place, "local")],
)
def test_a_checkpoint_that_changed_is_measured_as_it_is_now(home, negated, change: Change, executor: str) -> None:
    before = run(home, executor=executor, checkpoints={"mine": home / "checkpoint"}, tasks=("wmdp", "mmlu"))
    assert answers(before, "mine") == answers(before, "base")
    change(home / "checkpoint" / "model.safetensors", negated)
    shutil.copytree(home / "checkpoint", home / "copy")
    now = run(home, executor=executor, checkpoints={"mine": home / "checkpoint", "copy": home / "copy"})
    assert not now.failures
    assert answers(now, "mine") != answers(before, "mine")
    assert answers(now, "base") == answers(before, "base")
    model_cache._close(list(model_cache._engines))
    elsewhere = evaluate(
        Request(
            suite=str(home / "suite.yaml"), tracks=("knowledge",), methods=("none",), checkpoints={"c": home / "copy"}
        ),
        output=home / "new",
        executor="inline",
    )
    assert answers(now, "mine") == answers(elsewhere, "c")


def test_a_folder_whose_link_is_switched_is_another_checkpoint(home, negated) -> None:
    shutil.copytree(home / "checkpoint", home / "second")
    in_place(home / "second" / "model.safetensors", negated)
    (home / "latest").symlink_to(home / "checkpoint")
    before = run(home, checkpoints={"mine": home / "latest"})
    (home / "latest").unlink()
    (home / "latest").symlink_to(home / "second")
    assert answers(run(home, checkpoints={"mine": home / "latest"}), "mine") != answers(before, "mine")


def test_a_base_that_was_written_into_and_put_back_is_loaded_again(home, negated) -> None:
    file = home / "model" / "model.safetensors"
    whole, before = file.read_bytes(), run(home)
    in_place(file, negated)
    changed = run(home)
    by_another(file, whole)
    again = run(home, output=home / "new")
    assert answers(changed, "base") != answers(before, "base") == answers(again, "base")


def test_answers_settings_text_and_tokenizer_that_changed_are_read_again(home) -> None:
    asked = {"methods": ("rmu",), "checkpoints": {"mine": home / "checkpoint"}, "noise": False}
    before = run(home, **asked)
    file = home / "data" / "wmdp.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    lines = [json.dumps({**row, "answer": (row["answer"] + 1) % 4}) for row in rows]
    with_its_times(file, ("\n".join(lines) + "\n").encode())
    config = home / "checkpoint" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"padding_side": "right"}))
    by_another(home / "data" / "forget_alchemy.jsonl", (home / "data" / "retain.jsonl").read_bytes())
    suite = home / "suite.yaml"
    with_its_times(suite, suite.read_bytes().replace(b"1.0e-3", b"3.0e-3"))
    now = run(home, **asked)
    assert not now.failures
    for variant in ("base", "mine"):
        scores = [[row["scores"]["acc"] for row in answers(r, variant, kind="records")] for r in (before, now)]
        assert all(not (old and new) for old, new in zip(*scores, strict=True))
    ids = [{s.cell.spec.variant: s.cell.id for s in result.cells} for result in (before, now)]
    assert {name for name in ids[0] if ids[0][name] != ids[1][name]} == {"rmu", "mine"}


def test_a_judge_that_changed_is_loaded_anew(home) -> None:
    import torch

    assert not run(home, "toxicity").failures
    file = home / "judge" / "toxicity_classifier.pth"
    kept = torch.load(file, weights_only=True)

    def negate(value):
        if isinstance(value, dict):
            return {key: negate(inner) for key, inner in value.items()}
        return -value if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    torch.save(negate(kept), file)
    with pytest.raises(UserError, match="ranks rude sentences below plain ones"):
        run(home, "toxicity")


def after_planning(monkeypatch, change: Callable[[], object]) -> None:
    """Have something happen as soon as a run is planned."""
    save = Plan.save

    def saved(plan: Plan, store: Store) -> None:
        save(plan, store)
        change()

    monkeypatch.setattr(Plan, "save", saved)


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_what_changes_between_plan_and_job_fails_its_cells_by_name(home, negated, monkeypatch, executor) -> None:
    after_planning(monkeypatch, lambda: with_its_times(home / "checkpoint" / "model.safetensors", negated))
    result = run(home, executor=executor, checkpoints={"mine": home / "checkpoint"}, tasks=("wmdp", "mmlu"))
    assert set(result.failures) == {"mine"}
    assert f"{home / 'checkpoint'} changed after the run was planned" in result.failures["mine"]
    monkeypatch.undo()
    again = run(home, executor=executor, checkpoints={"mine": home / "checkpoint"}, tasks=("wmdp", "mmlu"))
    assert not again.failures
    assert answers(again, "mine") != answers(again, "base")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_base_that_changes_after_the_plan_is_neither_trained_nor_measured(home, monkeypatch, name) -> None:
    file = home / "model" / name
    after_planning(
        monkeypatch, lambda: in_place(file, file.read_bytes() + b" " if name != "model.safetensors" else b"x")
    )
    model_cache._base.clear()
    result = run(home, methods=("rmu",))
    assert set(result.failures) == {"base", "knowledge/rmu#0"}
    assert all("model changed after the run was planned" in cause for cause in result.failures.values())
    [noise] = [status for status in result.cells if status.cell.spec.beside == "noise"]
    assert (noise.made, dict(noise.records), noise.failure) == (False, {}, "knowledge/rmu#0 failed")


@pytest.mark.parametrize("name", ["wmdp", "retain"])
def test_data_that_change_after_the_plan_fail_what_is_made_of_them(home, monkeypatch, name) -> None:
    file = home / "data" / f"{name}.jsonl"
    last = file.read_text().splitlines()[0]
    after_planning(monkeypatch, lambda: with_its_times(file, f"{last}\n".encode()))
    result = run(home, methods=("rmu",), noise=False)
    assert all("changed after the run was planned; run again" in cause for cause in result.failures.values())
    assert set(result.failures) == ({"base", "knowledge/rmu#0"} if name == "wmdp" else {"knowledge/rmu#0"})


def test_weights_that_are_written_into_while_they_answer_leave_no_answers(home, negated, monkeypatch) -> None:
    answer = measuring.answer

    def disturbed(job, *rest):
        given = answer(job, *rest)
        if job.cell.transform == "import":
            in_place(home / "checkpoint" / "model.safetensors", negated)
        return given

    monkeypatch.setattr(measuring, "answer", disturbed)
    monkeypatch.setattr(measuring, "PART", 2)
    result = run(home, checkpoints={"mine": home / "checkpoint"})
    assert set(result.failures) == {"mine"}
    assert not list((home / "out" / "outcomes").glob("*/.answers*"))


def test_a_judge_that_changes_while_it_judges_leaves_no_judgements(home, monkeypatch) -> None:
    file = home / "judge" / "config.json"
    after_planning(monkeypatch, lambda: file.write_text(file.read_text() + " "))
    result = run(home, "toxicity")
    assert f"{home / 'judge'} changed after the run was planned" in result.failures["base"]
    assert not [path for path in (home / "out" / "records").glob("*/manifest.json") if "prompts" in path.read_text()]


def test_an_engine_is_kept_while_its_files_stay_and_no_longer(home, negated) -> None:
    class Fake:
        alone, closed = False, False

        def __init__(self, model, **_):
            pass

        def close(self) -> None:
            self.closed = True

    model = ModelSpec(name="m", path=str(home / "model"))
    try:
        first = model_cache.engine(Fake, model, "cpu", 1, {})
        assert model_cache.engine(Fake, model, "cpu", 1, {}) is first
        with_its_times(home / "model" / "model.safetensors", negated)
        assert model_cache.engine(Fake, model, "cpu", 1, {}) is not first
        with pytest.raises(UserError, match="changed after the run was planned"):
            model_cache.engine(Fake, model.model_copy(update={"digest": "0" * 16}), "cpu", 1, {})
    finally:
        model_cache._close(list(model_cache._engines))


def test_all_files_are_read_again_where_that_is_asked(home, monkeypatch) -> None:
    request = Request(suite=str(home / "suite.yaml"), tracks=("knowledge",), methods=("none",))
    monkeypatch.setattr(store_files, "FRESH", -1.0)
    asked = {"output": home / "out", "executor": "inline"}
    evaluate(request, **asked)
    store = Store.open(home / "out")
    forged = {path: [[*stamp[:-1], "0" * 64] for stamp in stamps] for path, stamps in store.digests.load().items()}
    assert forged
    store.digests.save(forged)
    believed = evaluate(request, **asked)
    read = evaluate(request, **asked, verify_inputs=True)
    assert believed.plan.models["micro"].digest != read.plan.models["micro"].digest
    assert not read.failures


def test_a_class_that_is_defined_anew_under_its_name_asks_its_own_questions() -> None:
    from unlearn_bench.tasks.base import tasks

    kind = tasks.get("mmlu")
    first = type("Twin", (kind,), {})
    second = type("Twin", (kind,), {"_described": lambda self, item: "Other words. "})
    asked = []
    for twin in (first, second):
        task = twin(twin.Settings(describe=True))
        rows = [{"question": "q", "choices": ["a", "b", "c", "d"], "answer": 0, "subject": "law"}]
        asked.append(task.requests(task.items(rows)))
    assert asked[0] != asked[1]
