# ruff: noqa: E501  (hostile texts are quoted as they are)
"""Whatever is wrong with an input, it is answered or refused in a sentence, within bounds; see tests/hostile.py."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medcare.adapters.peft_files import read_lora
from medcare.foundation.errors import AdapterError, ConfigError, FolderError, MedCareError, ModelError
from medcare.models.base_model import load_base
from medcare.settings.files import load_config
from medcare.settings.run_folder import read_manifest
from tests.hostile import RUNS, Case, Material, Tally, case, prepared, run, run_all, run_command, use


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return prepared(tmp_path_factory.mktemp("hostile"))


def test_generated_cases(material: Material) -> None:
    tally = Tally()
    for number in range(120):
        run(case(material, number), tally)
    assert not tally.faults, "\n".join(tally.faults)
    assert tally.outcomes["refused"] > tally.outcomes["answered"] > 0


def test_generated_runs(material: Material) -> None:
    """Finished runs, one file of which is changed: who reads them says so."""
    tally = Tally()
    for number in range(60):
        run(case(material, number, RUNS), tally)
    assert not tally.faults, "\n".join(tally.faults)
    assert tally.outcomes["refused"] > 5 < tally.outcomes["answered"]


def test_what_a_soak_has_found(material: Material) -> None:
    """Numbers that were faults once: half a character in a place that nobody reads, names of 100,000 letters, a
    tokenizer that makes no tokens."""
    tally = Tally()
    for number in (1000046, 1001608, 1016508, 1017423, 1086818):
        run(case(material, number), tally)
    assert not tally.faults, "\n".join(tally.faults)


def test_a_case_that_ends_the_process_is_one_fault(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is told, and the others of its child are run."""
    tally = Tally()

    def run_or_die(made: Case, own: Tally) -> None:
        if made.what.startswith("7:"):
            os.kill(os.getpid(), signal.SIGKILL)
        own.outcomes["answered"] += 1

    monkeypatch.setattr("tests.hostile.run", run_or_die)
    run_all(material, range(5, 9), tally)
    assert tally.faults == ["end of the process: 7: exit -9"]
    assert tally.outcomes == {"answered": 3, "end of the process": 1}


def test_a_fault_is_found(material: Material) -> None:
    """The guard itself: a traceback, a hang and a flood are seen."""
    tally = Tally()
    made = case(material, 0)
    for fault in (lambda: {}["x"], lambda: next(x for x in iter(int, 1) if x), lambda: bytes(1 << 30)):
        run(type(made)("fault", fault), tally, seconds=0.2, room=1 << 26)  # type: ignore[arg-type]
    assert [fault.split(":")[0] for fault in tally.faults][:2] == ["traceback", "hang"]
    assert tally.outcomes["flood"] == 1


def test_the_command_itself(material: Material) -> None:
    tally = Tally()
    run_command(case(material, 6), tally)  # a data file: torch is not loaded
    assert not tally.faults
    assert tally.outcomes.total() == 1


def edited(path: Path, **entries: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is at most 65,536"),
        ({"num_hidden_layers": 60_000}, "describes a model of more than"),
        ({"hidden_size": 1 << 20}, "describes a model of more than"),
        ({"vocab_size": 1 << 36}, "describes a model of more than"),
        ({"num_attention_heads": 10**6}, "num_attention_heads is at most 65,536"),
        ({"num_key_value_heads": None}, "k_proj"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"rms_norm_eps": []}, "rms_norm_eps"),
        ({"model_type": 3}, "model_type"),
        ({"num_key_value_heads": 3}, "q_proj|k_proj|can't be loaded"),
    ],
)
def test_numbers_of_a_config(entries: dict[str, object], said: str, material: Material) -> None:
    folder = material.copy(material.base)
    edited(folder / "config.json", **entries)
    with pytest.raises(ModelError, match=said):
        use(folder)


def test_a_control_token_without_end_is_refused(material: Material) -> None:
    folder = material.copy(material.base)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"][0]["content"] = "x" * 100_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="control token of 100,000 characters"):
        use(folder)


@pytest.mark.parametrize("number", [1_055_873, 1_063_465])
def test_numbers_that_had_faults_have_none(number: int, material: Material) -> None:
    tally = Tally()
    run(case(material, number), tally)
    assert not tally.faults


@pytest.mark.parametrize("value", ["hot", -1, float("nan"), [1.0]])
def test_a_temperature_that_is_none(value: object, material: Material) -> None:
    folder = material.copy(material.base)
    edited(folder / "generation_config.json", temperature=value)
    with pytest.raises(ModelError, match="temperature"):
        use(folder)


