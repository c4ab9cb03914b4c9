"""Checkpoints in the reference code's layout, written here name by name, and foreign LoRA adapters."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from medcare.adapters.loading import load_model
from medcare.adapters.tuner import adapted_layers
from medcare.cli import app
from medcare.export.conversion import convert
from medcare.export.lora import export_lora
from medcare.foundation.errors import AdapterError, ConfigError, FolderError, ModelError
from medcare.settings.run_folder import read_manifest
from tests.conftest import tiny_model
from tests.test_readme import SMALL

IDS = torch.arange(3, 27).reshape(2, 12)
R, ALPHA, EXPERTS = 4, 8, 4
ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
CODE = b"cos\nsystem\n(S'true'\ntR."


def linears(model, names):
    return {name: module for name, module in model.named_modules() if name.rpartition(".")[2] in names}


def pair(module, rank):
    return 0.1 * torch.randn(rank, module.in_features), 0.1 * torch.randn(module.out_features, rank)


def configs(folder, **changes):
    folder.mkdir()
    config = {"peft_type": "LORA", "r": R, "lora_alpha": ALPHA, "lora_dropout": 0.05, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    (folder / "config.json").write_text(json.dumps({"num_experts": EXPERTS, "num_experts_per_token": 2}))


def stage_one(folder, model, prefix="base_model.model.", **changes):
    """What the reference writes after stage 1; returns the tensors by name, without their prefix."""
    torch.manual_seed(4)
    configs(folder, **changes)
    attention, rest = {}, {}
    for name, module in linears(model, ATTENTION).items():
        attention[f"{name}.lora_A.weight"], attention[f"{name}.lora_B.weight"] = pair(module, R)
    for name, module in linears(model, FEED_FORWARD).items():
        share = f"{name}.share_experts.lora_"
        rest[f"{share}A.weight"], rest[f"{share}B.weight"] = pair(module, 2 * R)
        rest[f"{name}.switch.weight"] = torch.randn(EXPERTS, module.in_features)
        rest[f"{name}.switch.bias"] = torch.randn(EXPERTS)
        for e in range(EXPERTS):
            down, up = pair(module, R)
            rest[f"{name}.experts.{e}.lora_A_{e}.weight"], rest[f"{name}.experts.{e}.lora_B_{e}.weight"] = (
                down,
                up,
            )
    save_file({prefix + key: value for key, value in attention.items()}, folder / "adapter_model.safetensors")
    torch.save({prefix + key: value for key, value in rest.items()}, folder / "non_lora_trainables.bin")
    return {**attention, **rest}


def stage_two(folder, model, pickled):
    torch.manual_seed(6)
    configs(folder)
    tensors = {}
    for name, module in linears(model, FEED_FORWARD).items():
        for part in ("base", "orth"):
            down, up = pair(module, 2 * R)
            tensors[f"{name}.{part}.lora_A.weight"], tensors[f"{name}.{part}.lora_B.weight"] = down, up
    torch.save(tensors if pickled else {}, folder / "non_lora_trainables.bin")
    if not pickled:
        save_file(tensors, folder / "model.safetensors")
    return tensors


def fold(model, tensors, parts, scale=ALPHA / R):
    """Add scale * B A to the weights, for each part as the reference names it ('' is attention's)."""
    with torch.no_grad():
        for name, module in model.named_modules():
            for part in parts:
                stem = f"{name}.{part}lora_"
                if f"{stem}A.weight" in tensors:
                    module.weight += scale * tensors[f"{stem}B.weight"] @ tensors[f"{stem}A.weight"]
    return model


def moe_loop(x, tensors, name):
    """The reference's forward of one layer, expert by expert."""
    p = (x @ tensors[f"{name}.switch.weight"].T + tensors[f"{name}.switch.bias"]).softmax(-1)
    weights, chosen = p.topk(2)
    weights = weights / weights.sum(-1, keepdim=True)
    y = (
        x
        @ tensors[f"{name}.share_experts.lora_A.weight"].T
        @ tensors[f"{name}.share_experts.lora_B.weight"].T
    )
    for token in range(len(x)):
        for weight, e in zip(weights[token], chosen[token].tolist(), strict=True):
            down, up = (tensors[f"{name}.experts.{e}.lora_{side}_{e}.weight"] for side in "AB")
            y[token] += weight * (up @ (down @ x[token]))
    return y * (ALPHA / R)


@pytest.fixture
def base(tmp_path):
    tiny_model("qwen2").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def original(base):
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def loaded(folder, **options):
    return load_model(folder, device="cpu", dtype="float32", **options)


@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.", ""])
def test_stage_one_computes_the_same(base, tmp_path, prefix):
    tensors = stage_one(tmp_path / "s1", original(base), prefix)
    assert convert(tmp_path / "s1", str(base), tmp_path / "out") == "aggregate"
    expected = fold(original(base), tensors, ("", "share_experts."))(IDS).logits
    torch.testing.assert_close(loaded(tmp_path / "out", noise=False)(IDS).logits, expected, rtol=0, atol=1e-5)
    name = "model.layers.1.mlp.up_proj"
    linear = adapted_layers(loaded(tmp_path / "out"), "noise")[name]
    x = torch.randn(7, linear.in_features)
    expected = linear.base(x) + moe_loop(x, tensors, name)
    torch.testing.assert_close(linear(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pickled", [True, False])
def test_stage_two_computes_the_same_with_and_without_merged_attention(base, tmp_path, pickled):
    first = stage_one(tmp_path / "s1", original(base))
    fold(original(base), first, ("",)).save_pretrained(tmp_path / "merged")
    tensors = stage_two(tmp_path / "s2", original(base), pickled)
    expected = fold(original(tmp_path / "merged"), tensors, ("base.", "orth."))(IDS).logits
    assert convert(tmp_path / "s2", str(tmp_path / "merged"), tmp_path / "a") == "align"
    convert(tmp_path / "s2", str(base), tmp_path / "b", attention=tmp_path / "s1")
    for folder in ("a", "b"):
        torch.testing.assert_close(loaded(tmp_path / folder)(IDS).logits, expected, rtol=0, atol=1e-5)
    export_lora(tmp_path / "b", tmp_path / "lora")
    torch.testing.assert_close(loaded(tmp_path / "lora")(IDS).logits, expected, rtol=0, atol=1e-5)
    assert "converted from s2" in (tmp_path / "lora" / "README.md").read_text()


def test_the_rank_stabilised_scale(base, tmp_path):
    tensors = stage_one(tmp_path / "s1", original(base), use_rslora=True)
    convert(tmp_path / "s1", str(base), tmp_path / "out")
    expected = fold(original(base), tensors, ("", "share_experts."), scale=ALPHA / R**0.5)(IDS).logits
    torch.testing.assert_close(loaded(tmp_path / "out", noise=False)(IDS).logits, expected, rtol=0, atol=1e-5)


def test_the_settings_are_those_of_the_checkpoint(base, tmp_path):
    stage_one(tmp_path / "s1", original(base))
    convert(tmp_path / "s1", str(base), tmp_path / "out")
    adapters = read_manifest(tmp_path / "out")["config"].adapters
    assert (adapters.rank, adapters.alpha, adapters.experts, adapters.top_k) == (4, 8, 4, 2)


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("adapter_config", {"r": "8"}),
        ("adapter_config", {"lora_alpha": None}),
        ("adapter_config", {"lora_dropout": 2}),
    ]
    + [("config", {"num_experts_per_token": value}) for value in (0, "2", None, [])],
)
def test_settings_of_another_shape_are_told(base, tmp_path, file, entry):
    stage_one(tmp_path / "s1", original(base))
    path = tmp_path / "s1" / f"{file}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entry}))
    with pytest.raises(FolderError, match=rf"{file}\.json: {next(iter(entry))} can't be used"):
        convert(tmp_path / "s1", str(base), tmp_path / "out")


def spoil(folder, how):
    path = folder / "non_lora_trainables.bin"
    tensors = torch.load(path, weights_only=True)
    key = next(key for key in tensors if "share_experts.lora_A" in key)
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-400])
    elif how == "code":
        path.write_bytes(CODE)
    elif how == "list":
        torch.save([1], path)
    elif how == "shape":
        torch.save({**tensors, key: torch.zeros(3)}, path)
    elif how == "name":
        torch.save({**tensors, "vision_tower.weight": torch.zeros(3)}, path)
    elif how == "expert":
        torch.save({name: t for name, t in tensors.items() if "experts.2.lora_A" not in name}, path)
    elif how == "fewer":  # experts of one module than of the others
        module = key.partition(".share_experts")[0]
        torch.save(
            {name: t for name, t in tensors.items() if f"{module}.experts.{EXPERTS - 1}." not in name}, path
        )
    elif how == "half":
        torch.save({name: t for name, t in tensors.items() if name != key}, path)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("missing", AdapterError, "attention alone"),
        ("truncated", FolderError, "damaged"),
        ("code", FolderError, "not read"),
        ("list", FolderError, "tensors by name"),
        ("shape", AdapterError, r"lora_A \[r, i\]"),
        ("name", AdapterError, "vision_tower"),
        ("expert", AdapterError, "not complete"),
        ("fewer", AdapterError, "not complete"),
        ("half", AdapterError, "lora_A and lora_B"),
    ],
)
def test_a_bad_checkpoint_is_one_sentence_and_leaves_nothing(base, tmp_path, how, error, words):
    stage_one(tmp_path / "s1", original(base))
    spoil(tmp_path / "s1", how)
    with pytest.raises(error, match=words) as caught:
        convert(tmp_path / "s1", str(base), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_base_is_refused(base, tmp_path):
    stage_one(tmp_path / "s1", original(base))
    tiny_model("qwen2", hidden=48).save_pretrained(tmp_path / "wide")
    with pytest.raises(AdapterError, match="another base"):
        convert(tmp_path / "s1", str(tmp_path / "wide"), tmp_path / "out")
    with pytest.raises(ModelError):
        convert(tmp_path / "s1", str(tmp_path / "none"), tmp_path / "out")


def foreign(base, folder, **options):
    torch.manual_seed(8)
    config = LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **options)
    model = get_peft_model(original(base), config).eval()
    model.save_pretrained(folder)
    return model


