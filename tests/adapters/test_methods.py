"""What each method lets train, and how its plain LoRAs are shaped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medcare.adapters.methods import METHODS
from medcare.adapters.tuner import adapted_layers, branch_parameters
from medcare.foundation.errors import AdapterError, ConfigError
from medcare.settings.config import AdapterConfig, RunConfig
from tests.conftest import tiny_model

CONFIG = RunConfig(adapters=AdapterConfig(rank=2, alpha=6, experts=3, dropout=0.25))
IDS = torch.arange(24).reshape(2, 12)


def attached(name, stage="aggregate", model=None, config=CONFIG):
    model = model or tiny_model("llama")
    return model, METHODS[name].attach(model, stage, config)


def branches_of(parameters):
    return {name.split(".branches.")[1].split(".")[0] for name in parameters}


def test_the_method_trains_its_branches_of_each_stage():
    model, first = attached("medcare")
    assert branches_of(first) == {"knowledge", "noise", "attention"}
    METHODS["medcare"].settle(model)
    assert branch_parameters(model).keys() == set(), "all merged, the noise aggregator dropped"
    model, _ = attached("medcare")
    for branch in ("noise", "attention"):
        for layer in adapted_layers(model, branch).values():
            layer.remove(branch)
    assert branches_of(attached("medcare", "align", model)[1]) == {"knowledge", "alignment"}
    for layer in adapted_layers(model, "alignment").values():
        layer.remove("alignment")
    frozen = replace(CONFIG, align=replace(CONFIG.align, train_knowledge=False))
    assert branches_of(attached("medcare", "align", model, frozen)[1]) == {"alignment"}


@pytest.mark.parametrize(("name", "power"), [("lora", 1.0), ("rslora", 0.5)])
def test_a_lora_has_the_methods_parameters_and_the_scale_of_its_kind(name, power):
    model, trained = attached(name)
    sizes, wanted = sum(entry.numel() for entry in trained.values()), attached("medcare")[1]
    rank = max(layer.branch("lora").rank for layer in adapted_layers(model).values())
    for layer in adapted_layers(model).values():
        branch = layer.branch("lora")
        # alpha / r of the method's settings, whatever the rank; for rsLoRA alpha / sqrt(rank).
        assert branch.scale == pytest.approx(3.0 if name == "lora" else 6 * rank**-power)
        assert layer.shared.zeroed == 64
    assert branches_of(trained) == {"lora"}
    assert sizes == pytest.approx(sum(entry.numel() for entry in wanted.values()), rel=0.1)
    assert len(adapted_layers(model, "lora")) == 14
    METHODS[name].settle(model)
    assert not adapted_layers(model)


def test_a_lora_leaves_out_no_more_of_the_feed_forward_weights_than_the_method():
    few = replace(CONFIG, adapters=replace(CONFIG.adapters, feed_forward=("up_proj",)))
    with pytest.raises(AdapterError, match="33% would be"):
        attached("lora", config=few)


def test_full_training_lets_all_weights_train_in_32_bits():
    model, trained = attached("full")
    assert trained.keys() == dict(model.named_parameters()).keys()
    METHODS["full"].settle(model)
    assert not any(entry.requires_grad for entry in model.parameters())
    with pytest.raises(ConfigError, match=r"model\.dtype=float32"):
        attached("full", model=tiny_model("llama").bfloat16())
    assert attached("full", model=tiny_model("llama").double())[1]
    assert (METHODS["full"].rate, METHODS["lora"].rate) == (0.1, 1.0)
    assert METHODS["full"].in_float32
    assert METHODS["full"].needs_whole_base


def test_b_of_lora_plus_learns_sixteen_times_as_fast_and_their_product_as_of_lora():
    rates = METHODS["loraplus"].rates
    assert rates["lora_B"] == 16 * rates["lora_A"]
    assert rates["lora_A"] * rates["lora_B"] == 1


def test_two_stages_of_a_method_are_the_same_class():
    for name, method in METHODS.items():
        assert type(method) is type(METHODS[name.removesuffix("_two_stage")])
    assert len({type(method) for method in METHODS.values()}) == len(
        {name.removesuffix("_two_stage") for name in METHODS}
    )
