"""The table of branches is the method, and the only place that knows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medcare.adapters import branch_files, branches, tuner
from medcare.adapters.adapted_linear import Branch
from medcare.adapters.branches import BRANCHES, SPECS, BranchSpec, added_in, stored_in, trained_in
from medcare.adapters.loading import load_model
from medcare.adapters.low_rank import LowRank
from medcare.adapters.tuner import adapted_layers
from medcare.export.merged import merge
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig
from medcare.training import stages
from tests.training.test_stages import TALKS, config

METHOD = {  # paper, sections 3.2 and 3.3
    "knowledge": ("feed_forward", ("aggregate", "align"), "trains", 2),
    "noise": ("feed_forward", ("aggregate",), "dropped", 1),
    "attention": ("attention", ("aggregate",), "merged", 1),
    "alignment": ("feed_forward", ("align",), "trains", 2),
}


def test_the_table_says_what_the_paper_says():
    assert [spec.name for spec in BRANCHES] == list(METHOD)
    shapes = AdapterConfig(rank=3, alpha=12, experts=5, top_k=2)
    for name, (targets, stages_of_it, fate, wide) in METHOD.items():
        spec = SPECS[name]
        assert (spec.targets, spec.trains_in, spec.in_align) == (targets, stages_of_it, fate), name
        made = spec.make(nn.Linear(16, 24), shapes)
        assert made.scale == 4.0, f"{name}: alpha / r, also at rank 2r"
        experts = 5 if name == "noise" else 1
        assert made.down.shape == (experts * wide * 3, 16), name
        assert made.up.shape == (24, experts * wide * 3), name
        assert not made.up.any(), f"{name} changes nothing at first"


def test_what_trains_in_each_stage():
    assert set(trained_in("aggregate")) == {"knowledge", "noise", "attention"}
    assert set(trained_in("aggregate", train_knowledge=False)) == {"knowledge", "noise", "attention"}
    assert set(trained_in("align")) == {"knowledge", "alignment"}
    assert trained_in("align", train_knowledge=False) == ("alignment",)


def test_no_experts_no_noise_aggregator():
    assert SPECS["noise"].options(AdapterConfig(experts=0)) is None
    assert [spec.name for spec in added_in("align")] == ["alignment"]


def test_no_two_branches_share_a_place(tmp_path: Path):
    assert len({spec.path for spec in SPECS.values()}) == len(SPECS)
    for spec in SPECS.values():
        (tmp_path / spec.path).mkdir()
    names = [spec.name for spec in stored_in(tmp_path)]
    assert set(names) == SPECS.keys()
    assert names[:2] == ["attention", "lora"], "merged before the others go on: a LoRA and a digest begin so"


class Squared(Branch):
    """B (A x)^2: no weight equals it."""

    mergeable = False
    keys = ("a", "b")

    def __init__(self, in_features: int, out_features: int, rank: int, scale: float, device=None) -> None:
        super().__init__()
        self.scale = scale
        self.a = nn.Parameter(torch.randn(rank, in_features, device=device) / in_features**0.5)
        self.b = nn.Parameter(torch.zeros(out_features, rank, device=device))

    @property
    def down(self) -> Tensor:
        return self.a

    @property
    def up(self) -> Tensor:
        return self.b

    def weigh(self, columns: Tensor, x: Tensor, factor: float = 1.0) -> Tensor:
        return factor * columns.square()

    def tensors(self) -> dict[str, Tensor]:
        return {"a": self.a, "b": self.b}

    def facts(self) -> dict[str, str]:
        return {"scale": repr(self.scale)}

    @classmethod
    def shaped_as(cls, tensors, facts, device=None):
        rank, width = tensors["a"].shape
        return cls(width, tensors["b"].shape[0], rank, float(facts["scale"]), device)


def made_with(adapters: AdapterConfig) -> dict[str, float]:
    return {"rank": adapters.rank, "scale": adapters.scale}


NEW = {
    "dropped": BranchSpec("new", Squared, "feed_forward", ("aggregate",), made_with, "new.safetensors"),
    "merged": BranchSpec("new", LowRank, "feed_forward", ("aggregate",), made_with, "new"),
    "kept": BranchSpec("new", LowRank, "attention", ("aggregate", "align"), made_with, "new"),
}


@pytest.mark.parametrize("fate", NEW)
def test_a_new_branch_is_one_class_and_one_row(fate, tiny_base, tmp_path, monkeypatch):
    """It is attached, trained, written, read, merged or dropped, without another line of code."""
    for module in (branches, branch_files, tuner):
        monkeypatch.setattr(module, "BRANCHES", (*BRANCHES, NEW[fate]))
    one, two, plain = tmp_path / "one", tmp_path / "two", tmp_path / "plain"
    settings = config(tiny_base)
    stages.train("aggregate", settings, TALKS, one, data_hash="x")
    assert (one / NEW[fate].path).exists()
    learned = adapted_layers(load_model(one, dtype="float32"), "new")
    assert len(learned) == (8 if fate == "kept" else 6)
    assert all(linear.branch("new").up.any() for linear in learned.values())
    began = load_model(one, dtype="float32", noise=False)
    assert bool(adapted_layers(began, "new")) == (fate == "kept")
    base = load_model(tiny_base, dtype="float32")
    for name, linear in learned.items():
        now, before = began.get_submodule(name).weight, base.get_submodule(name).weight
        if fate == "merged":
            torch.testing.assert_close(now, before + linear.branch("new").delta())
        elif fate == "dropped":
            assert torch.equal(now, before)
    stages.train("align", settings, TALKS, two, data_hash="x", start=one)
    assert (two / NEW[fate].path).exists() == (fate != "dropped")
    merge(two, plain)
    ids = torch.arange(3, 27).reshape(2, 12)
    with torch.no_grad():
        branched, merged = load_model(two, dtype="float32")(ids), load_model(plain, dtype="float32")(ids)
    torch.testing.assert_close(merged.logits, branched.logits, rtol=0, atol=1e-4)


def test_rows_say_where_a_branch_comes_from_and_goes():
    for name, (targets, stages_of_it, fate, _) in METHOD.items():
        spec = SPECS[name]
        assert spec.added_in == stages_of_it[0], name
        assert spec.mergeable == (fate != "dropped"), name
        assert spec.is_lora == (name != "noise"), name
        assert spec.roles == (targets,), name
    lora = SPECS["lora"]
    assert lora.roles == SPECS["second_lora"].roles == ("feed_forward", "attention")
    assert (lora.in_align, SPECS["second_lora"].in_align) == ("merged", "trains")
    assert [[spec.name for spec in added_in(stage)] for stage in ("aggregate", "align")] == [
        ["knowledge", "noise", "attention"], ["alignment"]
    ]  # fmt: skip


def test_a_rank_may_be_as_wide_as_its_layer_and_a_plain_lora_gives_way():
    layer = nn.Linear(6, 4)
    assert SPECS["attention"].make(layer, AdapterConfig(rank=4)).rank == 4
    assert SPECS["knowledge"].make(layer, AdapterConfig(rank=2)).rank == 4
    for name, rank, told in (("attention", 5, "rank 5"), ("knowledge", 3, "rank 6")):
        with pytest.raises(AdapterError, match=f"{told} must be no wider .* 6 x 4"):
            SPECS[name].make(layer, AdapterConfig(rank=rank))
    for lora in ("lora", "second_lora"):
        assert SPECS[lora].make(layer, AdapterConfig(rank=9)).rank == 4
    assert SPECS["lora"].make(layer, AdapterConfig(rank=3), device=torch.device("meta")).down.is_meta
    assert not SPECS["lora"].make(layer, AdapterConfig(rank=3)).down.is_meta
    assert SPECS["lora"].make(nn.Linear(6, 4, device="meta"), AdapterConfig(rank=3)).down.is_meta


def test_folders_that_were_written_are_found_by_the_same_names():
    assert {name: spec.path for name, spec in SPECS.items()} == {
        "knowledge": "knowledge", "noise": "noise.safetensors", "attention": "attention",
        "alignment": "alignment", "lora": "lora", "second_lora": "second_lora",
    }  # fmt: skip


def test_only_branches_that_a_folder_has_are_found(tmp_path: Path):
    assert stored_in(tmp_path) == []
    (tmp_path / "noise.safetensors").touch()
    (tmp_path / "attention").mkdir()
    assert [spec.name for spec in stored_in(tmp_path)] == ["attention", "noise"]
