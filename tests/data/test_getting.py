"""Known sets are fetched at a pinned commit, and what can't be fetched says what to put where."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import threading
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner

from medcare.cli import app
from medcare.data import catalogue, getting
from medcare.data.readers import conversations
from medcare.foundation.errors import DataError

ROWS = b'{"prompt": "What is asthma?", "completion": "A disease."}\n'


def blob(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def packed() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("inside/rows.jsonl", ROWS)
        archive.writestr("../outside.jsonl", ROWS)
        archive.writestr("run.py", "raise SystemExit")
    return stream.getvalue()


@pytest.fixture
def known(tmp_path: Path, monkeypatch):
    """A set on a server of this machine's."""
    files = {"data/rows.jsonl": ROWS, "data/more.zip": packed()}
    for name, data in files.items():
        path = tmp_path / "served" / "owner" / "name" / "c0ffee" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(getting, "_RAW", f"http://127.0.0.1:{server.server_port}")
    given = replace(
        getting.find("cmexam"),
        name="mine",
        source="https://github.com/owner/name",
        commit="c0ffee",
        files={name: blob(data) for name, data in files.items()},
    )
    monkeypatch.setattr(getting, "KNOWN_SETS", (given, *catalogue.KNOWN_SETS))
    yield given
    server.shutdown()
    server.server_close()


def test_its_files_come_with_their_hashes_and_licence(known, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["data", "get", "mine"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "mine at commit c0ffee; licence: Apache-2.0" in done.output
    assert hashlib.sha256(ROWS).hexdigest() in done.output
    files = sorted(str(path.relative_to("data/mine")) for path in Path("data/mine").rglob("*.jsonl"))
    assert files == ["data/inside/rows.jsonl", "data/outside.jsonl", "data/rows.jsonl"]
    assert not list(Path("data/mine").rglob("*.py"))
    assert list(conversations("data/mine/data/rows.jsonl"))


def test_what_is_there_is_not_asked_for_again(known, tmp_path: Path, monkeypatch) -> None:
    getting.get(known, tmp_path / "mine")
    monkeypatch.setattr(getting, "_RAW", "http://127.0.0.1:1")
    assert getting.get(known, tmp_path / "mine")
    (tmp_path / "mine/data/inside/rows.jsonl").write_bytes(b"changed")
    assert getting.get(known, tmp_path / "mine"), "unpacked anew"
    assert (tmp_path / "mine/data/inside/rows.jsonl").read_bytes() == ROWS


def test_another_file_than_the_known_one_is_refused(known, tmp_path: Path) -> None:
    other = replace(known, files={"data/rows.jsonl": blob(b"other")})
    with pytest.raises(DataError, match="is not the file of git blob"):
        getting.get(other, tmp_path / "mine")
    assert not [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["data/rows.jsonl", "data/none.jsonl"])
def test_without_a_network_it_says_what_to_put_where(known, name, tmp_path: Path, monkeypatch) -> None:
    if name == "data/rows.jsonl":
        monkeypatch.setattr(getting, "_RAW", "http://127.0.0.1:1")
    with pytest.raises(DataError, match=f"take {name} of https://github.com/owner/name at commit c0ffee"):
        getting.get(replace(known, files={name: blob(ROWS)}), tmp_path / "mine")


def test_a_hubs_commit_stays_that_of_the_first_download(tmp_path: Path, monkeypatch) -> None:
    asked = []

    class Api:
        def dataset_info(self, repository, *, revision, timeout):
            asked.append((repository, revision))
            return type("Info", (), {"sha": revision or "abc123"})

    def download(repository, *, repo_type, revision, local_dir, allow_patterns):
        assert (repo_type, allow_patterns) == ("dataset", ["*.parquet"])
        Path(local_dir).mkdir(exist_ok=True)
        (Path(local_dir) / "rows.jsonl").write_bytes(ROWS)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for _ in range(2):
        getting.get(getting.find("medmcqa"), tmp_path / "mine")
    assert asked == [("openlifescienceai/medmcqa", None), ("openlifescienceai/medmcqa", "abc123")]
    assert json.loads((tmp_path / "mine" / getting.SOURCE).read_text())["commit"] == "abc123"


def test_a_hub_out_of_reach_and_a_set_to_ask_for_are_one_sentence(tmp_path: Path, monkeypatch) -> None:
    class Api:
        def dataset_info(self, repository, *, revision, timeout):
            raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(DataError, match=r"no network\. Without a network, take"):
        getting.get(getting.find("medmcqa"), tmp_path / "mine")
    monkeypatch.setattr("huggingface_hub.HfApi", partial(HfApi, endpoint="http://127.0.0.1:9"))
    with pytest.raises(DataError, match=r"The hub can't be reached for medmcqa: .* Without a network, take"):
        getting.get(getting.find("medmcqa"), tmp_path / "mine")
    with pytest.raises(DataError, match="Register at the Tianchi competition"):
        getting.get(getting.find("promptcblue"), tmp_path / "mine")
    with pytest.raises(DataError, match="Known: medcare, cmexam"):
        getting.find("nothing")


def test_every_set_has_files_or_says_how_to_ask() -> None:
    for entry in catalogue.KNOWN_SETS:
        assert entry.repository.count("/") == 1
        assert isinstance(entry.files, dict) == bool(entry.commit)
        assert not (isinstance(entry.files, dict) and entry.on_hub)
        if entry.commit:
            assert {len(value) for value in (*entry.files.values(), entry.commit)} == {40}
