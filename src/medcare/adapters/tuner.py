"""Putting branches onto a model, by module name, and taking them off again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from medcare.adapters.adapted_linear import AdaptedLinear, Branch
from medcare.adapters.low_rank import LowRank
from medcare.adapters.noise_aggregator import NoiseAggregator
from medcare.adapters.shared_input import SharedInput
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig

# Linears of one block that read the same tensor, in most families; where they don't, they are served apart.
_PARALLEL = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "attention"),
    **dict.fromkeys(("wq", "wk", "wv"), "attention"),
    **dict.fromkeys(("gate_proj", "up_proj"), "feed_forward"),
    **dict.fromkeys(("w1", "w3"), "feed_forward"),
}


def adapted_linears(model: nn.Module, branch: str | None = None) -> dict[str, AdaptedLinear]:
    """The adapted linears by module name, in the model's order; only those with `branch`, if given."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, AdaptedLinear) and (branch is None or branch in module.branches)
    }


def adapt(model: nn.Module, names: Sequence[str], dropout: float) -> dict[str, AdaptedLinear]:
    """Wrap every linear whose last name, or whole dotted name, is in `names`; freeze the whole rest.

    Linears that are wrapped already stay as they are, so that adding twice does no harm.

    Returns:
        The adapted linears by their module name in the model.

    Raises:
        AdapterError: a name matches no linear layer of the model.
    """
    wanted = set(names)
    found = {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear | AdaptedLinear)) and _matches(name, wanted)
    }
    hit = {key for name in found for key in wanted if _matches(name, {key})}
    if wanted - hit:
        raise AdapterError(_no_match(model, sorted(wanted - hit)))
    if not adapted_linears(model):
        model.requires_grad_(False)
    adapted = {}
    inputs: dict[tuple[str, str], SharedInput] = {}
    for name, module in found.items():
        if isinstance(module, AdaptedLinear):
            adapted[name] = module
            continue
        assert isinstance(module, nn.Linear)
        parent, _, child = name.rpartition(".")
        key = (parent, _PARALLEL.get(child, child))
        adapted[name] = AdaptedLinear(module, inputs.setdefault(key, SharedInput(dropout)))
        model.set_submodule(name, adapted[name])
    return adapted


def add_branch(
    model: nn.Module,
    name: str,
    targets: Sequence[str],
    make: Callable[[AdaptedLinear], Branch],
    *,
    dropout: float = 0.0,
) -> None:
    """Add a branch made by `make` to every linear that `targets` names; raises AdapterError as `adapt`."""
    for linear in adapt(model, targets, dropout).values():
        linear.add(name, make(linear))


def remove_branch(model: nn.Module, name: str) -> None:
    """Drop a branch from every layer that has it."""
    for linear in adapted_linears(model, name).values():
        linear.remove(name)


def add_aggregators(model: nn.Module, config: AdapterConfig) -> None:
    """Stage 1: knowledge and noise branches on the feed-forward linears, LoRA on attention."""
    options = {"dropout": config.dropout}
    add_branch(model, "knowledge", config.feed_forward, _low_rank(config.wide_rank, config), **options)
    if config.experts:
        add_branch(model, "noise", config.feed_forward, _routed(config), **options)
    if config.attention:
        add_branch(model, "attention", config.attention, _low_rank(config.rank, config), **options)


def add_alignment(model: nn.Module, config: AdapterConfig) -> None:
    """Stage 2: the alignment branch beside the knowledge branch.

    Raises:
        AdapterError: noise aggregators are still attached, or there is no knowledge branch.
    """
    if adapted_linears(model, "noise"):
        raise AdapterError("The noise aggregator is still attached. Drop it before stage 2 adds alignment.")
    if not adapted_linears(model, "knowledge"):
        raise AdapterError("Stage 2 needs the knowledge branch of a stage-1 folder; this model has none.")
    add_branch(
        model, "alignment", config.feed_forward, _low_rank(config.wide_rank, config), dropout=config.dropout
    )


def unwrap(model: nn.Module) -> None:
    """Put the plain linears back where no branch is left."""
    for name, linear in adapted_linears(model).items():
        if not linear.branches:
            model.set_submodule(name, linear.base)


def trainable(model: nn.Module, branches: Iterable[str]) -> dict[str, nn.Parameter]:
    """Let exactly these branches train.

    Returns:
        The trainable parameters by name.
    """
    wanted = set(branches)
    model.requires_grad_(False)
    for linear in adapted_linears(model).values():
        for name, branch in linear.branches.items():
            branch.requires_grad_(name in wanted)
    return {name: entry for name, entry in model.named_parameters() if entry.requires_grad}


def _low_rank(rank: int, config: AdapterConfig) -> Callable[[AdaptedLinear], LowRank]:
    def make(linear: AdaptedLinear) -> LowRank:
        _check_rank(linear, rank)
        return LowRank(
            linear.in_features, linear.out_features, rank, config.scale, device=linear.weight.device
        )

    return make


def _routed(config: AdapterConfig) -> Callable[[AdaptedLinear], NoiseAggregator]:
    def make(linear: AdaptedLinear) -> NoiseAggregator:
        _check_rank(linear, config.rank)
        return NoiseAggregator(
            linear.in_features,
            linear.out_features,
            config.rank,
            config.scale,
            experts=config.experts,
            top_k=config.top_k,
            device=linear.weight.device,
        )

    return make


def _check_rank(linear: AdaptedLinear, rank: int) -> None:
    width = min(linear.in_features, linear.out_features)
    if rank > width:
        raise AdapterError(
            f"A branch of rank {rank} must be no wider than its linear layer, which is "
            f"{linear.in_features} x {linear.out_features}. Lower adapters.rank: attention has that rank, "
            "knowledge and alignment have twice that."
        )


def _matches(name: str, wanted: set[str]) -> bool:
    return name in wanted or name.rpartition(".")[2] in wanted


def _no_match(model: nn.Module, missing: list[str]) -> str:
    find_head: Any = getattr(model, "get_output_embeddings", None)
    head = find_head() if find_head else None
    counts = Counter(
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    )
    kind = type(model).__name__
    if not counts:
        return (
            f"{kind} has no linear layers to put branches beside: its own are of another kind, such as "
            "GPT-2's Conv1D or experts in one tensor. Choose a base like LLaMA, Qwen, Mistral or Gemma."
        )
    there = ", ".join(f"{name} ({count}x)" for name, count in sorted(counts.items()))
    return (
        f"No linear layer is called {' or '.join(missing)}. {kind} has these: {there}. "
        "Set adapters.feed_forward and adapters.attention to names out of this list."
    )


def branch_parameters(model: nn.Module) -> dict[str, int]:
    """Number of parameters of each branch, summed over the layers."""
    sizes: Counter[str] = Counter()
    for linear in adapted_linears(model).values():
        for name, branch in linear.branches.items():
            sizes[name] += sum(parameter.numel() for parameter in branch.parameters())
    return dict(sizes)


def router_load(model: nn.Module) -> dict[str, list[float]]:
    """Each expert's share of the routed tokens since the last call, by module name."""
    return {
        name: [round(share, 4) for share in _noise(linear).reset_load().tolist()]
        for name, linear in adapted_linears(model, "noise").items()
    }


def set_noise(model: nn.Module, enabled: bool) -> None:
    """Switch every noise aggregator on or off without dropping it."""
    for linear in adapted_linears(model, "noise").values():
        linear.disabled = frozenset() if enabled else frozenset({"noise"})


def _noise(linear: AdaptedLinear) -> NoiseAggregator:
    branch = linear.branch("noise")
    assert isinstance(branch, NoiseAggregator)
    return branch
