from __future__ import annotations

import base64
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from typer.testing import CliRunner

from medcare.cli import app
from medcare.export.push import PushError, prepare, push
from medcare.foundation.errors import ConfigError, FolderError
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
    assert "Not sent: .lock, config.yaml, manifest.json." in done.output


@pytest.mark.parametrize(
    "repo", ["model", "a/b/c", "../x", "you/mo del", "/x", "you/", "you/a--b", "you/m.git", "you/m."]
)
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


@pytest.mark.parametrize(
    "local",
    [
        "/home/ada/base",
        "/scratch/ada/base",
        "/opt/base",
        "file:///srv/base",
        "~/base",
        "C:\\Users\\ada",
        "D:/base",
    ],
)
def test_paths_of_this_machine(local, folder):
    front(folder, base_model="owner/base", license="apache-2.0")
    name = "config.json" if (folder / "config.json").is_file() else "adapter_config.json"
    tree = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**tree, "base_model_name_or_path": local}))
    with pytest.raises(FolderError, match="names a path of this machine"):
        prepare(folder, "you/model")


def test_text_that_is_no_path(folder):
    front(folder, base_model="owner/base", license="apache-2.0")
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nSee https://arxiv.org/abs/2406.17484, yes/no and <b>A:</b>\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos": "</s>", "ask": "A:\n</think>\n/think"}))
    prepare(folder, "you/model")


def test_files_that_lead_elsewhere_or_are_no_text(folder, tmp_path):
    front(folder, base_model="owner/base", license="apache-2.0")
    (tmp_path / "notes").write_text("a patient")
    (folder / "LICENSE").symlink_to(tmp_path / "notes")
    with pytest.raises(FolderError, match="LICENSE"):
        prepare(folder, "you/model")
    (folder / "LICENSE").unlink()
    (folder / "README.md").write_bytes((folder / "README.md").read_bytes() + b"\xe9")
    with pytest.raises(FolderError, match="UTF-8"):
        prepare(folder, "you/model")


def with_base(made, tmp_path, base):
    folder = shutil.copytree(made / "lora", tmp_path / "own")
    front(folder, base_model="owner/base", license="apache-2.0")
    tree = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**tree, "base_model_name_or_path": base}))
    return folder


@pytest.mark.parametrize("base", ["models/tiny/base", "", None])
def test_an_adapter_on_a_base_that_others_lack(base, made, tmp_path):
    with pytest.raises(FolderError, match="others can't load"):
        prepare(with_base(made, tmp_path, base), "you/model")


class FakeHub:
    """What HfApi was asked."""

    def __init__(self, error=None, *, private=True):
        self.error = error
        self.private = private
        self.calls = []

    def create_repo(self, repo, **options):
        self.calls.append(("create", repo, options))
        if self.error:
            raise self.error

    def model_info(self, repo):
        return SimpleNamespace(private=self.private)

    def create_commit(self, repo, **options):
        self.calls.append(("commit", repo, options))
        return SimpleNamespace(commit_url="https://hub/commit/1")


def test_what_is_sent(folder, monkeypatch):
    hub = FakeHub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    front(folder, base_model="owner/base", license="apache-2.0")
    done = CliRunner().invoke(app, ["push", str(folder), "you/model", "--yes"])
    assert done.exit_code == 0, done.exception
    assert hub.calls[0] == ("create", "you/model", {"private": True, "exist_ok": True})
    assert len(hub.calls) == 2
    sent = {operation.path_in_repo for operation in hub.calls[1][2]["operations"]}
    assert sent == {path.name for path in folder.iterdir()} - {"config.yaml", "manifest.json", ".lock"}
    assert "https://hub/commit/1" in done.output


def test_a_public_repository_takes_nothing_unasked(folder, monkeypatch):
    hub = FakeHub(private=False)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    front(folder, base_model="owner/base", license="apache-2.0")
    with pytest.raises(PushError, match="--public"):
        push(prepare(folder, "you/model"))
    assert [call[0] for call in hub.calls] == ["create"]
    push(prepare(folder, "you/model"), private=False)
    assert hub.calls[-1][0] == "commit"


class HubServer(BaseHTTPRequestHandler):
    """As much of the hub's interface as one commit of small files needs."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path.endswith("/preupload/main"):
            names = [entry["path"] for entry in json.loads(body)["files"]]
            self.answer(
                {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
            )
        elif "/commit/" in self.path:
            entries = [json.loads(line) for line in body.splitlines()]
            self.server.commits.append([e["value"] for e in entries if e["key"] == "file"])
            self.answer(
                {"commitUrl": "http://127.0.0.1/you/model/commit/1", "commitOid": "1", "success": True}
            )
        else:
            self.answer({"url": "http://127.0.0.1/you/model"})

    def do_GET(self):
        self.answer({"id": "you/model", "private": True, "sha": "0", "siblings": [], "tags": []})

    def answer(self, tree):
        body = json.dumps(tree).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing on the test's output."""


def test_a_hub_of_this_machine_gets_the_bytes(made, tmp_path, monkeypatch):
    folder = with_base(made, tmp_path, "embedded")
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubServer)
    server.commits = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint=endpoint, token="hf_x"))
        push(prepare(folder, "you/model"))
    finally:
        server.shutdown()
        server.server_close()
    (files,) = server.commits
    got = {entry["path"]: base64.b64decode(entry["content"]) for entry in files}
    assert set(got) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert got["adapter_model.safetensors"] == (folder / "adapter_model.safetensors").read_bytes()
    base = json.loads(got["adapter_config.json"])["base_model_name_or_path"]
    assert base == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "embedded" in (folder / "adapter_config.json").read_text()  # the folder itself still loads here


def test_no_connection(folder, monkeypatch):
    api = HfApi(endpoint="http://127.0.0.1:9", token="hf_x")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    front(folder, base_model="owner/base", license="apache-2.0")
    with pytest.raises(PushError, match="could not be reached"):
        push(prepare(folder, "you/model"))


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
