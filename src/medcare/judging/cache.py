"""Verdicts on disk: each is written when it is there, and never asked for again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from medcare.foundation.errors import DataError
from medcare.foundation.outside import Count, Outside, held_to
from medcare.foundation.storage import append_jsonl, read_jsonl, write_jsonl
from medcare.judging.verdict import Scores, Verdict


class VerdictRow(Outside):
    """A verdict as it is kept."""

    model_config = ConfigDict(extra="forbid")

    key: str
    scores: Scores | None
    reason: str = ""
    replies: list[str]
    tokens_in: Count = 0
    tokens_out: Count = 0
    form: str = ""


def request_key(model: str, rubric: str, prompt: str, repeat: int) -> str:
    """What tells requests apart: the judge, the rubric's version, the message, the number of the repeat."""
    parts = json.dumps([model, rubric, prompt, repeat], ensure_ascii=False)
    return hashlib.sha256(parts.encode()).hexdigest()


class Cache:
    """Verdicts in an append-only JSONL file, by key."""

    def __init__(self, path: Path) -> None:
        """Read the file if it is there; a line that a killed process left half written is dropped.

        Raises:
            DataError: the file holds something else.
        """
        self._path = path
        self._found: dict[str, Verdict] = {}
        if not path.exists():
            return
        rows = list(read_jsonl(path, torn_tail=True))
        if path.read_bytes()[-1:] not in (b"\n", b""):
            write_jsonl(path, rows)
        for row in rows:
            verdict = self._verdict(row)
            self._found[verdict.key] = verdict

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Verdict:
        return self._found[key]

    def add(self, verdict: Verdict) -> None:
        """Keep a verdict; raises StorageError if it can't be written."""
        append_jsonl(self._path, asdict(verdict))
        self._found[verdict.key] = verdict

    def _verdict(self, row: dict[str, Any]) -> Verdict:
        try:
            found = held_to(row, VerdictRow, str(self._path), DataError)
        except DataError as error:
            raise DataError(
                f"{self._path} should hold verdicts of a judge and holds something else. Move it away, or "
                "choose another --out."
            ) from error
        return Verdict(**{**found.model_dump(), "replies": tuple(found.replies)})
