"""Attention and feed-forward layers are found by what they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from medcare.adapters.targets import adapted_share, find_layers, layers_at, text_model, weights
from medcare.adapters.tuner import adapted_layers, add_branches
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AUTO, AdapterConfig
from tests.conftest import tiny_model
from tests.models.families import tiny_config, tiny_family

LLAMAS = {
    "feed_forward": ("gate_proj", "up_proj", "down_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),  # of the tower, too
}


def found(family, role):
    names = find_layers(tiny_family(family), (AUTO,), role)
    return {name.partition(".0.")[2] for name in names if ".0." in name}


@pytest.mark.parametrize(
    ("family", "feed_forward", "attention"),
    [
        ("llama", {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}, {f"self_attn.{n}_proj" for n in "qkvo"}),
        ("phi3", {"mlp.gate_up_proj", "mlp.down_proj"}, {"self_attn.qkv_proj", "self_attn.o_proj"}),
        ("gpt2", {"mlp.c_fc", "mlp.c_proj"}, {"attn.c_attn", "attn.c_proj"}),
        ("opt", {"fc1", "fc2"}, {f"self_attn.{n}_proj" for n in ("q", "k", "v", "out")}),
        ("mpt", {"ffn.up_proj", "ffn.down_proj"}, {"attn.Wqkv", "attn.out_proj"}),
        (
            "falcon",
            {"mlp.dense_h_to_4h", "mlp.dense_4h_to_h"},
            {"self_attention.query_key_value", "self_attention.dense"},
        ),
        (
            "bert",
            {"intermediate.dense", "output.dense"},
            {"attention.output.dense", *(f"attention.self.{n}" for n in ("query", "key", "value"))},
        ),
        (
            "qwen2_moe",  # neither the router nor the shared expert's gate
            {
                *(f"mlp.experts{n}" for n in ("", ".gate_up_proj", ".down_proj")),
                *(f"mlp.shared_expert.{n}_proj" for n in ("gate", "up", "down")),
            },
            {f"self_attn.{n}_proj" for n in "qkvo"},
        ),
    ],
)
def test_roles(family, feed_forward, attention):
    assert found(family, "feed_forward") == feed_forward
    assert found(family, "attention") == attention


def test_auto_is_what_llamas_names_are():
    made = []
    for names in ({}, LLAMAS):
        model = tiny_model("llama")
        torch.manual_seed(4)
        add_branches(model, "aggregate", AdapterConfig(rank=2, alpha=4, experts=3, **names))
        made.append(model.state_dict())
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(tensor, made[1][name]) for name, tensor in made[0].items())


@pytest.mark.parametrize("names", [{}, LLAMAS])
def test_of_a_model_for_images_the_language_model_alone_is_adapted(names):
    model = tiny_family("gemma3")
    name, text = text_model(model)
    assert text is model.model.language_model
    add_branches(model, "aggregate", AdapterConfig(rank=2, alpha=4, **names))
    assert len(adapted_layers(model)) == 2 * 7
    assert all(layer.startswith(f"{name}.") for layer in adapted_layers(model))


def test_a_name_of_the_tower_for_images_is_refused():
    with pytest.raises(
        AdapterError, match="out_proj is no linear of Gemma3ForConditionalGeneration's text model"
    ):
        add_branches(
            tiny_family("gemma3"), "aggregate", AdapterConfig(rank=2, alpha=4, attention=("out_proj",))
        )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_the_vocabulary_projection_is_refused(family):
    with pytest.raises(AdapterError, match=r"lm_head is .*'s projection onto the vocabulary"):
        add_branches(tiny_family(family), "aggregate", AdapterConfig(rank=2, alpha=4, attention=("lm_head",)))


def test_names_may_be_the_last_parts_of_dotted_ones():
    model = tiny_family("afmoe")  # attention has a gate_proj, too
    layers = find_layers(model, ("self_attn.gate_proj",))
    assert {name.partition(".layers.")[2][2:] for name in layers} == {"self_attn.gate_proj"}
    assert find_layers(model, ("experts.down_proj",)).keys() > find_layers(model, ("experts",)).keys()
    with pytest.raises(AdapterError, match=r"No linear layer is called self_attn\.gate_proj"):
        layers_at(model, ["self_attn.gate_proj"])


def test_a_class_of_its_own_counts_where_it_computes_as_a_linear_does():
    class Odd(nn.Linear):
        def forward(self, x):
            return super().forward(x).relu()

    class Even(nn.Linear):
        def forward(self, x):
            return x @ self.weight.T

    model = tiny_model("llama")
    for name, kind in (("up_proj", Odd), ("down_proj", Even)):
        for layer in model.model.layers:
            old = layer.mlp.get_submodule(name)
            layer.mlp.set_submodule(name, kind(old.in_features, old.out_features, bias=False))
    names = {name.rpartition(".")[2] for name in find_layers(model, (AUTO,), "feed_forward")}
    assert names == {"gate_proj", "down_proj"}
    adapted, total, rest = adapted_share(model, "feed_forward", find_layers(model, (AUTO,), "feed_forward"))
    assert adapted / total == pytest.approx(2 / 3)
    assert list(rest) == ["weight (Odd)"]


@pytest.mark.parametrize("family", ["falcon", "qwen3_moe", "gemma3", "gpt2"])
def test_shapes_without_weights_are_enough(family):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(family))
    told = [(weight.name, weight.role, weight.size, weight.layer is None) for weight in weights(model)]
    real = [
        (weight.name, weight.role, weight.size, weight.layer is None)
        for weight in weights(tiny_family(family))
    ]
    assert told == real


def test_narrow_gates_of_attention_are_left_alone_unless_they_are_named():
    model = tiny_family("qwen3_next")
    add_branches(model, "aggregate", AdapterConfig(rank=16, alpha=4))
    layers = {name.rpartition(".")[2] for name in adapted_layers(model, "attention")}
    assert layers >= {"q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkvz", "out_proj"}
    assert "in_proj_ba" not in layers
    with pytest.raises(AdapterError, match="rank 16 must be no wider"):
        add_branches(
            tiny_family("qwen3_next"), "aggregate", AdapterConfig(rank=16, attention=("in_proj_ba",))
        )
