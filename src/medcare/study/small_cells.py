"""One cell of the small world: a base, stage 1, stage 2, and what is measured after each.

A base belongs to a seed and a stage 1 to the settings that it depends on; both are kept in the study's folder
and shared by all cells that start from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from medcare.adapters.input_directions import Directions, contrasting, heard, leading, sketching
from medcare.adapters.merge import merge_unrouted
from medcare.adapters.methods import METHODS
from medcare.adapters.orthogonality import measure as orthogonality
from medcare.adapters.orthogonality import project
from medcare.adapters.tuner import (
    adapted_layers,
    add_branches,
    remove_branch,
    trainable,
)
from medcare.foundation.locks import hold
from medcare.foundation.storage import json_hash, read_json, write_json
from medcare.models.tensor_files import load_tensors, save_tensors
from medcare.settings.config import RunConfig, StageConfig
from medcare.study.routing import routing
from medcare.study.small_training import Replay, fit, teach
from medcare.study.small_world import PAD, SmallWorldConfig, TokenRows, World, build_model, measure

_PRETRAINING = StageConfig(learning_rate=3e-3, warmup=0.03)
_SKETCHED = 1000  # rows: ten thousand tokens for at most 96 directions
_ASKED = 256  # rows that tell `corda` which directions matter
_SCALES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MOMENTS = (0.1, 0.25, 0.5, 0.75)


def run_cell(config: RunConfig, sizes: SmallWorldConfig, shared: Path) -> dict[str, Any]:
    """Train and measure.

    Args:
        config: the settings; its seed draws the world, the initial weights and the order of the examples.
        sizes: of the world and its trainings.
        shared: where bases and stages 1 are, and are left for other cells.

    Returns:
        `stage_1` and, if there is one, `stage_2`, or `mixed`: for each, measures by the name of the moment.

    Raises:
        FolderError: another process is making the base or the stage 1 that this cell starts from.
        TrainingError: training diverged.
    """
    torch.set_num_threads(1)
    cell = _SmallCell(config, sizes, shared)
    if sizes.method in ("lora", "full"):
        return {"mixed": cell.mixed()}
    key = _stage_1_key(config, sizes)
    folder = shared / f"stage-1-{key}"
    if not (folder / "measures.json").is_file():
        hold(folder)
        cell.stage_1(folder)
    found = {"stage_1": read_json(folder / "measures.json"), "stage_1_key": key}
    if sizes.stage_2:
        found["stage_2"] = cell.stage_2(folder)
    return found


class _SmallCell:
    """The trainings of one cell; arguments as of `run_cell`."""

    def __init__(self, config: RunConfig, sizes: SmallWorldConfig, shared: Path) -> None:
        self.config, self.sizes, self.shared = config, sizes, shared
        self.world = World(config.seed)
        self.tests = self.world.tests(sizes.noise)
        self.former_rows = self.world.stage_1(sizes.noise, sizes.forms)

    def base(self) -> LlamaForCausalLM:
        """The pre-trained model, which cells of the same seed share."""
        seed, sizes = self.config.seed, self.sizes
        model = build_model(seed)
        name = f"base-{seed}-{sizes.pretraining_steps}-{sizes.pretraining_forms}"
        path = self.shared / name / "model.safetensors"
        if not path.is_file():
            hold(path.parent)
            parameters = dict(model.named_parameters())
            rows = self.world.pretraining(sizes.pretraining_forms)
            fit(model, parameters, rows, _PRETRAINING, steps=sizes.pretraining_steps, batch=128, seed=seed)
            save_tensors(path, dict(model.named_parameters()))
        model.load_state_dict(load_tensors(path), strict=False)
        return model.requires_grad_(False)

    def mixed(self) -> dict[str, Any]:
        """All data at once, for as many steps as two stages have."""
        config, sizes, model = self.config, self.sizes, self.base()
        first, second = self.former_rows, self.world.stage_2(sizes.stage_2_forms)
        # As many rows of each as two stages see.
        times = sizes.stage_1_steps * len(second) / (sizes.stage_2_steps * len(first))
        rows = second + _repeated(first, times, config.seed)
        measures = {"base": measure(model, self.tests)}
        torch.manual_seed(config.seed)
        if sizes.method == "full":
            model.requires_grad_(True)
            parameters = dict(model.named_parameters())
        else:
            add_branches(model, "aggregate", _without_experts(config).adapters)
            parameters = trainable(model, ("knowledge", "attention"))
        steps = sizes.stage_1_steps + sizes.stage_2_steps
        fit(model, parameters, rows, config.aggregate, steps=steps, batch=sizes.batch, seed=config.seed)
        measures["end"] = measure(model, self.tests)
        return {"measures": measures, "trained": _size(parameters)}

    def stage_1(self, folder: Path) -> None:
        """Train stage 1 from the base; its branches and what was measured go into a folder."""
        config, sizes, model = self.config, self.sizes, self.base()
        measures = {"base": measure(model, self.tests)}
        facts: dict[str, Any] = {}
        torch.manual_seed(config.seed)
        used = config if sizes.method == "medcare" else _without_experts(config)
        add_branches(model, "aggregate", used.adapters)
        parameters = trainable(model, ("knowledge", "noise", "attention"))
        fit(
            model,
            parameters,
            self.former_rows,
            config.aggregate,
            steps=sizes.stage_1_steps,
            batch=sizes.batch,
            seed=config.seed,
            noise_drop=used.adapters.noise_drop if used.adapters.experts else 0.0,
        )
        if used.adapters.experts:
            measures["noise kept"] = measure(model, self.tests)
            facts["routing"] = routing(model, self.world.kinds(sizes.noise))
            remove_branch(model, "noise")
        measures["end"] = measure(model, self.tests)
        bare = {name: linear.weight.detach().clone() for name, linear in adapted_layers(model).items()}
        for scale in _SCALES:
            with _between(model, bare, scale):
                measures[f"scaled {scale}"] = measure(model, self.tests)
        save_tensors(folder / "branches.safetensors", dict(_branch_parameters(model)))
        write_json(folder / "measures.json", {"measures": measures, "trained": _size(parameters), **facts})

    def stage_2(self, folder: Path) -> dict[str, Any]:
        """Train stage 2 from the branches of stage 1 in a folder."""
        config, sizes, model = self.config, self.sizes, self.base()
        forms = self.world.stage_2(sizes.stage_2_forms)
        add_branches(model, "aggregate", _without_experts(config).adapters)
        former = load_tensors(folder / "branches.safetensors")
        with torch.no_grad():
            for name, parameter in _branch_parameters(model):
                parameter.copy_(former[name])
        torch.manual_seed(config.seed)
        start = _StageTwoStart(model, config, sizes, self.former_rows, forms)
        replay = None
        if share := start.stage.replay:
            teacher = teach(model, self.former_rows) if sizes.distill else None
            replay = Replay(self.former_rows, share, teacher, sizes.distill)
        weights = _weights(model)
        moments = {round(share * sizes.stage_2_steps): share for share in _MOMENTS}
        measures: dict[str, dict[str, float]] = {}

        def watch(step: int) -> None:
            if step in moments:
                measures[f"stopped {moments[step]}"] = measure(model, self.tests)

        fit(
            model,
            start.parameters,
            forms,
            start.stage,
            steps=sizes.stage_2_steps,
            batch=sizes.batch,
            seed=config.seed,
            kept_out=start.kept_out,
            replay=replay,
            after_step=watch,
        )
        measures["end"] = measure(model, self.tests)
        if config.method == "medcare":
            for scale in (0.25, 0.5, 0.75):
                with _between(model, weights, scale):
                    measures[f"scaled {scale}"] = measure(model, self.tests)
        facts = start.facts
        if start.knowledge is not None:
            now = {"knowledge": start.knowledge, "forms": _directions(model, forms)}
            facts["passing"] = {kind: heard(model, directions) for kind, directions in now.items()}
            facts |= orthogonality(model)
        return {"measures": measures, "trained": _size(start.parameters), **facts}


class _StageTwoStart:
    """A model after stage 1, made ready for stage 2.

    Attributes:
        stage: the settings that its training has.
        parameters: what trains.
        kept_out: the directions [m, i] of each linear that the updates must leave out, if there are any.
        knowledge: the inputs of stage 1's rows to each linear; None unless the method is MedCare's.
        facts: what to tell of it in the result.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        config: RunConfig,
        sizes: SmallWorldConfig,
        former_rows: TokenRows,
        forms: TokenRows,
    ) -> None:
        self.stage = config.align
        self.kept_out: dict[str, Tensor] | None = None
        self.knowledge: Mapping[str, Directions] | None = None
        self.facts: dict[str, Any] = {}
        if config.method != "medcare":
            merge_unrouted(model)
            self.parameters = _attach(model, config, former_rows)
            self.stage = METHODS[config.method].at_own_rates(self.stage)
        elif sizes.method == "lora_two_stage":
            merge_unrouted(model)
            add_branches(model, "aggregate", _without_experts(config).adapters)
            self.parameters = trainable(model, ("knowledge", "attention"))
        else:
            for linear in adapted_layers(model, "attention").values():
                linear.merge("attention")
            self.knowledge = _directions(model, former_rows)
            add_branches(model, "align", config.adapters)
            if self.stage.orthogonality in ("inputs", "contrast"):
                self.kept_out = _kept_out(self.stage, self.knowledge, _directions(model, forms))
                project(model, self.kept_out)
                self.facts["directions"] = {name: len(basis) for name, basis in self.kept_out.items()}
            elif self.stage.orthogonality == "projection":
                project(model)
            learning = ("knowledge", "alignment") if self.stage.train_knowledge else ("alignment",)
            self.parameters = trainable(model, learning)


