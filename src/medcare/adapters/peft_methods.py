"""PEFT's variants of LoRA as methods: PEFT's own layers, beside or in place of the model's linears.

All but DoRA only ever add a low-rank update, if one counts from the weights as they came: PiSSA, OLoRA and
CorDA take a part of the weights out for their factors to begin with, OSF trains the smallest singular
directions in place, MiSS is a LoRA whose A adds up every r-th entry of the input. So what they leave is a
plain LoRA on the untouched base, of which the initial part is taken off, and nothing that reads it need know
of them.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from medcare.adapters.adapted_linear import Adapted, widths
from medcare.adapters.branches import LORAS
from medcare.adapters.equal_rank import equal_rank
from medcare.adapters.low_rank import Factors
from medcare.adapters.merge import join
from medcare.adapters.peft_files import peft, save_lora
from medcare.adapters.training_method import TrainingMethod
from medcare.adapters.tuner import check_share, target_layers, trained_parameters, unwrap
from medcare.adapters.written_weights import DORAS
from medcare.foundation.errors import AdapterError, DataError
from medcare.settings.config import AdapterConfig, RunConfig, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Ranks = Mapping[str, int]
"""By the name of a linear."""
Sizes = Mapping[str, tuple[int, int]]
"""The widths of input and output, by the name of a linear."""
_NAME = "default"  # PEFT's, for the one adapter of a model


class PeftLayers(TrainingMethod):
    """Any of PEFT's layers on all linears, of as many trained parameters."""

    needs_whole_base = True

    def attach(
        self, model: PreTrainedModel, stage: Stage, config: RunConfig, sample: Iterable[Tensor] = ()
    ) -> dict[str, nn.Parameter]:
        """As of `TrainingMethod`."""
        unwrap(model)
        layers = target_layers(model, LORAS[stage], config.adapters)
        check_share(model, layers, config.adapters)
        for name, layer in layers.items():
            if isinstance(layer, Adapted):
                raise AdapterError(
                    f"method={config.method} stands beside linears, and {name} is several experts in one "
                    "tensor. Set method=lora, which can stand there."
                )
        sizes = {name: widths(layer) for name, layer in layers.items()}

        def count(rank: int) -> int:
            return sum(self.count(*sizes[name], own) for name, own in self.ranks(sizes, rank).items())

        chosen = self.ranks(sizes, equal_rank(model, config, stage, count))
        made = self.config(chosen, sizes, config.adapters, stage)
        made.target_modules = "|".join(map(re.escape, sizes))  # these very names, as PEFT takes a text
        model.requires_grad_(False)
        self.prepare(model, made, sample)
        peft().inject_adapter_in_model(made, model, _NAME)
        for layer in _peft_layers(model).values():
            _in_float32(layer)
            self.remember(layer)
        return trained_parameters(model)

    def save(self, model: PreTrainedModel, folder: Path, stage: Stage, base: str) -> None:
        """As of `TrainingMethod`: a plain LoRA on the base as it came."""
        update = {name: self.factors(layer) for name, layer in _peft_layers(model).items()}
        save_lora(folder / LORAS[stage].path, update, base=base)

    @torch.no_grad()
    def settle(self, model: PreTrainedModel) -> None:
        """As of `TrainingMethod`: PEFT merges its layers."""
        for name, layer in _peft_layers(model).items():
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
        model.requires_grad_(False)

    @abstractmethod
    def config(self, ranks: Ranks, sizes: Sizes, adapters: AdapterConfig, stage: Stage) -> Any:
        """PEFT's configuration.

        Args:
            ranks: of all linears.
            sizes: of all linears.
            adapters: the settings of the method's branches.
            stage: which.
        """

    @abstractmethod
    def count(self, in_features: int, out_features: int, rank: int) -> int:
        """How many parameters train beside one linear."""

    @abstractmethod
    def factors(self, layer: Any) -> Factors:
        """What a layer adds to the weight as it came."""

    def ranks(self, sizes: Sizes, rank: int) -> dict[str, int]:
        """The rank beside each linear: the one asked for, or the largest there is."""
        return {name: min(rank, *size) for name, size in sizes.items()}

    def prepare(self, model: PreTrainedModel, config: Any, sample: Iterable[Tensor]) -> None:
        """What has to be known of a model before the layers are made."""

    def remember(self, layer: Any) -> None:
        """Keep what `factors` needs to know of a new layer's beginning."""