def test_weights_under_another_config_are_named(material: Material) -> None:
    """Qwen2's biases under a Llama's config: they would be left out, and the model another one."""
    folder = material.copy(material.base)
    store = folder / "model.safetensors"
    tensors = load_file(store)
    bias = "model.layers.0.self_attn.q_proj.bias"
    save_file({**tensors, bias: torch.zeros(16)}, store, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"{bias}.*has no place"):
        use(folder)


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../base/model.safetensors", "config.json", "nothing.safetensors"]
)
def test_an_index_that_points_elsewhere(target: str, material: Material) -> None:
    folder = material.copy(material.shards)
    path = folder / "model.safetensors.index.json"
    weight_map = json.loads(path.read_text())["weight_map"]
    edited(path, weight_map={**weight_map, sorted(weight_map)[0]: target})
    with pytest.raises(ModelError, match=r"beside the index|nothing\.safetensors"):
        use(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"]
)
@pytest.mark.parametrize("kind", ["device", "pipe", "loop", "folder"])
def test_what_is_no_file(name: str, kind: str, material: Material) -> None:
    folder = material.copy(material.base)
    path = folder / name
    path.unlink()
    {
        "device": lambda: path.symlink_to("/dev/zero"),
        "pipe": lambda: os.mkfifo(path),
        "loop": lambda: path.symlink_to(path),
        "folder": path.mkdir,
    }[kind]()
    with pytest.raises(MedCareError, match=name):
        load_base(str(folder), device=torch.device("cpu"), dtype=torch.float32)


def test_a_header_that_lies(material: Material) -> None:
    folder = material.copy(material.base)
    store = folder / "model.safetensors"
    store.write_bytes(struct.pack("<Q", 2**62) + store.read_bytes()[8:])
    with pytest.raises(ModelError, match="can't be loaded"):
        use(folder)


@pytest.mark.parametrize(
    "entry",
    [
        {"r": 8.7}, {"r": 0}, {"r": True}, {"r": "8"}, {"lora_alpha": float("nan")}, {"lora_alpha": float("inf")},
        {"lora_alpha": 0}, {"rank_pattern": {"x": 8.7}}, {"alpha_pattern": []}, {"target_parameters": "x"},
        {"rank_pattern": {"(": 4}}, {"alpha_pattern": {"(?:[a-z]|\\w|[.])+[A-Z]": 4}},
    ],
)  # fmt: skip
def test_numbers_and_patterns_of_an_adapter(
    entry: dict[str, object], material: Material, monkeypatch
) -> None:
    monkeypatch.setattr("medcare.adapters.peft_files._PATTERN_SECONDS", 0.2)
    folder = material.copy(material.stage / "knowledge")
    edited(folder / "adapter_config.json", **entry)
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        read_lora(folder)


def test_factors_in_int8(material: Material) -> None:
    folder = material.copy(material.stage / "knowledge")
    store = folder / "adapter_model.safetensors"
    save_file({key: value.to(torch.int8) for key, value in load_file(store).items()}, store)
    with pytest.raises(AdapterError, match=r"floating point, got torch\.int8"):
        use(folder, material.base)


@pytest.mark.parametrize("name", ["/etc/passwd", "../base/config.json"])
def test_a_manifest_lists_only_what_is_inside(name: str, material: Material) -> None:
    folder = material.copy(material.stage)
    edited(folder / "manifest.json", files={name: {"size": 1, "sha256": "x"}})
    with pytest.raises(FolderError, match="in the folder"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 100_000, "nested"),
        ("a: &a [*a]", "more than 100,000 values"),
        ("a: &a [1,2,3,4,5,6,7,8,9]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n"
         + "".join(f"{c}: &{c} [{','.join([f'*{p}'] * 8)}]\n" for p, c in zip("bcdefg", "cdefgh", strict=True)), "values"),
        ("seed: " + "1" * 100, "100 digits"),
        ('model: {base: "\\uD800"}', "half a character"),
        ("x" * 2_000_000, "at most"),
        ("adapters: {rank: 8.7}", "whole number"),
        ("adapters: {alpha: .nan}", "alpha"),
        ("seed: " + "x" * 10_000, "whole number"),
    ],
)  # fmt: skip
def test_settings(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(path)
    assert len(str(caught.value)) < 500


def test_no_code_of_a_folder_runs(material: Material, tmp_path: Path) -> None:
    folder, ran = material.copy(material.base), tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Own: pass\n")
    classes = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "own.Own")
    edited(folder / "config.json", auto_map=classes)
    edited(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]})
    with contextlib.suppress(ModelError):
        use(folder)
    assert not ran.exists()


@pytest.mark.parametrize("by_index", [True, False])
def test_no_pickle_is_read(by_index: bool, material: Material, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (ran,)

    folder = material.copy(material.shards if by_index else material.base)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    if by_index:
        path = folder / "model.safetensors.index.json"
        edited(
            path, weight_map=dict.fromkeys(json.loads(path.read_text())["weight_map"], "pytorch_model.bin")
        )
    else:
        (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        use(folder)
    assert not ran.exists()