def _attach(model: LlamaForCausalLM, config: RunConfig, before: TokenRows) -> dict[str, nn.Parameter]:
    """Put one of the package's baselines into a model, as `training.stages` does."""
    known = before.some(min(1.0, _ASKED / len(before)), 0).ids
    sample = (row[row != PAD][None] for row in known)
    return METHODS[config.method].attach(model, "align", config, sample)


def _directions(model: LlamaForCausalLM, rows: TokenRows) -> dict[str, Directions]:
    rows = rows.some(min(1.0, _SKETCHED / len(rows)), 0)
    model.eval()
    with torch.no_grad(), sketching(model) as gathering:
        gathering.keep = rows.ids != PAD
        gathering.keep[:, 0] = False
        model(input_ids=rows.ids, use_cache=False)
    return gathering.directions()


def _kept_out(
    stage: StageConfig, knowledge: Mapping[str, Directions], forms: Mapping[str, Directions]
) -> dict[str, Tensor]:
    if stage.orthogonality == "inputs":
        return {name: leading(directions, stage.input_energy) for name, directions in knowledge.items()}
    return {
        name: contrasting(directions, forms[name], stage.input_energy)
        for name, directions in knowledge.items()
    }


def _without_experts(config: RunConfig) -> RunConfig:
    return replace(config, adapters=replace(config.adapters, experts=0))


