"""What a stage folder came from: the folders before it, as manifests tell them.

`--from` has two meanings. Stage 2 takes a stage 1 over; a stage that starts from a folder of its own kind
goes on training the branches that are there, on the same data or on other data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medcare.settings.config import Stage
from medcare.settings.run_folder import read_manifest

_KEPT = ("stage", "data", "seed", "from", "from_sha256", "result")


def goes_on(stage: Stage, start: Path | None) -> bool:
    """Whether a stage that starts from this folder goes on with it; raises as `read_manifest`."""
    return start is not None and read_manifest(start).get("stage") == stage


def lineage(start: Path | None) -> list[dict[str, Any]]:
    """The stages behind a folder's model, the folder's own last: what each was trained on, and how far."""
    if start is None:
        return []
    manifest = read_manifest(start)
    own = {"folder": start.name, **{key: manifest[key] for key in _KEPT if key in manifest}}
    return [*manifest.get("lineage", []), own]


def steps_before(stage: Stage, start: Path | None) -> int:
    """The steps of this stage in all folders before it."""
    return sum(
        manifest.get("result", {}).get("steps", 0)
        for manifest in lineage(start)
        if manifest["stage"] == stage
    )
