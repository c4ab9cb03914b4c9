"""Answers of before are not taken for those of now: a name stays, what it stands for changes."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file, save_file

from medcare.evaluation.identity import identities
from medcare.foundation.errors import FolderError
from medcare.foundation.storage import write_json, write_jsonl
from medcare.pipeline import evaluate_model, predict_file
from medcare.settings.files import load_config

EXAM = {"question": "Which vitamin?", "opa": "A", "opb": "B", "opc": "C", "opd": "D", "cop": 4, "id": "1"}


@pytest.fixture
def model(tiny_base, tmp_path):
    return shutil.copytree(tiny_base, tmp_path / "model")


@pytest.fixture
def exam(tmp_path):
    path = tmp_path / "exam.jsonl"
    write_jsonl(path, [EXAM])
    return path


def train_again(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value + 0.5 for key, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def settings(exam):
    chosen = ["model.dtype=float32", "model.device=cpu", "evaluation.max_new_tokens=2"]
    return load_config(settings=[*chosen, f"evaluation.items={exam}"])


def test_a_model_trained_again_into_its_folder_is_not_the_tested_one(model, exam, tmp_path):
    config, out = settings(exam), tmp_path / "scores"
    evaluate_model(str(model), config, out)
    evaluate_model(str(model), config, out)
    train_again(model)
    with pytest.raises(FolderError, match=r"holds another run \(it differs in model_sha256\)"):
        evaluate_model(str(model), config, out)


def test_a_corrected_test_set_is_not_the_answered_one(model, exam, tmp_path):
    config, out = settings(exam), tmp_path / "scores"
    evaluate_model(str(model), config, out)
    write_jsonl(exam, [{**EXAM, "opa": "K"}])
    with pytest.raises(FolderError, match="differs in items_sha256"):
        evaluate_model(str(model), config, out)


def test_answers_to_a_file_are_kept_apart_alike(model, exam, tmp_path):
    config, out = settings(exam), tmp_path / "answers"
    predict_file(str(model), str(exam), config, out)
    predict_file(str(model), str(exam), config, out)
    write_jsonl(exam, [{**EXAM, "question": "Which else?"}])
    with pytest.raises(FolderError, match="items_sha256"):
        predict_file(str(model), str(exam), config, out)
    write_jsonl(exam, [EXAM])
    train_again(model)
    with pytest.raises(FolderError, match="model_sha256"):
        predict_file(str(model), str(exam), config, out)


def test_a_copy_is_the_same_model_and_a_name_says_nothing(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy", copy_function=shutil.copy)
    assert identities(model=str(copy)) == identities(model=str(model))
    (copy / "README.md").write_text("A card.")
    assert identities(model=str(copy)) == identities(model=str(model))
    assert identities(model="embedded") == identities(model="http://127.0.0.1:1/v1#m") == {}


def test_what_is_on_a_hub_is_its_commit(monkeypatch):
    monkeypatch.setattr("medcare.evaluation.identity.base_digest", lambda name: {"o/m@v1": "a" * 40}[name])
    pinned = f"hf:o/n@{'b' * 40}:test"
    assert identities(model="o/m@v1", items=pinned) == {"model_sha256": "a" * 40, "items_sha256": pinned}


def test_the_base_below_an_adapter_counts_too(model, tmp_path):
    (tmp_path / "stage" / "knowledge").mkdir(parents=True)
    write_json(tmp_path / "stage" / "manifest.json", {"stage": "align", "base": str(model)})
    save_file({}, tmp_path / "stage" / "knowledge" / "adapter_model.safetensors")
    seen = {identities(model=str(tmp_path / "stage"))["model_sha256"]}
    (tmp_path / "stage" / "knowledge" / "adapter_model.safetensors").write_bytes(b"other")
    seen.add(identities(model=str(tmp_path / "stage"))["model_sha256"])
    train_again(model)
    seen.add(identities(model=str(tmp_path / "stage"))["model_sha256"])
    assert len(seen) == 3


def test_a_folder_of_items_counts_with_its_cards(tmp_path):
    assert identities(items=str(tmp_path)) == {}
    write_jsonl(tmp_path / "items.jsonl", [EXAM])
    write_json(tmp_path / "benchmark.json", {"cards": []})
    before = identities(items=str(tmp_path))
    write_json(tmp_path / "benchmark.json", {"cards": [1]})
    assert before != identities(items=str(tmp_path)) != {}


@pytest.mark.parametrize("base", [".", "../adapter", "../other"])
def test_an_adapter_that_is_its_own_base_is_refused(base, tmp_path, monkeypatch):
    for name, named in (("adapter", base), ("other", "../adapter")):
        folder = tmp_path / name
        folder.mkdir()
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
        write_json(folder / "adapter_config.json", {**config, "base_model_name_or_path": named})
    monkeypatch.chdir(tmp_path / "adapter")
    with pytest.raises(FolderError, match="names itself as its base"):
        identities(model=str(tmp_path / "adapter"))