def _branch_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if ".branches." in name)


def _repeated(rows: TokenRows, times: float, seed: int) -> TokenRows:
    whole, rest = int(times), times - int(times)
    parts = [rows] * whole + ([rows.some(rest, seed)] if rest else [])
    return TokenRows(torch.cat([part.ids for part in parts]), torch.cat([part.labels for part in parts]))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights [o, i] of all adapted linears with what their unrouted branches add."""
    merged = {}
    for name, linear in adapted_layers(model).items():
        merged[name] = linear.weight.detach().clone()
        for branch in linear.branches:
            merged[name] += linear.branch(branch).delta().detach()
    return merged


@contextmanager
def _between(model: nn.Module, start: Mapping[str, Tensor], share: float) -> Iterator[None]:
    """Within the block, the weights are this share of the way from `start` to where they are now."""
    end, linears = _weights(model), adapted_layers(model)
    own = {name: linear.weight.detach().clone() for name, linear in linears.items()}
    with torch.no_grad():
        for name, linear in linears.items():
            linear.weight.copy_(torch.lerp(start[name], end[name], share))
            linear.disabled = frozenset(linear.branches)
        yield
        for name, linear in linears.items():
            linear.weight.copy_(own[name])
            linear.disabled = frozenset()


def _size(parameters: Mapping[str, nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters.values())


def _stage_1_key(config: RunConfig, sizes: SmallWorldConfig) -> str:
    """Identifies what a stage 1 depends on."""
    given = asdict(sizes)
    for name in ("method", "distill", "stage_2", "stage_2_steps", "stage_2_forms"):
        given.pop(name)
    tree = config.to_dict()
    if sizes.method != "medcare":
        tree["adapters"]["experts"] = 0
    facts = [config.seed, tree["adapters"], tree["aggregate"], given]
    return json_hash(facts)[:16]
