"""The Runs view: all runs in a folder, and a stream of events whenever one of them changes."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from medcare.foundation.storage import Json
from medcare.page.folders import RunFolders
from medcare.page.watched import MARKS, WatchedFolder
from medcare.serving.failures import ApiError
from medcare.serving.service import Service

_EVERY = 1.0  # seconds between two looks
_FRESH = 0.5  # seconds for which one look serves everyone who watches
_SILENCE = 15.0  # seconds after which a comment keeps the connection alive
_MOST_WATCHERS = 64
log = logging.getLogger(__name__)


class RunBoard:
    """All runs of a folder. Several threads may look at once; one of them reads for all."""

    def __init__(self, folders: RunFolders) -> None:
        """Prepare; nothing is read yet."""
        self._folders = folders
        self._watched: dict[tuple[str, str], WatchedFolder] = {}
        self._lock = threading.Lock()
        self._seen: tuple[float, list[Json]] = (-_FRESH, [])

    def look(self) -> list[Json]:
        """The runs as `WatchedFolder.look` returns them: those under way first, the last changed on top."""
        with self._lock:
            looked, runs = self._seen
            if time.monotonic() - looked >= _FRESH:
                runs = self._look()
                self._seen = (time.monotonic(), runs)
            return runs

    def _look(self) -> list[Json]:
        there = {(name, str(path)): path for name, path in self._folders.holding(*MARKS).items()}
        self._watched = {
            key: self._watched.get(key) or WatchedFolder(key[0], path) for key, path in there.items()
        }
        runs = [_seen(folder) for folder in self._watched.values()]
        return sorted(runs, key=lambda run: (run["state"] != "running", -run["changed"]))


def _seen(folder: WatchedFolder) -> Json:
    try:
        return folder.look(time.time())
    except Exception:  # whatever lies in one folder, the others are shown
        log.exception("The run '%s' can't be shown.", folder.name)
        empty: Json = {
            "title": "", "base": "", "begun": 0.0, "changed": 0.0, "phase": "", "report": False, "models": [],
            "items": "", "scores": {}, "live": None, "finished": False, "state": "stopped",
        }  # fmt: skip
        return {"name": folder.name, **empty, "notes": ["It can't be read; the server's log says why."]}


def add_board(routes: APIRouter, service: Service, folders: RunFolders) -> None:
    """Add the routes of the Runs view."""
    board = RunBoard(folders)
    watchers = 0

    @routes.get("/api/runs")
    def runs() -> list[Json]:
        return board.look()

    @routes.get("/api/runs/events", response_class=StreamingResponse)
    async def events() -> StreamingResponse:
        if watchers >= _MOST_WATCHERS:
            raise ApiError(429, "Too many pages watch the runs at once. Close some.", retry_after=10)

        async def counted() -> AsyncIterator[bytes]:
            nonlocal watchers
            watchers += 1
            try:
                async for event in _events(board, service):
                    yield event
            finally:
                watchers -= 1

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(counted(), media_type="text/event-stream", headers=headers)


async def _events(board: RunBoard, service: Service) -> AsyncIterator[bytes]:
    """All runs, whenever one has changed, until the server stops.

    Each event holds everything: a page that missed some is right again with the next.
    """
    sent, silent_since = "", time.monotonic()
    while service.healthy:
        runs = await run_in_threadpool(board.look)
        now = json.dumps(runs, ensure_ascii=False, separators=(",", ":"))
        if now != sent:
            sent, silent_since = now, time.monotonic()
            # Seconds ago rather than a time of day: the clocks of server and browser may differ.
            ages = {run["name"]: round(time.time() - run["changed"], 1) for run in runs}
            yield format_sse_event(data_str=f'{{"runs":{now},"ages":{json.dumps(ages)}}}')
        elif time.monotonic() - silent_since > _SILENCE:
            silent_since = time.monotonic()
            yield b": nothing new\n\n"
        await asyncio.sleep(_EVERY)
