"""Nothing that comes from elsewhere is executed, leads out of its folder, or carries a secret into what is written."""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.data import hub_copy, load_rows
from unlearn_bench.harness.errors import UserError, redacted
from unlearn_bench.harness.maintenance.merge import merge
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.registry import Registry
from unlearn_bench.harness.specs import _OnceLoader
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import read_sealed, write_sealed
from unlearn_bench.harness.suite import SourceSpec, load_suite
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.rmu import RMU

FOLDERS = ("harness", "methods", "tasks", "leaderboards", "reports")
UNPICKLE = {"dill", "joblib", "marshal", "shelve", "cloudpickle", "tarfile", "zipfile"}
TO_WORKERS = Path("harness", "planning", "classes.py")
"""Sends a user's own classes to the user's own workers; nothing of it comes from a file."""
ASKS_WHETHER_ZIP = Path("harness", "models", "weights.py")
"""Asks by `is_zipfile` whether a pickle of weights can be mapped into memory; it unpacks nothing."""
CANARIES = {
    "HF_TOKEN": "hf_canaryAAAAbbbbCCCCddddEEEE",
    "AWS_SECRET_ACCESS_KEY": "canary/aws+secret0123456789",
    "OPENAI_API_KEY": "sk-canary-0123456789",
    "DATABASE_PASSWORD": "canary-password-77",
}


def calls(root: Path):
    """Give every call of the code with its file, its dotted name and its keywords."""
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield file, ast.unparse(node.func), {word.arg: word.value for word in node.keywords}


def test_no_call_trusts_code_or_unpickles(root: Path) -> None:
    loads = 0
    for file, name, words in calls(root):
        if "trust_remote_code" in words:
            assert ast.unparse(words["trust_remote_code"]) == "False", f"{file} trusts code of a hub in {name}"
        if name == "torch.load":
            loads += 1
            assert ast.unparse(words["weights_only"]) == "True", f"{file} unpickles"
        assert name not in {"eval", "exec", "pickle.load", "pickle.loads", "yaml.unsafe_load"}, file
        if name == "yaml.load":
            loader = ast.unparse(words["Loader"])
            assert (file, loader) == (root / "harness" / "specs.py", "_OnceLoader"), f"{file} may build objects"
        assert name != "cloudpickle.loads" or file == root / TO_WORKERS, f"{file} unpickles"
        assert "unpack_archive" not in name, file
    assert not issubclass(_OnceLoader, (yaml.UnsafeLoader, yaml.FullLoader))
    assert issubclass(_OnceLoader, yaml.SafeLoader)
    assert _OnceLoader.yaml_constructors is yaml.SafeLoader.yaml_constructors, "it can build what that one can"
    assert _OnceLoader.yaml_multi_constructors is yaml.SafeLoader.yaml_multi_constructors
    assert loads, "the test looks at the calls that it is about"


def test_no_module_that_unpickles_or_unpacks_is_imported(root: Path) -> None:
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                found = {name.split(".")[0] for name in names} & UNPICKLE
                if file == root / ASKS_WHETHER_ZIP and ast.unparse(node) == "from zipfile import is_zipfile":
                    continue
                assert not found or (file, found) == (root / TO_WORKERS, {"cloudpickle"}), f"{file} imports {found}"


@pytest.mark.parametrize("pattern", ["../secret.txt", "a/../../secret.txt", "/etc/hostname"])
def test_a_suite_reads_no_text_outside_its_folder(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "secret.txt").write_text("secret\n")
    (tmp_path / "data" / "a").mkdir(parents=True)
    stand_in = SourceSpec(path="*.txt")
    with pytest.raises(UserError, match="leads out of the data folder"):
        load_rows(SourceSpec(path=["*.csv", pattern], otherwise=stand_in), tmp_path / "data")


