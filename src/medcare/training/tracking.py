"""Sending what the loop logs to experiment trackers, through accelerate's own trackers; off by default.

`metrics.jsonl` is written either way. A run that is continued starts a new run in the tracker, from the step
of its checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcare.foundation.errors import ConfigError
from medcare.settings.config import RunConfig, Stage

if TYPE_CHECKING:
    from accelerate import Accelerator


@contextmanager
def tracked(accelerator: Accelerator, stage: Stage, config: RunConfig, folder: Path) -> Iterator[None]:
    """While inside, `accelerator.log` reaches the trackers of `config.tracking`.

    Args:
        accelerator: the loop's.
        stage: names the run, after the folder.
        config: its settings go to the trackers too.
        folder: the stage folder; TensorBoard's files go to `FOLDER/tensorboard`.

    Raises:
        ConfigError: a tracker's package isn't installed, or it can't start (no login, no server).
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    check_installed(config.tracking.trackers)
    try:
        for name in config.tracking.trackers:
            cls: Any = LOGGER_TYPE_TO_CLASS[name]
            try:
                tracker = cls(**_arguments(name, config.tracking.project, f"{folder.name}-{stage}", folder))
                tracker.start()
                tracker.store_init_configuration(_flat(config.to_dict()))
            except Exception as error:  # each tracker has errors of its own
                raise ConfigError(
                    f"The tracker {name} could not start: {error}. Set it up, or leave it out."
                ) from error
            accelerator.trackers.append(tracker)
        yield
    finally:
        # Not `end_training`: it would end the process group, which the next stage needs.
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers.clear()


def check_installed(trackers: Iterable[str]) -> None:
    """Raise ConfigError if the package of a tracker isn't there."""
    for name in trackers:
        if find_spec(name) is None:
            raise ConfigError(
                f"tracking.trackers names {name}, which is not installed. Install it with: pip install {name}"
            )


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """A row of metrics.jsonl as single numbers: the router loads of all layers become two.

    Returns:
        The row's numbers; validation by source and task, as `validation_losses/SOURCE`; `router_balance`: the
        entropy of the experts' shares over its largest possible value, 1 for equal shares, averaged over
        layers; `router_top_share`: the busiest expert's share, averaged over layers.
    """
    counts = ("step", "steps")
    values = {
        key: value for key, value in row.items() if isinstance(value, int | float) and key not in counts
    }
    for group in ("validation_losses", "validation_scores"):
        values |= {f"{group}/{name}": value for name, value in row.get(group, {}).items()}
    loads = list(row.get("router_load", {}).values())
    if loads and len(loads[0]) > 1:
        values["router_balance"] = sum(_balance(load) for load in loads) / len(loads)
        values["router_top_share"] = sum(max(load) for load in loads) / len(loads)
    return values


def _balance(load: list[float]) -> float:
    return -sum(share * math.log(share) for share in load if share > 0) / math.log(len(load))


def _arguments(name: str, project: str, run: str, folder: Path) -> dict[str, Any]:
    """What accelerate's tracker of that name is made with."""
    if name == "tensorboard":
        return {"run_name": name, "logging_dir": str(folder)}
    if name == "mlflow":
        return {"experiment_name": project, "run_name": run}
    if name == "wandb":
        return {"run_name": project, "name": run, "dir": str(folder)}
    return {"run_name": project, "name": run}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