class Dora(PeftLayers):
    """DoRA: LoRA of the direction of each row of W, and its length apart (arXiv 2402.09353)."""

    drops: ClassVar[bool] = True

    def options(self, stage: Stage) -> dict[str, Any]:
        """What makes it more than a LoRA, as PEFT's settings."""
        return {"use_dora": True}

    def config(self, ranks: Ranks, sizes: Sizes, adapters: AdapterConfig, stage: Stage) -> Any:
        """As of `PeftLayers`; the scale is that of the method's branches."""
        rank = max(ranks.values())
        narrow = {name: own for name, own in ranks.items() if own != rank}
        return peft().LoraConfig(
            r=rank,
            lora_alpha=adapters.scale * rank,
            rank_pattern=narrow,
            alpha_pattern={name: adapters.scale * own for name, own in narrow.items()},
            lora_dropout=adapters.dropout if self.drops else 0.0,
            task_type="CAUSAL_LM",
            **self.options(stage),
        )

    def count(self, in_features: int, out_features: int, rank: int) -> int:
        """As of `PeftLayers`: A, B, and a length for each row."""
        return rank * (in_features + out_features) + out_features

    def factors(self, layer: Any) -> Factors:
        """A, B and scale of a layer, without what else it does."""
        return Factors(layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight, layer.scaling[_NAME])

    def save(self, model: PreTrainedModel, folder: Path, stage: Stage, base: str) -> None:
        """As of `TrainingMethod`: a PEFT folder of its own kind, since no LoRA equals it."""
        layers = _peft_layers(model)
        update = {name: self.factors(layer) for name, layer in layers.items()}
        lengths = {name: layer.lora_magnitude_vector[_NAME].weight for name, layer in layers.items()}
        save_lora(folder / DORAS[stage], update, base=base, lengths=lengths)


class Pissa(Dora):
    """PiSSA: A and B begin as the largest singular directions of W, taken out of it (arXiv 2404.02948).

    No dropout: it would drop parts of the weights themselves.
    """

    drops = False

    def options(self, stage: Stage) -> dict[str, Any]:
        """As of `Dora`."""
        return {"init_lora_weights": "pissa"}

    def count(self, in_features: int, out_features: int, rank: int) -> int:
        """As of `PeftLayers`: A and B."""
        return rank * (in_features + out_features)

    def remember(self, layer: Any) -> None:
        """As of `PeftLayers`: A and B as they begin."""
        down, up, _ = super().factors(layer)
        layer.register_buffer("first_down", down.detach().clone(), persistent=False)
        layer.register_buffer("first_up", up.detach().clone(), persistent=False)

    def factors(self, layer: Any) -> Factors:
        """As of `PeftLayers`: what it adds now less what it added at first."""
        now = super().factors(layer)
        return join([now, Factors(layer.first_down, layer.first_up, -now.scale)])

    def save(self, model: PreTrainedModel, folder: Path, stage: Stage, base: str) -> None:
        """As of `PeftLayers`."""
        PeftLayers.save(self, model, folder, stage, base)


class Olora(Pissa):
    """OLoRA: A and B begin as the first rows and columns of W's QR decomposition (arXiv 2406.01775)."""

    def options(self, stage: Stage) -> dict[str, Any]:
        """As of `Dora`."""
        return {"init_lora_weights": "olora"}


