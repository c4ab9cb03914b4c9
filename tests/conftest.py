"""Small random models of every supported family, made on the spot.

torch is imported by those who need it: the process that hands out the tests does not.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from medcare.foundation.storage import cache_dir

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TESTS = Path(__file__).parent
# A busy machine is no fault. For more cases: pytest --hypothesis-profile=thorough
hypothesis.settings.register_profile("medcare", deadline=None, max_examples=40)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("medcare")


def _own_cache() -> Path:
    """A cache beside pytest's own: the user's is read for what takes long to make, and left as it is."""
    theirs, ours = cache_dir(), TESTS.parent / ".pytest_cache" / "medcare"
    ours.mkdir(parents=True, exist_ok=True)
    for gone in ours.iterdir():
        if not gone.exists():  # a link to what was there once
            gone.unlink(missing_ok=True)
    for kind in ("ontology-*", "smollm2-*", "transformers-*"):
        for made in theirs.glob(kind):
            with contextlib.suppress(FileExistsError):
                (ours / made.name).symlink_to(made)
    return ours


# Processes that tests start have it too.
os.environ["MEDCARE_CACHE"] = str(_own_cache())


def pytest_xdist_auto_num_workers() -> int:
    """Each worker runs on one thread; beyond eight, starting them takes longer than they save."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


_SHARED = ("tests.forked", "tests.models.families")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a group stay in one worker; the longest groups begin first, so that none ends alone."""
    first = ("benchmark", *_SHARED, *(_group(item) for item in items if item.get_closest_marker("slow")))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    rank = {group: number for number, group in enumerate(dict.fromkeys(first))}
    items.sort(key=lambda item: rank.get(_group(item), len(rank)))


def _group(item: pytest.Item) -> str:
    """A module; or all modules that share what is costly to make: fixtures, a process, imported families."""
    module = item.path.relative_to(TESTS)
    if module.parts[0] == "benchmark":
        return "benchmark"
    return next((name for name in _SHARED if _uses(item.path, name)), str(module))


@cache
def _uses(path: Path, name: str) -> bool:
    return f"from {name} import" in path.read_text(encoding="utf-8")


FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma")


def tiny_model(family: str, *, seed: int = 0, hidden: int = 32, vocab: int = 96) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        vocab_size=vocab,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.fixture(params=FAMILIES)
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@pytest.fixture
def llama() -> PreTrainedModel:
    return tiny_model("llama")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as a user has one: two layers, random weights, a tokenizer with a ChatML template."""
    from tests.text.tokenizers_by_family import tokenizer_of

    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    tokenizer = tokenizer_of("chatml")
    tiny_model("llama", vocab=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Models this small run faster on one thread, and tests that run beside each other don't starve."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that fails is tried again at once."""
    monkeypatch.setattr("medcare.evaluation.client._FIRST_WAIT", 0.01)
