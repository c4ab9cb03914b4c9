"""The Compare view: models whose answers are in the folder of runs, as `medcare evaluate --compare` does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool

from medcare.evaluation.comparison import compare_all
from medcare.evaluation.evaluation_folder import CARDS, ITEMS, PREDICTIONS
from medcare.foundation.errors import MedCareError
from medcare.foundation.storage import Json
from medcare.page.folders import RunFolders, is_inside
from medcare.page.paths import last_part, without_paths
from medcare.page.watched import MARKS
from medcare.reports.comparison import (
    comparison_csv,
    comparison_html,
    comparison_markdown,
    comparison_table,
)
from medcare.serving.access import SHUT_IN
from medcare.serving.failures import ApiError

_MOST_KEPT = 4
Form = Literal["html", "md", "csv"]
_FORMS: dict[Form, tuple[str, Callable[[Json], str]]] = {
    "html": ("text/html", comparison_html),
    "md": ("text/markdown", comparison_markdown),
    "csv": ("text/csv", comparison_csv),
}
Sides = Annotated[
    list[str], Query(alias="side", min_length=2, max_length=6, description="As RUN/MODEL; the first is A.")
]


class Comparisons:
    """Comparisons of models in the folders; one is computed at a time, and the last four are kept."""

    def __init__(self, folders: RunFolders) -> None:
        """Prepare; nothing is read yet."""
        self._folders = folders
        self._turn = asyncio.Lock()
        self._kept: dict[tuple[Any, ...], list[Json]] = {}

    async def of(self, sides: Sequence[str]) -> list[Json]:
        """The first of some sides with each of the others; see `compare_all`.

        Args:
            sides: each as `RUN/MODEL`.

        Returns:
            As of `compare`, without paths of this machine.

        Raises:
            ApiError: there are no such answers, or they can't be compared.
        """
        async with self._turn:
            return await run_in_threadpool(self._of, sides)

    def _of(self, sides: Sequence[str]) -> list[Json]:
        if len(set(sides)) < len(sides):
            raise ApiError(400, "A model is named twice. Choose each once.", param="side")
        answers = [self._answers(side) for side in sides]
        root = self._folders.root
        try:
            files = [path for folder, model in answers for path in _read(folder, model)]
            key = (*sides, *(path.stat().st_mtime_ns for path in files))
            if key not in self._kept:
                names = [f"{folder}:{model}" for folder, model in answers]
                self._kept[key] = [_public(pair, root) for pair in compare_all(names[0], names[1:])]
                for old in list(self._kept)[:-_MOST_KEPT]:
                    del self._kept[old]
        except (MedCareError, OSError) as error:  # OSError: a run that is deleted meanwhile
            raise ApiError(400, without_paths(str(error), root)) from error
        return self._kept[key]

    def _answers(self, side: str) -> tuple[Path, str]:
        run, _, model = side.partition("/")
        folder = self._folders.named(run, *MARKS)
        there = {path.name for path in (folder / "evaluation").glob("*")}
        if model not in there or not all(is_inside(path, folder) for path in _read(folder, model)):
            raise ApiError(404, f"The run '{run}' holds no answers of '{model}'.", param="side")
        return folder, model


def _read(folder: Path, model: str) -> list[Path]:
    """The files that a comparison depends on."""
    return [folder / "evaluation" / model / PREDICTIONS, folder / ITEMS, folder / CARDS]


def _public(comparison: Json, root: Path | None) -> Json:
    """A comparison without paths of this machine."""
    warnings = [str(warning) for warning in comparison["warnings"]]
    settings = []
    for row in comparison["settings"]:
        shown = {side: last_part(row[side]) for side in ("a", "b")}
        for side in ("a", "b"):
            warnings = [warning.replace(row[side], shown[side]) for warning in warnings if row[side]]
        settings.append({**row, **shown})
    public: Json = without_paths({**comparison, "settings": settings, "warnings": warnings}, root)
    return public


def add_comparisons(routes: APIRouter, folders: RunFolders) -> None:
    """Add the routes of the Compare view."""
    comparisons = Comparisons(folders)

    @routes.get("/api/comparison")
    async def comparison(sides: Sides) -> list[Json]:
        return [_table(comparison) for comparison in await comparisons.of(sides)]

    @routes.get("/api/comparison/{pair}/{form}")
    async def whole(sides: Sides, pair: int, form: Form) -> Response:
        trees = await comparisons.of(sides)
        if not 0 <= pair < len(trees):
            raise ApiError(404, f"There is no pair {pair}; they count from 0 to {len(trees) - 1}.")
        kind, write = _FORMS[form]
        text = await run_in_threadpool(write, trees[pair])
        headers = {"Content-Security-Policy": SHUT_IN}
        if form != "html":
            headers["Content-Disposition"] = f'attachment; filename="comparison.{form}"'
        return Response(text, media_type=kind, headers=headers)


def _table(comparison: Json) -> Json:
    """A comparison as the page shows it."""
    sentences, columns, rows = comparison_table(comparison)
    return {
        "a": comparison["a"]["name"],
        "b": comparison["b"]["name"],
        "items": comparison["items"]["n"],
        "sentences": sentences,
        "columns": columns,
        "rows": rows,
        "warnings": comparison["warnings"],
    }
