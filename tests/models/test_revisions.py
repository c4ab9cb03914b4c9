"""A base on a hub in the state that is named, read out of the cache that huggingface_hub keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.file_download import repo_folder_name
from peft import PeftConfig

from medcare import api
from medcare.adapters.loading import base_source, load_model
from medcare.adapters.low_rank import Factors
from medcare.adapters.peft_files import save_lora
from medcare.export.card import render_card
from medcare.foundation.errors import FolderError, ModelError
from medcare.models import hub_files
from medcare.models.base_model import load_base, load_tokenizer, resolve_base
from medcare.models.hub_files import own_folder
from medcare.models.identity import base_digest
from medcare.settings.files import load_config
from medcare.settings.run_folder import read_manifest
from tests.conftest import tiny_model
from tests.text.tokenizers_by_family import tokenizer_of

OLD, NEW = "a" * 40, "b" * 40
ROWS = [{"messages": [{"role": "user", "content": "Fever?"}, {"role": "assistant", "content": "R50"}]}] * 4


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A hub's cache with `owner/name` at two commits: `v1` is the old one, `main` the new one."""
    cache = tmp_path_factory.mktemp("hub")
    repository = cache / repo_folder_name(repo_id="owner/name", repo_type="model")
    tokenizer = tokenizer_of("chatml")
    for seed, (commit, ref) in enumerate(((OLD, "v1"), (NEW, "main"))):
        snapshot = repository / "snapshots" / commit
        tiny_model("llama", seed=seed, hidden=16, vocab=len(tokenizer)).save_pretrained(snapshot)
        tokenizer.save_pretrained(snapshot)
        (snapshot / "added.txt").write_text(ref)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / ref).write_text(commit)
    return cache


@pytest.fixture(autouse=True)
def hub(cache, tmp_path, monkeypatch) -> Path:
    """The cache, for a test that may change it; the hub itself can't be reached."""
    own = shutil.copytree(cache, tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(own))
    monkeypatch.setattr(hub_files, "_is_out_of_reach", lambda: True)
    return own


def moved(hub: Path) -> None:
    """The main branch goes back to the old commit, as one that got another commit would."""
    (hub / "models--owner--name" / "refs" / "main").write_text(OLD)


def weight(name: str) -> torch.Tensor:
    return load_base(name, device=torch.device("cpu"), dtype=torch.float32).model.embed_tokens.weight


def test_a_revision_is_a_state_of_the_weights() -> None:
    assert torch.equal(weight("owner/name"), weight(f"owner/name@{NEW}"))
    assert torch.equal(weight("owner/name@v1"), weight(f"owner/name@{OLD}"))
    assert not torch.equal(weight("owner/name"), weight("owner/name@v1"))
    assert [base_digest(f"owner/name{at}") for at in ("", "@main", "@v1")] == [NEW, NEW, OLD]


def test_what_is_fetched_later_is_of_the_same_commit(hub) -> None:
    model, tokenizer = load_model("owner/name"), load_tokenizer("owner/name")
    moved(hub)
    for source in (model.name_or_path, model.config._name_or_path, tokenizer.name_or_path):
        assert source == f"owner/name@{NEW}"
        folder = own_folder(source)
        assert folder is not None
        assert (folder / "added.txt").read_text() == "main"


def test_a_revision_that_is_not_there_is_told() -> None:
    with pytest.raises(ModelError, match="owner/name@v9"):
        base_digest("owner/name@v9")


def test_a_repository_that_holds_an_adapter_too_is_told(hub) -> None:
    (hub / "models--owner--name" / "snapshots" / NEW / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="and an adapter"):
        weight("owner/name")


@pytest.mark.parametrize("name", ["owner/name@", "owner/name@../v1", "owner/name@a b", "a--b/c", "o/n@x@y"])
def test_a_name_of_another_shape_asks_no_hub(name: str, monkeypatch) -> None:
    monkeypatch.setattr(hub_files, "_is_out_of_reach", lambda: pytest.fail("a hub was asked"))
    with pytest.raises(ModelError, match="OWNER/NAME@REVISION"):
        resolve_base(name)
    assert own_folder(name) is None


def test_a_run_says_which_commit_it_is_of_and_goes_on_with_no_other(hub, tmp_path) -> None:
    settings = ["model.dtype=float32", "model.device=cpu", "adapters.rank=2", "adapters.experts=2"]
    config = load_config(settings=[*settings, "aggregate.epochs=1", "model.base=owner/name"])
    stage = tmp_path / "stage"
    api.train("aggregate", stage, data=ROWS, config=config)
    manifest = read_manifest(stage)
    assert (manifest["base"], manifest["base_sha256"]) == ("owner/name", NEW)
    card = render_card("stage", manifest, [manifest], None)
    assert f"owner/name, commit {NEW}" in card
    assert "base_model: owner/name\n" in card
    moved(hub)
    with pytest.raises(FolderError, match=r"base_sha256|other weights"):
        api.train("aggregate", stage, data=ROWS, config=config)
    with pytest.raises(Exception, match="other weights"):
        load_model(stage)
    load_model(stage, base=f"owner/name@{NEW}")


def test_an_adapter_names_the_revision_as_peft_does(tmp_path) -> None:
    factors = Factors(torch.zeros(2, 16), torch.zeros(32, 2), 1.0)
    save_lora(tmp_path, {"model.layers.0.mlp.up_proj": factors}, base="owner/name@v1")
    tree = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (tree["base_model_name_or_path"], tree["revision"]) == ("owner/name", "v1")
    assert PeftConfig.from_pretrained(tmp_path).revision == "v1"
    assert base_source(tmp_path) == "owner/name@v1"
    assert base_digest(base_source(tmp_path)) == OLD
