"""What the Runs view shows of a run folder: what it is, how far it has come, and its scores."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from medcare.evaluation.evaluation_folder import ITEMS, PREDICTIONS, model_names
from medcare.evaluation.results import RESULTS
from medcare.export.card import ShownRow
from medcare.foundation.contents import MANIFEST, METRICS
from medcare.foundation.errors import DataError, MedCareError
from medcare.foundation.locks import LOCK
from medcare.foundation.outside import Outside, read_as, read_object
from medcare.foundation.storage import Json, file_hash
from medcare.page.folders import is_inside, is_text
from medcare.page.progress import StageProgress
from medcare.page.tail import Tail
from medcare.reports import REPORT
from medcare.reports.overview import base_name, tested_model
from medcare.reports.wording import FAMILIES, model_name, visible
from medcare.settings.config import STAGES, RunConfig
from medcare.settings.files import read_yaml
from medcare.settings.run_folder import CONFIG

MARKS = (CONFIG, REPORT, METRICS)
"""A folder with one of these files is a run."""
_KINDS = {"aggregate": "Stage 1", "align": "Stage 2", "evaluation": "Test", "predictions": "Answers"}
_QUIET = 180.0  # seconds without a new line after which a run is said to have stopped
_LEFT = 30.0  # the same where the command has released its lock
_ROWS_LATE = 5  # or after so many times what the last row took, where that is longer
_MOST_FILES = 2000


class ListedResults(Outside):
    """results.json, as far as the list of runs shows it."""

    models: list[str] = Field(min_length=1)
    baselines: list[str] = Field([])
    summary: dict[str, dict[str, ShownRow]]


class WatchedFolder:
    """A run folder that the page looks at again and again.

    Args:
        name: the page's name for it.
        folder: the folder.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self._stages: dict[Path, StageProgress] = {}
        self._answers: dict[Path, Tail] = {}
        self._facts: Json = {}
        self._facts_of: tuple[object, int] = (None, 0)

    def look(self, now: float) -> Json:
        """The folder as it is.

        Args:
            now: seconds since 1970.

        Returns:
            `name`, `title`, `base`, `begun` and `changed` (seconds since 1970), `state` (`running`, `stopped`
            or `finished`), `phase`, `report`, `models` (whose answers are here) and `items` (a hash of the
            items that they answer), `scores`, `notes`; and `live`, the progress of a stage in training.
        """
        facts = self._facts_now()
        # Of a finished run nothing changes any more: there may be hundreds of them.
        files = (self.folder / REPORT, self.folder / MANIFEST) if facts["finished"] else self._files()
        changed = max((_changed(path) for path in files), default=0.0)
        view = {"name": self.name, "changed": changed, "phase": "", "live": None, **facts}
        if view["finished"]:
            return {**view, "state": "finished"}
        stage, test = self._newest(self._trained()), self._newest(self._tested())
        late = 0.0
        if stage is not None and (test is None or _changed(stage) >= _changed(test)):
            progress = self._stages.setdefault(stage.parent, StageProgress(stage.parent))
            view["live"], view["phase"] = progress.look(), self._stage_title(stage.parent)
            late = _ROWS_LATE * progress.row_seconds
        elif test is not None:
            view["phase"] = self._test_title(test)
        quiet = max(_QUIET, late) if (self.folder / LOCK).exists() else _LEFT
        return {**view, "state": "running" if now - changed <= quiet else "stopped"}

    def _files(self) -> Iterator[Path]:
        """The files that a command writes while it works."""
        folders = [self.folder, *(path.parent for path in (*self._trained(), *self._tested()))]
        files = (path for folder in {*folders, self.folder / "data"} for path in _within(folder))
        return itertools.islice(files, _MOST_FILES)

    def _trained(self) -> list[Path]:
        """The metrics of the folder itself or of the stages in it, and of its baselines."""
        stages = [self.folder / stage for stage in STAGES]
        baselines = [path for path in self.folder.glob("baselines/*") if is_text(path.name)]
        stages += [baseline / stage for baseline in baselines for stage in STAGES]
        return [path / METRICS for path in (self.folder, *stages) if is_inside(path / METRICS, self.folder)]

    def _tested(self) -> list[Path]:
        """Each model's predictions, finished or under way."""
        files = self.folder.glob("evaluation/*/predictions*.jsonl")
        return [path for path in files if is_text(path.parent.name) and is_inside(path, self.folder)]

    @staticmethod
    def _newest(files: list[Path]) -> Path | None:
        return max(files, key=_changed, default=None)

    def _stage_title(self, stage: Path) -> str:
        if stage == self.folder:
            return str(self._facts["title"])
        baseline = model_name(stage.parent.name) if stage.parent != self.folder else ""
        return ", ".join(filter(None, (baseline, model_name(stage.name))))

    def _test_title(self, answers: Path) -> str:
        """Which model is tested, and how many of the items it has answered."""
        items = self.folder / ITEMS
        counts = []
        for path in (answers, items):
            tail = self._answers.setdefault(path, Tail(path, lambda _: {}))
            counts.append(len(tail.read()) if is_inside(path, self.folder) else 0)
        return f"Test of {model_name(answers.parent.name)}, {counts[0]:,} of {counts[1]:,} answers"

    def _facts_now(self) -> Json:
        """What changes with a few files only, read when one of them does.

        Of a finished run that is these four; in others a model may be tested meanwhile.
        """
        paths = [self.folder / name for name in (CONFIG, RESULTS, MANIFEST, REPORT)]
        files = [(_changed(path), is_inside(path, self.folder)) for path in paths]
        known, tested = self._facts_of
        if known != files or not self._facts["finished"]:
            tested = sum(path.name == PREDICTIONS for path in self._tested())
        if self._facts_of != (files, tested):
            self._facts, self._facts_of = self._read(*(inside for _, inside in files)), (files, tested)
        return self._facts

    def _read(self, configured: bool, scored: bool, finished: bool, reported: bool) -> Json:
        notes: list[str] = []
        config: dict[str, Any] = RunConfig().to_dict()
        if configured:
            try:
                config |= read_yaml(self.folder / CONFIG)
            except MedCareError:
                notes.append(f"{CONFIG} can't be read.")
        kind = str(config.get("stage", "run"))
        scores: Json = {}
        if scored:
            try:
                scores = _scores(read_as(self.folder / RESULTS, ListedResults, DataError, most_bytes=1 << 26))
            except DataError:
                notes.append(f"{RESULTS} can't be read.")
        return {
            "title": _title(kind, config),
            "base": self._base(config, finished=finished),
            "begun": _changed(self.folder / CONFIG) or _changed(self.folder / REPORT),
            "report": reported,
            "finished": reported or (finished and kind != "run"),
            **self._comparable(),
            "scores": scores,
            "notes": notes,
        }

    def _base(self, config: Json, *, finished: bool) -> str:
        """The name of the tested or trained model, without its path."""
        try:
            manifest = read_object(self.folder / MANIFEST, DataError) if finished else {}
            name = str(config.get("tested") or tested_model(config, manifest))
        except (MedCareError, KeyError, TypeError):
            return ""
        return visible(base_name(name), 80)

    def _comparable(self) -> Json:
        """The models whose answers are here, and a hash of what they answer."""
        items = self.folder / ITEMS
        inside = {path.parent.name for path in self._tested() if path.name == PREDICTIONS}
        if not inside or not is_inside(items, self.folder):
            return {"models": [], "items": ""}
        names = [name for name in model_names(self.folder) if name in inside]
        models = [{"name": name, "title": model_name(name)} for name in names]
        return {"models": models, "items": file_hash(items)[:12]}


def _title(kind: str, config: Json) -> str:
    if kind in _KINDS:
        return _KINDS[kind]
    method = config.get("method")
    return "Stages 1 and 2" if method in (None, RunConfig.method) else model_name(str(method))


def _scores(results: ListedResults) -> Json:
    """The last model's mean of each family, and `before`, the base's."""
    own = [model for model in results.models if model not in results.baselines] or results.models
    families: Json = {}
    for family in FAMILIES:
        whole = results.summary.get(family, {}).get("all")
        scores = whole.scores if whole else {}
        if own[-1] in scores:
            before = scores.get("base") if own[-1] != "base" else None
            families[family] = {**scores[own[-1]].model_dump(), "before": before.value if before else None}
    return families


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _within(folder: Path) -> list[Path]:
    try:
        return list(itertools.islice(folder.iterdir(), _MOST_FILES))
    except OSError:
        return []
