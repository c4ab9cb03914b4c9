from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from typer.testing import CliRunner

from medcare.cli import app
from medcare.errors import ConfigError, FolderError
from medcare.export.push import PushError, prepare, push
from tests.export.stage_folders import stage_folders


@pytest.fixture(scope="module")
def made(tiny_base, tmp_path_factory):
    run = tmp_path_factory.mktemp("push") / "run"
    stage_folders(tiny_base, run)
    for name, options in {"model": [], "lora": ["--format", "lora"]}.items():
        done = CliRunner().invoke(app, ["export", str(run / "align"), "--out", str(run / name), *options])
        assert done.exit_code == 0, done.output
    for path in (
        run / "model" / "README.md",
        run / "lora" / "README.md",
        run / "lora" / "adapter_config.json",
    ):
        # The tests' base is a folder of this machine; a hub id stands for it.
        path.write_text(re.sub(re.escape(str(tiny_base)), "owner/base", path.read_text()))
    return run


@pytest.fixture(params=["model", "lora"])
def folder(request, made, tmp_path):
    return shutil.copytree(made / request.param, tmp_path / request.param)


def front(folder, **values):
    """Set, or with an empty value drop, entries of the card's front matter."""
    path = folder / "README.md"
    text = path.read_text()
    for key, value in values.items():
        text = re.sub(rf"^{key}:.*\n", "", text, count=1, flags=re.MULTILINE)
        if value:
            text = text.replace("---\n", f"---\n{key}: {value}\n", 1)
    path.write_text(text)


def test_a_dry_run_says_what_would_be_sent(folder):
    front(folder, base_model="owner/base", license="apache-2.0")
    done = CliRunner().invoke(app, ["push", str(folder), "you/model", "--dry-run"])
    assert done.exit_code == 0, done.exception
    assert "Nothing was sent." in done.output
    assert "private" in done.output
    assert "README.md" in done.output
    assert "manifest.json" not in done.output
    assert "config.yaml" not in done.output


@pytest.mark.parametrize("repo", ["model", "a/b/c", "../x", "you/mo del", "/x", "you/"])
def test_names_that_are_none(repo, folder):
    with pytest.raises(PushError, match="owner/name"):
        prepare(folder, repo)


@pytest.mark.parametrize("name", ["predictions.jsonl", "metrics.jsonl", "notes.txt", "model.bin", ".env"])
def test_files_that_are_not_for_others(name, folder):
    (folder / name).write_text("x")
    with pytest.raises(FolderError, match=re.escape(name)):
        prepare(folder, "you/model")


def test_what_is_no_export(made, tmp_path):
    with pytest.raises(FolderError, match="medcare export"):
        prepare(made / "align", "you/model")
    with pytest.raises(FolderError, match="no folder"):
        prepare(tmp_path / "none", "you/model")


def test_cards_that_are_not_enough(folder):
    front(folder, base_model="owner/base", license="")
    with pytest.raises(FolderError, match="lacks license"):
        prepare(folder, "you/model")
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: a/b\n---\nA model.\n")
    with pytest.raises(FolderError, match="medical device"):
        prepare(folder, "you/model")
    (folder / "README.md").unlink()
    with pytest.raises(FolderError, match=r"README\.md is missing"):
        prepare(folder, "you/model")


def test_paths_of_this_machine(folder):
    front(folder, base_model="owner/base", license="apache-2.0")
    name = "config.json" if (folder / "config.json").is_file() else "adapter_config.json"
    tree = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**tree, "base_model_name_or_path": "/home/ada/models/base"}))
    with pytest.raises(FolderError, match="/home/ada/models/base"):
        prepare(folder, "you/model")


class FakeHub:
    """What HfApi was asked."""

    def __init__(self, error=None):
        self.error = error
        self.calls = []

    def create_repo(self, repo, **options):
        self.calls.append(("create", repo, options))
        if self.error:
            raise self.error

    def upload_folder(self, **options):
        self.calls.append(("upload", options))
        return SimpleNamespace(commit_url="https://hub/commit/1")


def test_what_is_sent(folder, monkeypatch):
    hub = FakeHub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    front(folder, base_model="owner/base", license="apache-2.0")
    done = CliRunner().invoke(app, ["push", str(folder), "you/model", "--yes"])
    assert done.exit_code == 0, done.exception
    assert hub.calls[0] == ("create", "you/model", {"private": True, "exist_ok": True})
    sent = hub.calls[1][1]
    assert set(sent["allow_patterns"]) == {path.name for path in folder.iterdir()} - {
        "config.yaml", "manifest.json", ".lock",
    }  # fmt: skip
    assert "https://hub/commit/1" in done.output


def test_nobody_there_to_answer(folder):
    front(folder, base_model="owner/base", license="apache-2.0")
    done = CliRunner().invoke(app, ["push", str(folder), "you/model"])
    assert isinstance(done.exception, ConfigError)
    assert "--yes" in str(done.exception)


def refusal(status):
    return HfHubHTTPError("no", response=httpx.Response(status, request=httpx.Request("POST", "https://hub")))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LocalTokenNotFoundError("none"), "hf auth login"),
        (refusal(401), "hf auth login"),
        (refusal(403), "may not write"),
        (refusal(500), "Try again later"),
        (ConnectionError("refused"), "could not be reached: refused"),
    ],
)
def test_what_the_hub_refuses(error, said, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: FakeHub(error))
    front(folder, base_model="owner/base", license="apache-2.0")
    with pytest.raises(PushError, match=said):
        push(prepare(folder, "you/model"))
