"""The table of methods: what trains in a model, and what it leaves in a stage folder.

`medcare` is the method itself; its branches are the table in branches.py. All others are what it is compared
with, in the same loop, on the same rows, with as many trained parameters (`budget`). A method is one entry
here and one class; what PEFT has is in peft_methods.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medcare.adapters.branch_files import save_branches
from medcare.adapters.branches import LORAS, trained_in
from medcare.adapters.equal_rank import equal_rank
from medcare.adapters.merge import merge_unrouted
from medcare.adapters.peft_methods import Corda, Dora, Miss, Olora, Osf, Pissa
from medcare.adapters.targets import text_model
from medcare.adapters.training_method import TrainingMethod
from medcare.adapters.tuner import (
    add_branches,
    attach,
    check_share,
    remove_branch,
    set_dropout,
    target_layers,
    trainable,
    trained_parameters,
)
from medcare.adapters.written_weights import save_weights
from medcare.foundation.errors import ConfigError
from medcare.settings.config import METHODS as NAMES
from medcare.settings.config import AdapterConfig, Method, RunConfig, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _BranchMethod(TrainingMethod):
    """What trains is branches, which a stage folder keeps apart from the base."""

    def save(self, model: PreTrainedModel, folder: Path, stage: Stage, base: str) -> None:
        """As of `TrainingMethod`."""
        save_branches(model, folder, base)

    def settle(self, model: PreTrainedModel) -> None:
        """As of `TrainingMethod`."""
        remove_branch(model, "noise")
        merge_unrouted(model)


class Medcare(_BranchMethod):
    """The method: knowledge beside noise and attention in stage 1, alignment beside knowledge in stage 2."""

    def attach(
        self, model: PreTrainedModel, stage: Stage, config: RunConfig, sample: Iterable[Tensor] = ()
    ) -> dict[str, nn.Parameter]:
        """As of `TrainingMethod`."""
        add_branches(model, stage, config.adapters)
        return trainable(model, trained_in(stage, train_knowledge=config.align.train_knowledge))


class Lora(_BranchMethod):
    """One plain LoRA on all linears, of as many trained parameters.

    Its scale is that of the method's branches, whatever its rank.
    """

    def attach(
        self, model: PreTrainedModel, stage: Stage, config: RunConfig, sample: Iterable[Tensor] = ()
    ) -> dict[str, nn.Parameter]:
        """As of `TrainingMethod`."""
        spec, adapters = LORAS[stage], config.adapters
        layers = target_layers(model, spec, adapters)
        check_share(model, layers, adapters)

        def count(rank: int) -> int:
            shapes = self.shapes(adapters, rank)
            made = (spec.make(layer, shapes, device=torch.device("meta")) for layer in layers.values())
            return sum(parameter.numel() for branch in made for parameter in branch.parameters())

        shapes = self.shapes(adapters, equal_rank(model, config, stage, count))
        attach(model, {spec.name: {name: spec.make(layer, shapes) for name, layer in layers.items()}})
        set_dropout(model, adapters.dropout)
        return trainable(model, (spec.name,))

    @staticmethod
    def shapes(adapters: AdapterConfig, rank: int) -> AdapterConfig:
        """The settings of a LoRA of this rank."""
        return AdapterConfig(rank=rank, alpha=adapters.scale * rank)


class LoraPlus(Lora):
    """LoRA whose B learns 16 times as fast as its A (arXiv 2402.12354); their product of rates is LoRA's."""

    rates = MappingProxyType({"lora_A": 0.25, "lora_B": 4.0})


class Rslora(Lora):
    """LoRA whose scale is alpha / sqrt(rank) (arXiv 2312.03732)."""

    @staticmethod
    def shapes(adapters: AdapterConfig, rank: int) -> AdapterConfig:
        """As of `Lora`."""
        return AdapterConfig(rank=rank, alpha=adapters.alpha * rank**0.5)


class Full(TrainingMethod):
    """All weights, at a tenth of the learning rate: at a LoRA's they diverge."""

    rate = 0.1
    in_float32 = True
    needs_whole_base = True

    def attach(
        self, model: PreTrainedModel, stage: Stage, config: RunConfig, sample: Iterable[Tensor] = ()
    ) -> dict[str, nn.Parameter]:
        """As of `TrainingMethod`; of a multimodal model the language model and its projection alone."""
        if next(model.parameters()).dtype.itemsize < 4:
            raise ConfigError(
                "method=full trains the weights themselves, and in 16 bits small steps of theirs would be "
                "lost. Set model.dtype=float32."
            )
        model.requires_grad_(False)
        head: Any = model.get_output_embeddings()
        for part in (text_model(model)[1], head):
            part.requires_grad_(True)
        return trained_parameters(model)

    def save(self, model: PreTrainedModel, folder: Path, stage: Stage, base: str) -> None:
        """As of `TrainingMethod`."""
        save_weights(folder, trained_parameters(model))

    def settle(self, model: PreTrainedModel) -> None:
        """As of `TrainingMethod`: it is plain already."""
        model.requires_grad_(False)


_METHODS: dict[str, TrainingMethod] = {
    "medcare": Medcare(),
    "lora": Lora(),
    "loraplus": LoraPlus(),
    "rslora": Rslora(),
    "dora": Dora(),
    "pissa": Pissa(),
    "olora": Olora(),
    "corda": Corda(),
    "miss": Miss(),
    "osf": Osf(),
    "full": Full(),
}
METHODS: dict[Method, TrainingMethod] = {name: _METHODS[name.removesuffix("_two_stage")] for name in NAMES}