class Corda(Pissa):
    """CorDA: A and B begin as directions of W that the data speaks to (arXiv 2406.05223).

    In stage 1, or the one stage, those that its rows speak to most (`ipm`); in stage 2 those that stage 1's
    rows speak to least, so that what these taught is kept (`kpm`).
    """

    def options(self, stage: Stage) -> dict[str, Any]:
        """As of `Dora`."""
        from peft.tuners.lora.config import CordaConfig

        mode = CordaConfig(corda_method="kpm" if stage == "align" else "ipm")
        return {"init_lora_weights": "corda", "corda_config": mode}

    def prepare(self, model: PreTrainedModel, config: Any, sample: Iterable[Tensor]) -> None:
        """As of `PeftLayers`: the covariance of the inputs that the sample puts into each linear."""
        from peft.tuners.lora.corda import preprocess_corda

        if not (sample := list(sample)):
            raise DataError("CorDA begins with what rows speak to: give some, got none.")

        def run() -> None:
            for ids in sample:
                model(input_ids=ids, use_cache=False)

        preprocess_corda(model, config, run)


class Miss(PeftLayers):
    """MiSS: each of the r sums over every r-th entry of the input has its own column (arXiv 2409.15371)."""

    def config(self, ranks: Ranks, sizes: Sizes, adapters: AdapterConfig, stage: Stage) -> Any:
        """As of `PeftLayers`."""
        rank = max(ranks.values())
        return peft().MissConfig(r=rank, miss_dropout=adapters.dropout, task_type="CAUSAL_LM")

    def count(self, in_features: int, out_features: int, rank: int) -> int:
        """As of `PeftLayers`: B alone."""
        return rank * out_features

    def ranks(self, sizes: Sizes, rank: int) -> dict[str, int]:
        """As of `PeftLayers`: the same for all, at most the narrowest input."""
        return dict.fromkeys(sizes, min(rank, *(in_features for in_features, _ in sizes.values())))

    def factors(self, layer: Any) -> Factors:
        """As of `PeftLayers`."""
        block = layer.miss_block[_NAME]
        rank, entries = len(block), torch.arange(layer.in_features, device=block.device)
        down = torch.zeros(rank, layer.in_features, dtype=block.dtype, device=block.device)
        down[entries % rank, entries] = 1.0
        return Factors(down, block.T, 1.0)


class Osf(PeftLayers):
    """OSF: the smallest singular directions of W train, kept orthogonal to the others (arXiv 2504.07097)."""

    def config(self, ranks: Ranks, sizes: Sizes, adapters: AdapterConfig, stage: Stage) -> Any:
        """As of `PeftLayers`; PEFT is told how many directions stay."""
        kept = {name: min(sizes[name]) - rank for name, rank in ranks.items()}
        return peft().OSFConfig(effective_rank=1, rank_pattern=kept, task_type="CAUSAL_LM")

    def count(self, in_features: int, out_features: int, rank: int) -> int:
        """As of `PeftLayers`: both singular vectors and the value of each direction."""
        return rank * (in_features + out_features + 1)

    def ranks(self, sizes: Sizes, rank: int) -> dict[str, int]:
        """As of `PeftLayers`: one direction stays."""
        return {name: min(rank, min(size) - 1) for name, size in sizes.items()}

    def factors(self, layer: Any) -> Factors:
        """As of `PeftLayers`: the directions as they are now less as they began."""
        now = layer.osf_svd_params[_NAME]
        began = [getattr(layer, f"_osf_{part}_low_init")[_NAME] for part in ("U", "S", "V")]
        return join(
            [
                Factors(now["V_low"], now["U_low"] * now["S_low"], 1.0),
                Factors(began[2], began[0] * began[1], -1.0),
            ]
        )


def _peft_layers(model: nn.Module) -> dict[str, Any]:
    """PEFT's layers by the name of the linear that each stands for."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def _in_float32(layer: nn.Module) -> None:
    """All but the base's own part in float32, as the method's branches are."""
    for name, child in layer.named_children():
        if name != "base_layer":
            child.float()
