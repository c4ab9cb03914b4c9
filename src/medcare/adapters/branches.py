"""The table of branches: what stands beside which linears, when it trains, and what becomes of it.

Stage 1, `aggregate`, trains three: knowledge, beside it the noise aggregator, which takes up what is bound to
particular tasks, and an ordinary LoRA on attention. When stage 2, `align`, starts, a branch that goes on
training is kept; one that does not is merged into the weights, or dropped if no weight equals it. Then
alignment is added beside knowledge. Attaching, training, files, merging and exports all go by this table.

Below it are the rows for plain LoRA, which the method is compared with (see methods.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from medcare.adapters.adapted_linear import Adapted, Branch, Linear, widths
from medcare.adapters.experts import AdaptedExperts, ExpertWeight
from medcare.adapters.low_rank import LowRank
from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig, Stage


@dataclass(frozen=True)
class BranchSpec:
    """One row of the table.

    Attributes:
        name: of the branch.
        module: its class.
        targets: the setting that names the linears that it stands beside, or `all` for both settings.
        trains_in: the stages in which it trains; the first of them adds it.
        options: the arguments of its class besides the widths; None if the settings leave the branch out.
        path: its folder or file in a stage folder.
        fits: whether its rank is lowered to the width of a narrower layer; otherwise such a layer is refused.
    """

    name: str
    module: type[Branch]
    targets: Literal["feed_forward", "attention", "all"]
    trains_in: tuple[Stage, ...]
    options: Callable[[AdapterConfig], dict[str, Any] | None]
    path: str
    fits: bool = False

    @property
    def roles(self) -> tuple[Literal["feed_forward", "attention"], ...]:
        """The settings that name its linears."""
        return ("feed_forward", "attention") if self.targets == "all" else (self.targets,)

    @property
    def added_in(self) -> Stage:
        """The stage that adds it."""
        return self.trains_in[0]

    @property
    def mergeable(self) -> bool:
        """Whether a weight update equals it."""
        return self.module.mergeable

    @property
    def is_lora(self) -> bool:
        """Whether it is a plain LoRA: kept as a PEFT folder, and exported as one."""
        return issubclass(self.module, LowRank)

    @property
    def in_align(self) -> Literal["trains", "merged", "dropped"]:
        """What it is when stage 2 trains."""
        if "align" in self.trains_in:
            return "trains"
        return "merged" if self.mergeable else "dropped"

    def stands_beside(self, layer: Linear | Adapted) -> bool:
        """Whether the branch is added to this layer, which may be a block of experts or a weight of one.

        A mergeable branch stands beside each weight of the block, with a low-rank pair for every expert. A
        routed branch stands beside the whole block: its router needs the hidden state, which only the block
        as a whole reads.
        """
        return not isinstance(layer, AdaptedExperts if self.mergeable else ExpertWeight)

    def make(
        self, layer: Linear | Adapted, config: AdapterConfig, *, device: torch.device | None = None
    ) -> Branch:
        """A new branch for a layer, by default on its device.

        In a base with experts, the rank is divided by the number of experts that a token is sent to: so a
        token passes as many columns as in a model without experts.

        Raises:
            AdapterError: its rank is larger than the layer.
        """
        options = self.options(config)
        assert options is not None, f"the settings leave {self.name} out"
        if isinstance(layer, ExpertWeight):
            options |= {"rank": max(1, options["rank"] // layer.experts_per_token), "stack": layer.stack}
        in_features, out_features = widths(layer)
        if self.fits:
            options["rank"] = min(options["rank"], in_features, out_features)
        if options["rank"] > min(in_features, out_features):
            raise AdapterError(
                f"A branch of rank {options['rank']} must be no wider than its linear layer, which is "
                f"{in_features} x {out_features}. Lower adapters.rank: attention has that "
                "rank, knowledge and alignment have twice that."
            )
        return self.module(in_features, out_features, **options, device=device or layer.weight.device)


def _narrow(config: AdapterConfig) -> dict[str, Any]:
    return {"rank": config.rank, "scale": config.scale}


def _wide(config: AdapterConfig) -> dict[str, Any]:
    return {"rank": config.wide_rank, "scale": config.scale}


def _routed(config: AdapterConfig) -> dict[str, Any] | None:
    experts = {"experts": config.experts, "top_k": config.top_k}
    return {**_narrow(config), **experts} if config.experts else None


# Branches are created in this order, and so draw their random initial values in it.
BRANCHES = (
    BranchSpec("knowledge", LowRank, "feed_forward", ("aggregate", "align"), _wide, "knowledge"),
    BranchSpec("noise", NoiseAggregator, "feed_forward", ("aggregate",), _routed, "noise.safetensors"),
    BranchSpec("attention", LowRank, "attention", ("aggregate",), _narrow, "attention"),
    BranchSpec("alignment", LowRank, "feed_forward", ("align",), _wide, "alignment"),
)
# Plain LoRA on all linears, one for each stage; when the second stage begins, the first LoRA is merged.
LORAS: dict[Stage, BranchSpec] = {
    "aggregate": BranchSpec("lora", LowRank, "all", ("aggregate",), _narrow, "lora", fits=True),
    "align": BranchSpec("second_lora", LowRank, "all", ("align",), _narrow, "second_lora", fits=True),
}
SPECS = {spec.name: spec for spec in (*BRANCHES, *LORAS.values())}


def added_in(stage: Stage) -> tuple[BranchSpec, ...]:
    """The branches that a stage adds."""
    return tuple(spec for spec in BRANCHES if spec.added_in == stage)


def stored_in(folder: Path) -> list[BranchSpec]:
    """The branches that a stage folder holds; first those that stage 2 merges before it starts."""
    there = (spec for spec in (*BRANCHES, *LORAS.values()) if (folder / spec.path).exists())
    return sorted(there, key=lambda spec: spec.in_align != "merged")


def trained_in(stage: Stage, *, train_knowledge: bool = True) -> tuple[str, ...]:
    """The names of the branches that train in a stage.

    Args:
        stage: which one.
        train_knowledge: whether what an earlier stage added goes on training; `StageConfig.train_knowledge`.
    """
    return tuple(
        spec.name
        for spec in BRANCHES
        if stage in spec.trains_in and (train_knowledge or spec.added_in == stage)
    )