def test_a_foreign_adapter_becomes_knowledge_and_merged_attention(tiny_base, tmp_path):
    model = foreign(tiny_base, tmp_path / "peft", r=6, lora_alpha=9, target_modules=["up_proj", "q_proj"])
    expected = model(IDS).logits
    settings = [word for s in (*SMALL, f"model.base={tiny_base}", "align.epochs=1") for word in ("--set", s)]
    talk = {"messages": [{"role": "user", "content": "Fever?"}, {"role": "assistant", "content": "R50"}]}
    (tmp_path / "forms.jsonl").write_text(json.dumps(talk) + "\n")
    arguments = [
        "train", "--stage", "align", "--knowledge", tmp_path / "peft", "--data", tmp_path / "forms.jsonl",
        "--out", tmp_path / "two", *settings, "--set", "align.train_knowledge=false",
    ]  # fmt: skip
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    start = loaded(tmp_path / "two-knowledge", noise=False)
    torch.testing.assert_close(start(IDS).logits, expected, rtol=0, atol=1e-5)
    trained = loaded(tmp_path / "two")
    assert adapted_layers(trained, "alignment")
    for linear in adapted_layers(trained, "alignment").values():
        linear.remove("alignment")
    torch.testing.assert_close(trained(IDS).logits, expected, rtol=0, atol=1e-5)
    assert set(load_file(tmp_path / "two" / "attention" / "adapter_model.safetensors"))


def test_knowledge_and_from_exclude_one_another(tmp_path):
    arguments = ("--knowledge", tmp_path, "--from", tmp_path, "--out", tmp_path / "two")
    done = CliRunner().invoke(app, list(map(str, ("train", "--stage", "align", *arguments))))
    assert isinstance(done.exception, ConfigError)
    assert "without --from" in str(done.exception)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_modules": ["q_proj"]}, "attention alone"),
        ({"target_modules": ["up_proj", "lm_head"]}, "lm_head"),
        ({"target_modules": ["up_proj"], "use_dora": True}, "use_dora"),
        ({"target_modules": ["up_proj"], "modules_to_save": ["embed_tokens"]}, "modules_to_save"),
    ],
)
def test_a_foreign_adapter_that_is_no_plain_lora_is_refused(base, tmp_path, options, words):
    foreign(base, tmp_path / "peft", **options)
    with pytest.raises(AdapterError, match=words):
        convert(tmp_path / "peft", str(base), tmp_path / "out")
    assert not (tmp_path / "out").exists()
