"""Every write of a run fails once: a sentence each time, nothing half, and the same result in the end."""

from __future__ import annotations

import json
from pathlib import Path

from medcare.foundation.errors import StorageError
from medcare.foundation.locks import _UNFINISHED
from medcare.pipeline import run_pipeline
from medcare.settings.config import RunConfig
from medcare.settings.files import load_config
from tests.full_disk import FullDisk, filled
from tests.test_damaged_folders import SETTINGS


def small_run(here: Path, base: Path) -> RunConfig:
    """The settings of a run of seconds on a few rows, whose files lie in `here`."""
    talk = {"messages": [{"role": "user", "content": "Fever?"}, {"role": "assistant", "content": "R50"}]}
    (here / "talks.jsonl").write_text((json.dumps(talk) + "\n") * 3)
    question = {"question": "Which?", "opa": "A", "opb": "B", "opc": "C", "opd": "D", "cop": 0}
    rows = [json.dumps({**question, "id": f"q{number}"}) for number in range(2)]
    (here / "exam.jsonl").write_text("\n".join(rows) + "\n")
    named = [f"{stage}.data={here / 'talks.jsonl'}" for stage in ("aggregate", "align")]
    return load_config(
        settings=[*SETTINGS, *named, f"evaluation.items={here / 'exam.jsonl'}", f"model.base={base}"]
    )


def run_on_a_full_disk(config: RunConfig, out: Path, *, every: int) -> FullDisk:
    """Call a run until it comes through, on a disk that is full at each so manieth new file."""
    disk = FullDisk(out, every=every)
    while True:
        former, told = len(disk.failed), "No space left"
        try:
            with filled(disk):
                run_pipeline(config, out)
        except StorageError as error:
            told = str(error)
        assert "No space left" in told, disk.failed[-1]
        litter = [path for path in out.rglob("*") if _UNFINISHED.fullmatch(path.name)]
        assert not litter, (disk.failed[-1], litter)
        if len(disk.failed) == former:
            return disk


def test_every_write_may_fail(tiny_base: Path, tmp_path: Path) -> None:
    config = small_run(tmp_path, tiny_base)
    run_pipeline(config, tmp_path / "whole")
    disk = run_on_a_full_disk(config, tmp_path / "run", every=20)
    assert len(disk.failed) > 2
    for name in ("results.json", "model/model.safetensors", "align/alignment/adapter_model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
