"""Putting branches onto a model and taking them off again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from medcare.adapters.adapted_linear import Adapted, AdaptedLinear, Branch, check_fits, widths
from medcare.adapters.branches import BRANCHES, BranchSpec, added_in
from medcare.adapters.experts import AdaptedExperts, ExpertWeight
from medcare.adapters.fused_products import SharedInput
from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.adapters.targets import Layer, Role, adapted_share, find_layers, layers_at
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AUTO, AdapterConfig, Stage

_ENOUGH = 0.9  # of the feed-forward weights
# Linears of one block that read the same tensor in most families; where they don't, `SharedInput` notices.
_PARALLEL = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "attention"),
    **dict.fromkeys(("wq", "wk", "wv"), "attention"),
    **dict.fromkeys(("gate_proj", "up_proj"), "feed_forward"),
    **dict.fromkeys(("w1", "w3"), "feed_forward"),
}


def adapted_layers(model: nn.Module, branch: str | None = None) -> dict[str, Adapted]:
    """The adapted layers by module name, in the model's order; only those with `branch`, if given."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Adapted) and (branch is None or branch in module.branches)
    }


def add_branches(model: nn.Module, stage: Stage, config: AdapterConfig) -> None:
    """Put the branches that a stage adds beside the model's linears, or change nothing.

    Raises:
        AdapterError: a setting names no linear of the model, a branch is there that must not be, one is
            missing that the stage goes on training, or a rank is too large.
    """
    _check_ready(model, stage)
    specs = [spec for spec in added_in(stage) if spec.options(config) is not None]
    targets = {spec.name: target_layers(model, spec, config) for spec in specs}
    if stage == "aggregate":
        check_share(model, {name for layers in targets.values() for name in layers}, config)
    branches = {
        spec.name: {name: spec.make(layer, config) for name, layer in targets[spec.name].items()}
        for spec in specs
    }
    attach(model, branches)
    set_dropout(model, config.dropout)


def set_dropout(model: nn.Module, probability: float) -> None:
    """Set the probability of the dropout on the branches' input, in every adapted layer."""
    for layer in adapted_layers(model).values():
        layer.drop(probability)


def attach(model: nn.Module, branches: Mapping[str, Mapping[str, Branch]], *, dropout: float = 0.0) -> None:
    """Add branches to a model and freeze the whole rest, or change nothing.

    Args:
        model: any model with linears.
        branches: by name of the branch, then by module name.
        dropout: of the input of layers that have had no branch so far.

    Raises:
        AdapterError: there is no such layer, it has another width or a branch of that name, or it is a block
            of experts and the branch is not routed.
    """
    layers = layers_at(model, {module for made in branches.values() for module in made})
    for name, made in branches.items():
        for module, branch in made.items():
            check_fits(layers[module], name, branch)
            if branch.mergeable and isinstance(layers[module], AdaptedExperts):
                raise AdapterError(
                    f"The branch '{name}' can't stand beside {module}: it is a whole block of experts, of "
                    "which no single weight could take the branch in. Put it beside the experts' weights."
                )
    _check_own_weights(model, layers)
    if not adapted_layers(model):
        model.requires_grad_(False)
    inputs: dict[tuple[str, str], SharedInput] = {}
    for module, layer in layers.items():
        if isinstance(layer, AdaptedExperts) and model.get_submodule(module) is not layer:
            model.set_submodule(module, layer)
            for part in (layer, *layer.weights.values()):
                part.drop(dropout)
        elif not isinstance(layer, Adapted):
            parent, _, child = module.rpartition(".")
            key = (parent, _PARALLEL.get(child, child))
            layers[module] = AdaptedLinear(layer, inputs.setdefault(key, SharedInput(dropout)))
            model.set_submodule(module, layers[module])
    for name, made in branches.items():
        for module, branch in made.items():
            adapted = layers[module]
            assert isinstance(adapted, Adapted)
            adapted.add(name, branch)


def target_layers(model: nn.Module, spec: BranchSpec, config: AdapterConfig) -> dict[str, Layer]:
    """The layers beside which a branch is to stand; raises AdapterError if a setting names none."""
    return {
        name: layer
        for role in spec.roles
        for name, layer in _layers_of_role(model, spec, role, config).items()
    }


def _layers_of_role(
    model: nn.Module, spec: BranchSpec, role: Role, config: AdapterConfig
) -> dict[str, Layer]:
    names = getattr(config, role)
    if names == (AUTO,) and spec.added_in == "align":
        former = next(other for other in BRANCHES if other.targets == role)
        if there := adapted_layers(model, former.name):
            return dict(there)
    layers = find_layers(model, names, role)
    found = {name: layer for name, layer in layers.items() if spec.stands_beside(layer)}
    if names == (AUTO,) and role == "attention":
        # A linear that is narrower than the branch is a gate, with one or a few numbers for each head.
        wide = {name: layer for name, layer in found.items() if min(widths(layer)) >= config.rank}
        return wide or found
    return found


