"""A base that is fetched: what comes of its repository, and that it is looked at as a folder is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from medcare.foundation.errors import ModelError
from medcare.models.base_model import base_dtype, load_base, load_config, load_tokenizer
from tests.conftest import tiny_model
from tests.models.hub_server import COMMIT, hub_of
from tests.text.tokenizers_by_family import tokenizer_of

NAME = "owner/name"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in several files, as large models have them, and what else lies in such a repository."""
    folder: Path = tmp_path_factory.mktemp("repository")
    tokenizer = tokenizer_of("chatml")
    model = tiny_model("llama", hidden=16, vocab=len(tokenizer))
    model.save_pretrained(folder, max_shard_size="20KB")
    tokenizer.save_pretrained(folder)
    (folder / "onnx").mkdir()
    shutil.copy(folder / "tokenizer.json", folder / "onnx" / "tokenizer.json")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    for other in ("pytorch_model.bin", "consolidated.safetensors", "model.gguf", "README.md"):
        (folder / other).write_bytes(b"not ours")
    return folder


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "repository"))


@pytest.fixture
def taken(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[list[str]]:
    """The files that were taken from the hub; its cache is empty at first."""
    with hub_of(copy, NAME, getattr(request, "param", "")) as (address, taken):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield taken


def loaded(name: str) -> dict[str, torch.Tensor]:
    return load_base(name, device=torch.device("cpu"), dtype=torch.float32).state_dict()


def test_a_model_is_fetched_once_and_equals_its_folder(copy: Path, taken: list[str]) -> None:
    tokenizer, weights = load_tokenizer(NAME), loaded(NAME)
    for key, value in loaded(str(copy)).items():
        assert torch.equal(weights[key], value)
    assert base_dtype(NAME) == torch.float32
    assert tokenizer.name_or_path == load_config(NAME)._name_or_path == f"{NAME}@{COMMIT}"
    assert "rag" in tokenizer.chat_template
    assert len(taken) == len(set(taken))
    assert sum(file.startswith("model-") for file in taken) > 1


def test_weights_and_other_formats_are_left_where_they_are(taken: list[str]) -> None:
    """A tokenizer needs no weights, and no model needs the pickled, packed or exported copies beside it."""
    load_tokenizer(NAME)
    assert not any(file.endswith(".safetensors") for file in taken)
    loaded(NAME)
    assert not any(
        file.startswith(("onnx", "pytorch", "consolidated")) or file.endswith((".gguf", ".md"))
        for file in taken
    )


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("tokenizer.json", {"normalizer": {"type": "Prepend", "prepend": "x" * 10**5}}, "may add 1,000"),
        ("config.json", {"model_type": "llama", "num_hidden_layers": 10**6}, "num_hidden_layers is at most"),
        (
            "config.json",
            {"model_type": "llama", "hidden_size": 4096, "vocab_size": 10**6},
            "describes a model of",
        ),
        (
            "model.safetensors.index.json",
            {"weight_map": {"a": "../../secret.safetensors"}},
            "beside the index",
        ),
    ],
)
def test_what_is_fetched_is_looked_at_as_a_folder_is(
    file: str, content: object, told: str, copy: Path, taken: list[str]
) -> None:
    (copy / file).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=told):
        load_tokenizer(NAME) if file == "tokenizer.json" else loaded(NAME)
    assert file in taken


@pytest.mark.parametrize(
    ("taken", "told"),
    [
        ("GatedRepo", "accept their terms .* `hf auth login`"),
        ("RepoNotFound", "no such repository"),
        ("RevisionNotFound", "no such branch, tag or commit"),
    ],
    indirect=["taken"],
)
def test_what_the_hub_refuses_is_told_with_what_helps(told: str, taken: list[str]) -> None:
    """Many medical bases are given only to who has agreed to terms."""
    for load in (load_config, load_tokenizer):
        with pytest.raises(ModelError, match=told) as caught:
            load(NAME)
        assert "\n" not in str(caught.value)
    assert not taken