@pytest.mark.parametrize("hub", ["../x", "/etc", "a/b/c", "owner/..", ".hidden/x", "~/x"])
def test_a_hub_id_is_no_path(tmp_path: Path, hub: str) -> None:
    with pytest.raises(UserError, match="is no hub id"):
        hub_copy(hub, tmp_path)
    with pytest.raises(UserError, match="is no hub id"):
        load_rows(SourceSpec(hub=hub), None)


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "", "a\nb", "a|b", "<b>", "x" * 99])
def test_names_that_lead_elsewhere_or_break_tables_are_refused(name: str, root: Path) -> None:
    model = root / "harness" / "suites" / "micro" / "model"
    with pytest.raises(UserError, match="cannot be the name of a checkpoint"):
        make_plan(Request(methods=("none",), checkpoints={name: model}), None)
    with pytest.raises(UserError, match="cannot be the name of a method"):
        Registry("method", "unlearn_bench.methods", "none").register(name)


@pytest.mark.parametrize("name", ["../x", "a/b", ".", ""])
def test_what_is_no_id_is_no_entry(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no id of an entry"):
        Store.create(tmp_path).entry("cells", name)


@pytest.mark.parametrize("name", ["../x", "/x", "A", "a b"])
def test_a_suite_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(f"extends: micro\nname: {name!r}\n")
    with pytest.raises(UserError, match="name: String should match pattern"):
        load_suite(str(file))


def test_a_manifest_that_names_files_elsewhere_is_not_merged(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "evil")
    entry = store.entry("records", "abc")
    manifest = entry.commit({"records.jsonl": lambda path: path.write_text("")}, {})
    (tmp_path / "loot").write_text("")
    manifest["files"]["../../../loot"] = manifest["files"]["records.jsonl"]
    write_sealed(entry.file("manifest.json"), manifest)
    assert read_sealed(entry.file("manifest.json"))["files"].keys() == {"records.jsonl", "../../../loot"}
    assert entry.manifest() is None
    assert "no file of the entry" in str(entry.flaw())
    assert merge((store.root,), tmp_path / "deep" / "merged").copied["records"] == 0


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text("name: !!python/object/apply:os.system ['touch pwned']\n")
    with pytest.raises(UserError, match="is not YAML"):
        load_suite(str(file))


def test_a_judge_that_is_a_pickle_runs_nothing(tmp_path: Path) -> None:
    from unlearn_bench.tasks.base import load_scorer

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    folder = tmp_path / "scorer"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "toxicity_classifier.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(Exception, match=r"\S"):
        load_scorer("trust", str(folder))
    assert not (tmp_path / "pwned").exists()


def test_redacting_names_the_secret_and_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
        assert redacted(f"Bearer {value}!") == f"Bearer [{name}]!"
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-false")
    assert redacted("false-false") == "false-false"
    assert redacted("hf_ZZZZyyyyXXXXwwwwVVVV0000 left") == "[hub token] left"


class Leaks(RMU):
    """A method whose error holds what the environment holds."""

    def losses(self, batch):
        raise RuntimeError(f"refused: {sorted(os.environ.items())}")


def test_secrets_of_the_environment_stand_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    with methods.temporary("leaks", Leaks):
        quick = ["--tracks", "knowledge", "--limit", "8", "--set", "training.steps=2", "--executor", "inline"]
        line = ["evaluate", "--methods", "rmu,leaks", *quick, "--output", str(tmp_path)]
        ran = CliRunner().invoke(main, line)
        refused = CliRunner().invoke(main, ["evaluate", "--models", CANARIES["HF_TOKEN"], "--output", str(tmp_path)])
    assert (ran.exit_code, refused.exit_code) == (1, 2)
    assert "refused: " in ran.output
    assert "Unknown model '[HF_TOKEN]'" in refused.output
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kinds = {path.name for path in files}
    assert {"failure.json", "manifest.json", "micro.md", "micro.json", "micro.html", "training.jsonl"} <= kinds
    for value in CANARIES.values():
        assert value not in ran.output + refused.output
        leaked = [path for path, content in files.items() if value.encode() in content]
        assert not leaked