def _check_own_weights(model: nn.Module, layers: Mapping[str, Layer]) -> None:
    """Refuse layers that share a weight: merged into it, a branch beside one would change the others."""
    holders = Counter(
        id(weight)
        for module in model.modules()
        if not isinstance(module, ExpertWeight)  # the same as its block's
        for weight in module.parameters(recurse=False)
    )
    tied = [name for name, layer in layers.items() if holders[id(layer.weight)] > 1]
    if tied:
        raise AdapterError(
            f"{tied[0]} shares its weight with another layer of {type(model).__name__}, so that a branch "
            "beside one can't be merged without changing the other. Name other layers in "
            "adapters.feed_forward and adapters.attention, or choose another base."
        )


def check_share(model: nn.Module, chosen: Collection[str], config: AdapterConfig) -> None:
    """Refuse to train a small part of the feed-forward weights, unless that is asked for."""
    adapted, total, rest = adapted_share(model, "feed_forward", chosen)
    if not config.partial and adapted < _ENOUGH * total:
        left = ", ".join(f"{name} {size / total:.0%}" for name, size in rest.most_common(4))
        raise AdapterError(
            f"At least {_ENOUGH:.0%} of the feed-forward weights must be adapted, for they learn the "
            f"knowledge; of {type(model).__name__}'s, {adapted / total:.0%} would be. Left out: {left}. Name "
            "more of them in adapters.feed_forward ([auto] takes all that can be adapted), set "
            "adapters.partial=true to train this part alone, or choose another base."
        )


def _check_ready(model: nn.Module, stage: Stage) -> None:
    """Refuse a model that lacks the branches that this stage goes on with, or still has those it drops."""
    for spec in BRANCHES:
        if spec.added_in == stage:
            continue
        there = bool(adapted_layers(model, spec.name))
        if stage in spec.trains_in and not there:
            raise AdapterError(
                f"Stage '{stage}' goes on with the {spec.name} branch of a stage-1 folder; this model has "
                "none. Load the model from that folder, with noise=False."
            )
        if stage == "align" and spec.in_align == "dropped" and there:
            raise AdapterError(
                f"The {spec.name} branch is still attached. Drop it before stage '{stage}' adds its own."
            )


def remove_branch(model: nn.Module, name: str) -> None:
    """Drop a branch from every layer that has it."""
    for linear in adapted_layers(model, name).values():
        linear.remove(name)


def unwrap(model: nn.Module) -> None:
    """Put the plain linears back where no branch is left."""
    for name, layer in adapted_layers(model).items():
        frozen = layer.unwrapped()
        if frozen is not None:
            model.set_submodule(name, frozen)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def trainable(model: nn.Module, branches: Iterable[str]) -> dict[str, nn.Parameter]:
    """Let exactly these branches train; returns their parameters by name."""
    wanted = set(branches)
    model.requires_grad_(False)
    for linear in adapted_layers(model).values():
        for name, branch in linear.branches.items():
            branch.requires_grad_(name in wanted)
    return trained_parameters(model)


def branch_parameters(model: nn.Module) -> dict[str, int]:
    """Number of parameters of each branch, summed over the layers."""
    sizes: Counter[str] = Counter()
    for linear in adapted_layers(model).values():
        for name, branch in linear.branches.items():
            sizes[name] += sum(parameter.numel() for parameter in branch.parameters())
    return dict(sizes)


def router_load(model: nn.Module) -> dict[str, list[float]]:
    """Each expert's share of the routed tokens since the last call, by module name."""
    return {
        name: [round(share, 4) for share in branch.reset_load().tolist()]
        for name, linear in adapted_layers(model).items()
        for branch in linear.branches.values()
        if isinstance(branch, NoiseAggregator)
    }


def set_noise(model: nn.Module, enabled: bool) -> None:
    """Switch the noise aggregator, which stage 2 will drop, on or off without removing it."""
    dropped = frozenset(spec.name for spec in BRANCHES if spec.in_align == "dropped")
    for linear in adapted_layers(model).values():
        linear.disabled = frozenset() if enabled else dropped


@contextmanager
def without_noise(model: nn.Module) -> Iterator[None]:
    """Within the block, the noise aggregator is off: the model computes what stage 2 will start from."""
    set_noise(model, enabled=False)
    try:
        yield
    finally:
        set_noise(model, enabled=True)
