"""Models that no single device holds: the same numbers, and sentences where it can't be done."""

from __future__ import annotations

import gc

import pytest
import torch

from medcare.adapters.loading import load_model
from medcare.evaluation.engines import LocalEngine
from medcare.evaluation.predictions import answer
from medcare.evaluation.prompts import build_prompts
from medcare.foundation import processes
from medcare.foundation.errors import ConfigError, ModelError
from medcare.generation.decoder import Decoder, keep_rows
from medcare.models.base_model import load_tokenizer
from medcare.models.placement import is_offloaded
from medcare.models.traits import Traits
from medcare.serving.served_model import load_one
from medcare.settings.config import EvaluationConfig
from medcare.text.records import Item
from medcare.training.devices import training_device
from tests.export.stage_folders import stage_folders

ITEMS = [
    Item(f"i{n}", "t", "knowledge", "taught", "f", f"Question {n}?", ("Yes", "No") if n % 2 else ())
    for n in range(5)
]


@pytest.fixture(params=[200_000, 100_000])
def small_machine(request, monkeypatch):
    """No GPU, and main memory for the embedding and one of two layers, or for nothing."""
    monkeypatch.setattr(
        "transformers.integrations.accelerate.accelerate_max_memory", lambda _: {"cpu": request.param}
    )


def answers(model, base):
    engine = LocalEngine(model, load_tokenizer(str(base)), EvaluationConfig(max_new_tokens=4))
    rows = [row for rows in answer(engine, build_prompts(ITEMS, EvaluationConfig()).all) for row in rows]
    return sorted(rows, key=lambda row: row["id"])


def test_what_lies_on_the_disk_answers_as_in_memory(tiny_base, small_machine, capsys):
    whole = load_model(str(tiny_base), device="cpu", dtype="float32")
    spread = load_model(str(tiny_base), device="spread", dtype="float32")
    assert "disk" in spread.hf_device_map.values()
    assert is_offloaded(spread)
    assert not is_offloaded(whole)
    assert "What is left of it stays on the disk and is fetched for every token" in " ".join(
        capsys.readouterr().err.split()
    )
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert torch.equal(spread(input_ids=ids).logits, whole(input_ids=ids).logits)
    ours, theirs = Traits.of(whole), Traits.of(spread)
    for trait in ("plain_cache", "masks_blocks", "separates_padded_rows"):
        assert getattr(ours, trait) is getattr(theirs, trait) is True
    assert answers(spread, tiny_base) == answers(whole, tiny_base)


def test_a_model_that_can_not_be_loaded_leaves_nothing_on_the_disk(
    tiny_base, small_machine, monkeypatch, tmp_path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken(*_):
        assert list(tmp_path.iterdir())
        raise ModelError("broken")

    monkeypatch.setattr("medcare.models.base_model.check_loaded", broken)
    with pytest.raises(ModelError, match="broken"):
        load_model(str(tiny_base), device="spread", dtype="float32")
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_where_all_fits_nothing_is_spread(tiny_base, capsys):
    model = load_model(str(tiny_base), device="spread", dtype="float32")
    assert not is_offloaded(model)
    assert "too large" not in capsys.readouterr().err


def test_rows_are_kept_in_every_layer_of_a_cache(tiny_base):
    decoder = Decoder.of(load_model(str(tiny_base), device="cpu", dtype="float32"))
    with torch.no_grad():
        cache = decoder.expand(decoder.prefix_cache([5, 6, 7]), 3)
    before = [layer.keys.clone() for layer in cache.layers]
    keep_rows(cache, torch.tensor([2, 0]))
    for layer, keys in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys[[2, 0]])


def test_branches_go_onto_no_weights_that_lie_apart(tiny_base, tmp_path, small_machine):
    stage_folders(tiny_base, tmp_path)
    with pytest.raises(ModelError, match=r"can't be put onto weights .* medcare merge .*align --out MODEL"):
        load_model(tmp_path / "align", device="spread")


def test_a_placement_that_cannot_be_had_is_told(tiny_base, monkeypatch):
    with pytest.raises(ConfigError, match="torchrun --nproc-per-node"):
        load_model(str(tiny_base), device="split")
    with pytest.raises(ConfigError, match="--device spread, or with vLLM"):
        load_one("tiny", str(tiny_base), device="split", dtype="float32")
    for device in ("spread", "split"):
        with pytest.raises(ConfigError, match=rf"model\.device={device} is for models that answer.*fsdp2"):
            training_device(device)
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ConfigError, match="without a launcher"):
        load_model(str(tiny_base), device="spread")
