"""Data sets of a hub: what is named, which commit it is, and that this one is read."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import httpx2
import pytest
from huggingface_hub import HfApi

from medcare.data.readers.hub import HubData
from medcare.data.readers.reading import open_data
from medcare.data.readers.rows import expand
from medcare.data.tokenised import TrainingData
from medcare.foundation.errors import DataError
from medcare.foundation.hub import HubName

COMMIT = "c" * 40


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:o/n", HubData(HubName("o/n"), None, "train")),
        ("hf:o/n:test", HubData(HubName("o/n"), None, "test")),
        ("hf:o/n:anatomy", HubData(HubName("o/n"), "anatomy", "train")),
        ("hf:o/n:anatomy:dev", HubData(HubName("o/n"), "anatomy", "dev")),
        ("hf:o/n@v2:anatomy:dev", HubData(HubName("o/n", "v2"), "anatomy", "dev")),
        ("hf:o/n@refs/pr/1", HubData(HubName("o/n", "refs/pr/1"), None, "train")),
    ],
)
def test_sources(source: str, expected: HubData) -> None:
    assert HubData.parse(source) == expected
    assert HubData.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "source",
    ["hf:", "hf:o/n:", "hf:o/n:a:b:c", "hf:o/n@", "hf:o/n@../x", "hf:../../n", "hf:o/n*", "hf:@main"],
)
def test_malformed_sources_are_refused_before_anything_is_asked(source: str, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: pytest.fail("a hub was asked"))
    with pytest.raises(DataError, match="hf:owner/name"):
        expand(source)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub whose data set moves on: what it was asked, and the commits that its branches are at."""
    asked = SimpleNamespace(commits={"main": "a" * 40, "v2": "b" * 40}, loaded=[], online=True)

    class Api:
        def dataset_info(self, repository, *, revision, timeout):
            if not asked.online:
                raise ConnectionError("no way to the hub")
            return SimpleNamespace(sha=asked.commits[revision or "main"])

    def load_dataset(path, name=None, *, split, revision, streaming):
        asked.loaded.append((path, name, split, revision))
        return [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]

    monkeypatch.setenv("MEDCARE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize(("source", "commit"), [("hf:o/n:test", "a" * 40), ("hf:o/n@v2:test", "b" * 40)])
def test_the_commit_that_was_found_is_the_one_that_is_read_and_told(hub, source: str, commit: str) -> None:
    data = TrainingData.named(source)
    hub.commits = dict.fromkeys(hub.commits, COMMIT)  # it moves on
    assert data.digest == f"hf:o/n@{commit}:test"
    assert len([found for reading in data.readings() for found in reading.conversations("keep")]) == 1
    assert hub.loaded == [("o/n", None, "test", commit)]


def test_a_pinned_commit_is_asked_of_nobody(hub) -> None:
    hub.online = False
    assert TrainingData.named(f"hf:o/n@{COMMIT}").digest == f"hf:o/n@{COMMIT}:train"
    open_data(f"hf:o/n@{COMMIT}")
    assert hub.loaded[-1] == ("o/n", None, "train", COMMIT)


def test_a_hub_that_nobody_answers_for_is_no_fault_of_ours(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MEDCARE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.HfApi", partial(HfApi, endpoint="http://127.0.0.1:9"))
    assert expand("hf:o/n") == ["hf:o/n:train"]

    def breaks_off(*_, **__):
        yield {"text": "a"}
        raise httpx2.ReadTimeout("no answer")

    monkeypatch.setattr("datasets.load_dataset", breaks_off)
    with pytest.raises(DataError, match="hf:o/n:train can't be read: no answer"):
        list(open_data("hf:o/n").rows)


def test_without_a_connection_it_is_the_last_commit_known(hub) -> None:
    assert expand("hf:o/n") == [f"hf:o/n@{'a' * 40}:train"]
    hub.online = False
    assert expand("hf:o/n") == [f"hf:o/n@{'a' * 40}:train"]
    assert expand("hf:o/never") == ["hf:o/never:train"]
