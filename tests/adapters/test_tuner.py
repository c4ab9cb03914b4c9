from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, MambaConfig

from medcare.adapters.low_rank import Factors, LowRank
from medcare.adapters.merge import join, merge_all, merge_branch, merge_unrouted, pad
from medcare.adapters.targets import find_layers
from medcare.adapters.tuner import (
    adapted_layers,
    add_branches,
    attach,
    branch_parameters,
    check_share,
    remove_branch,
    router_load,
    set_noise,
    trainable,
    unwrap,
)
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig
from tests.conftest import tiny_model

CONFIG = AdapterConfig(rank=4, alpha=8, experts=4, top_k=2)
IDS = torch.arange(24).reshape(2, 12)


def shake(model: nn.Module) -> None:
    """B starts at zero: give every branch something to say."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)


def test_stage_one_attaches_to_every_family(any_model):
    before = any_model(IDS).logits
    add_branches(any_model, "aggregate", CONFIG)
    torch.testing.assert_close(any_model(IDS).logits, before, rtol=0, atol=0)
    assert len(adapted_layers(any_model, "knowledge")) == 6
    assert len(adapted_layers(any_model, "noise")) == 6
    assert len(adapted_layers(any_model, "attention")) == 8
    shake(any_model)
    assert (any_model(IDS).logits - before).abs().max() > 1e-3


def test_both_stages_then_merge_equals_the_branched_model(any_model):
    add_branches(any_model, "aggregate", CONFIG)
    shake(any_model)
    remove_branch(any_model, "noise")
    add_branches(any_model, "align", CONFIG)
    shake(any_model)
    branched = any_model(IDS).logits
    merge_all(any_model)
    assert not adapted_layers(any_model)
    torch.testing.assert_close(any_model(IDS).logits, branched, rtol=0, atol=1e-4)


def test_attaching_freezes_all_but_the_branches(any_model):
    add_branches(any_model, "aggregate", CONFIG)
    for name, parameter in any_model.named_parameters():
        assert parameter.requires_grad == (".branches." in name), name


@pytest.mark.parametrize("training", [True, False])
def test_branches_come_into_the_mode_of_the_model(llama, training):
    add_branches(llama.train(training), "aggregate", CONFIG)
    assert {module.training for module in llama.modules()} == {training}


@pytest.mark.parametrize("stage", ["aggregate", "align"])
def test_dropout_arrives_in_every_branch_of_every_stage(llama, stage):
    """What a stage is set to counts, also for branches of the stage before."""
    add_branches(llama, "aggregate", replace(CONFIG, dropout=0.5 if stage == "aggregate" else 0.0))
    if stage == "align":
        remove_branch(llama, "noise")
        add_branches(llama, "align", replace(CONFIG, dropout=0.5))
    shake(llama)
    for name, linear in adapted_layers(llama).items():
        x = torch.randn(4, linear.in_features)
        for branch in linear.branches:
            linear.disabled = frozenset(linear.branches) - {branch}
            linear.train()
            zeroed = linear(x)
            assert not torch.equal(zeroed, linear(x)), f"{name}, {branch}: two draws"
            linear.eval()
            assert torch.equal(linear(x), linear(x)), f"{name}, {branch}: none"
        assert linear.shared.gain == 2.0


def test_a_stage_without_dropout_has_none_after_one_with(llama):
    add_branches(llama, "aggregate", replace(CONFIG, dropout=0.5))
    remove_branch(llama, "noise")
    add_branches(llama, "align", replace(CONFIG, dropout=0.0))
    shake(llama)
    expected = llama.eval()(IDS).logits
    torch.testing.assert_close(llama.train()(IDS).logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"feed_forward": ("fc_in",)}, r"fc_in.* has these: down_proj \(2x\)"),
        ({"attention": ("q_proj", "query")}, r"called query.* has these: down_proj \(2x\)"),
        ({"rank": 9}, "rank 18"),  # the attention branch would have fitted
        ({"attention": ("lm_head",)}, "lm_head is .* projection onto the vocabulary"),
    ],
)
def test_a_failed_attach_changes_nothing_and_lists_the_bases_own_layers(changes, told):
    model = tiny_model("llama", hidden=16)
    before = {name: type(module) for name, module in model.named_modules()}
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for _ in range(2):
        with pytest.raises(AdapterError, match=told) as caught:
            add_branches(model, "aggregate", replace(CONFIG, **changes))
        assert {name: type(module) for name, module in model.named_modules()} == before
        assert {name: p.requires_grad for name, p in model.named_parameters()} == trained
    assert "base (" not in str(caught.value)
    assert "router" not in str(caught.value)


def test_the_advice_names_the_bases_layers_also_where_branches_are_attached(llama):
    add_branches(llama, "aggregate", CONFIG)
    remove_branch(llama, "noise")
    with pytest.raises(AdapterError) as caught:
        add_branches(llama, "align", replace(CONFIG, feed_forward=("fc_in",)))
    leaves = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert f"has these: {', '.join(f'{leaf} (2x)' for leaf in leaves)}. Set" in str(caught.value)
    assert not adapted_layers(llama, "alignment")


def test_what_a_branch_is_made_of_is_no_target(llama):
    add_branches(llama, "aggregate", CONFIG)
    assert find_layers(llama, ["up_proj"]).keys() == {f"model.layers.{n}.mlp.up_proj" for n in range(2)}
    for name in ("router", "base"):
        with pytest.raises(AdapterError, match=name):
            find_layers(llama, [name])


def test_of_branches_that_do_not_all_fit_none_is_attached(llama):
    good = {"model.layers.0.mlp.up_proj": LowRank(32, 64, 2, 1.0)}
    bad = {"model.layers.1.mlp.up_proj": LowRank(31, 64, 2, 1.0)}
    with pytest.raises(AdapterError, match="another base"):
        attach(llama, {"knowledge": good, "alignment": {**good, **bad}})
    assert not adapted_layers(llama)
    assert all(parameter.requires_grad for parameter in llama.parameters())


def test_only_the_named_branches_train(llama):
    add_branches(llama, "aggregate", CONFIG)
    llama.requires_grad_(True)  # as somebody may have left it
    names = trainable(llama, ["knowledge"])
    assert names
    assert all(".branches.knowledge." in name for name in names)
    assert all(".branches." in name for name in trainable(llama, ["knowledge", "noise", "attention"]))


def test_merge_with_noise_is_refused_and_changes_nothing(llama):
    add_branches(llama, "aggregate", CONFIG)
    shake(llama)
    before = llama(IDS).logits
    with pytest.raises(AdapterError, match="router"):
        merge_all(llama)
    torch.testing.assert_close(llama(IDS).logits, before, rtol=0, atol=0)


def test_a_model_without_feed_forward_layers_is_told_so():
    model = AutoModelForCausalLM.from_config(MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=32))
    with pytest.raises(
        AdapterError, match=r"no feed-forward layers.*Its linears are: dt_proj \(1x\), in_proj"
    ):
        add_branches(model, "aggregate", CONFIG)


def test_names_that_are_none_are_answered_with_those_that_are(llama):
    with pytest.raises(AdapterError, match=r"called fc_in.* has these: down_proj \(2x\)") as caught:
        add_branches(llama, "aggregate", replace(CONFIG, feed_forward=("fc_in",)))
    assert "lm_head" not in str(caught.value)


def test_alignment_beside_noise_is_refused(llama):
    add_branches(llama, "aggregate", CONFIG)
    with pytest.raises(AdapterError, match="noise"):
        add_branches(llama, "align", CONFIG)


def test_alignment_without_knowledge_is_refused(llama):
    with pytest.raises(AdapterError, match="knowledge"):
        add_branches(llama, "align", CONFIG)


def test_a_name_that_matches_nothing_is_told_with_the_names_there_are(llama):
    with pytest.raises(AdapterError, match=r"fc1.*down_proj \(2x\)"):
        add_branches(llama, "aggregate", AdapterConfig(feed_forward=("fc1",)))


def test_noise_can_be_switched_off_for_a_while(llama):
    add_branches(llama, "aggregate", CONFIG)
    shake(llama)
    with_noise = llama(IDS).logits
    set_noise(llama, enabled=False)
    without = llama(IDS).logits
    assert (with_noise - without).abs().max() > 1e-4
    set_noise(llama, enabled=True)
    torch.testing.assert_close(llama(IDS).logits, with_noise, rtol=0, atol=0)
    remove_branch(llama, "noise")
    torch.testing.assert_close(llama(IDS).logits, without, rtol=0, atol=0)


def test_unwrapping_gives_the_base_back_where_no_branch_is_left():
    model = tiny_model("qwen2")
    before = model(IDS).logits
    add_branches(model, "aggregate", CONFIG)
    shake(model)
    for name in ("noise", "knowledge"):
        remove_branch(model, name)
    unwrap(model)
    assert adapted_layers(model).keys() == adapted_layers(model, "attention").keys()
    remove_branch(model, "attention")
    unwrap(model)
    assert not adapted_layers(model)
    torch.testing.assert_close(model(IDS).logits, before, rtol=0, atol=0)


def test_merging_what_can_be_leaves_the_routed_branches_at_work():
    model = tiny_model("qwen2")
    add_branches(model, "aggregate", CONFIG)
    shake(model)
    before = model(IDS).logits
    merge_unrouted(model)
    linears = adapted_layers(model)
    assert linears
    assert {name for linear in linears.values() for name in linear.branches} == {"noise"}
    torch.testing.assert_close(model(IDS).logits, before, rtol=0, atol=1e-4)


def test_sizes_and_load_by_name(llama):
    add_branches(llama, "aggregate", CONFIG)
    sizes = branch_parameters(llama)
    assert sizes["knowledge"] == 2 * 3 * 8 * (32 + 64)
    assert sizes["noise"] == 2 * (3 * 4 * 4 * (32 + 64) + 4 * (32 + 32 + 64) + 3 * 4)
    llama.train()(IDS)
    load = router_load(llama)
    assert set(load) == set(adapted_layers(llama, "noise"))
    assert all(abs(sum(shares) - 1) < 1e-3 for shares in load.values())


def test_join_is_the_sum_of_the_branches(llama):
    add_branches(llama, "aggregate", AdapterConfig(rank=4, experts=0))
    add_branches(llama, "align", AdapterConfig(rank=3, alpha=9))
    shake(llama)
    linear = next(iter(adapted_layers(llama, "alignment").values()))
    branches = [linear.branch(name) for name in ("knowledge", "alignment")]
    joined = join([Factors(branch.down, branch.up, branch.scale) for branch in branches])
    assert joined.down.shape[0] == 14
    expected = branches[0].delta() + branches[1].delta()
    torch.testing.assert_close(joined.scale * joined.up @ joined.down, expected)
    wide = pad(joined, 16)
    assert wide.down.shape[0] == wide.up.shape[1] == 16
    torch.testing.assert_close(wide.up @ wide.down, expected)


def test_bfloat16_base_keeps_float32_branches():
    model = tiny_model("llama").to(torch.bfloat16)
    add_branches(model, "aggregate", CONFIG)
    assert all(p.dtype == torch.float32 for p in trainable(model, ["knowledge", "noise"]).values())
    assert model(IDS).logits.dtype == torch.bfloat16


@pytest.mark.parametrize(("rank", "told"), [(17, "rank 34 .* 32 x 64"), (10**9, "rank 2000000000")])
def test_a_rank_above_the_width_of_a_layer_is_told_before_any_memory_is_taken(llama, rank, told):
    with pytest.raises(AdapterError, match=told):
        add_branches(llama, "aggregate", AdapterConfig(rank=rank))


def test_one_branch_is_folded_in_and_the_others_stay(llama):
    add_branches(llama, "aggregate", CONFIG)
    shake(llama)
    before = llama(IDS).logits
    merge_branch(llama, "knowledge")
    assert branch_parameters(llama).keys() == {"noise", "attention"}
    torch.testing.assert_close(llama(IDS).logits, before, rtol=0, atol=1e-4)
    for name in ("noise", "attention"):
        assert all(layer.branch(name).up.any() for layer in adapted_layers(llama, name).values())


def test_a_part_of_the_feed_forward_weights_trains_only_where_that_is_asked_for(llama):
    few = replace(CONFIG, feed_forward=("up_proj", "down_proj"))
    with pytest.raises(AdapterError, match=r"At least 90%.*, 67% would be. Left out: gate_proj.* 33%"):
        add_branches(llama, "aggregate", few)
    add_branches(llama, "aggregate", replace(few, partial=True))
    assert len(adapted_layers(llama, "knowledge")) == 4


def test_nine_tenths_of_the_feed_forward_weights_are_enough(llama, monkeypatch):
    for adapted in (89, 90):
        share = (adapted, 100, Counter(gate_proj=100 - adapted))
        monkeypatch.setattr("medcare.adapters.tuner.adapted_share", lambda *_, share=share: share)
        with pytest.raises(AdapterError, match="89% would be") if adapted < 90 else nullcontext():
            check_share(llama, {"up_proj"}, CONFIG)


def test_layers_that_share_a_weight_are_refused(llama):
    first, second = (layer.mlp for layer in llama.model.layers)
    second.up_proj.weight = first.up_proj.weight
    with pytest.raises(AdapterError, match="up_proj shares its weight"):
        add_branches(llama, "aggregate", CONFIG)
    assert not adapted_layers(llama)


def test_attached_layers_have_the_dropout_that_is_given(llama):
    made = {f"model.layers.0.mlp.{name}": LowRank(32, 64, 2, 1.0) for name in ("up_proj", "gate_proj")}
    attach(llama, {"knowledge": made}, dropout=0.25)
    layers = list(adapted_layers(llama).values())
    assert [layer.shared.zeroed for layer in layers] == [64, 64]
    assert layers[0].shared is layers[1].shared
    attach(llama, {"alignment": {"model.layers.1.mlp.up_proj": LowRank(32, 64, 2, 1.0)}})
    assert [layer.shared.zeroed for layer in adapted_layers(llama, "alignment").values()] == [0]


def test_a_base_that_trained_is_frozen_and_attached_branches_train_on(llama):
    add_branches(llama, "aggregate", CONFIG)
    trainable(llama, ["attention"])
    remove_branch(llama, "noise")
    add_branches(llama, "align", CONFIG)
    names = {
        name.split(".branches.")[-1].split(".")[0]
        for name, entry in llama.named_parameters()
        if entry.requires_grad
    }
    assert names == {"attention", "alignment"}, "only the model's own weights are frozen, and only once"


def test_the_shares_of_the_routers_are_told_once(llama):
    add_branches(llama, "aggregate", replace(CONFIG, experts=3, top_k=1))
    llama.train()(IDS)
    for shares in router_load(llama).values():
        assert len(shares) == 3
        assert sum(shares) == pytest.approx(1, abs=2e-4)
        assert all(share * 24 == pytest.approx(round(share * 24), abs=2e-3) for share in shares)
    assert all(not any(shares) for shares in router_load(llama).values())


def test_joining_and_padding_write_out_what_they_are_given():
    parts = [
        Factors(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), 2.0),
        Factors(torch.tensor([[4.0, 5.0], [6.0, 7.0]]), torch.tensor([[8.0, 9.0]]), 0.5),
    ]
    joined = join(parts)
    assert joined.down.tolist() == [[1, 2], [4, 5], [6, 7]]
    assert joined.up.tolist() == [[6, 4, 4.5]]
    assert joined.scale == 1
    wide = pad(parts[0], 3)
    assert wide.down.tolist() == [[1, 2], [0, 0], [0, 0]]
    assert wide.up.tolist() == [[3, 0, 0]]
    assert wide.scale == 2.0


def test_joining_stacks_the_pairs_of_each_expert():
    parts = [Factors(torch.randn(3, r, 5), torch.randn(3, 4, r), scale) for r, scale in ((1, 2.0), (2, 0.5))]
    joined = join(parts)
    expected = sum(part.scale * part.up @ part.down for part in parts)
    torch.testing.assert_close(joined.up @ joined.down, expected)


@pytest.mark.parametrize(
    "names", [("q_proj", "k_proj", "v_proj"), ("wq", "wk", "wv"), ("gate_proj", "up_proj"), ("w1", "w3")]
)
def test_linears_that_read_the_same_tensor_share_their_input(names):
    block = nn.ModuleDict({name: nn.Linear(4, 4) for name in (*names, "o_proj")})
    attach(block, {"knowledge": {name: LowRank(4, 4, 2, 1.0) for name in block}})
    inputs = {name: layer.shared for name, layer in adapted_layers(block).items()}
    assert len({id(inputs[name]) for name in names}) == 1
    assert inputs["o_proj"] is not inputs[names[0]]
