"""Whether a folder may be continued."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from medcare.foundation.errors import FolderError
from medcare.foundation.locks import LOCK
from medcare.settings.config import EvaluationConfig, RunConfig, TrackingConfig
from medcare.settings.run_folder import CONFIG, claim, read_manifest, started_from, write_manifest

WORK = {"stage": "run"}
ANOTHER = """
import sys
from pathlib import Path
from medcare.settings.config import RunConfig
from medcare.foundation.errors import FolderError
from medcare.settings.run_folder import claim
try:
    claim(Path(sys.argv[1]), RunConfig(), {"stage": "run"})
except FolderError as error:
    sys.exit(str(error))
print("claimed", flush=True)
sys.stdin.read()
"""


def another(folder: Path) -> subprocess.Popen[str]:
    """A process that claims the folder and holds it until it is killed."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", ANOTHER, folder], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def test_a_run_is_continued_with_its_own_settings_only(tmp_path: Path) -> None:
    assert not claim(tmp_path / "run", RunConfig(), WORK)
    assert not claim(tmp_path / "run", RunConfig(), WORK)
    (tmp_path / "run" / "metrics.jsonl").touch()
    with pytest.raises(FolderError, match=r"differs in evaluation\.shots, seed"):
        claim(tmp_path / "run", RunConfig(seed=3, evaluation=EvaluationConfig(shots=1)), WORK)


def test_a_folder_in_which_nothing_was_done_is_taken_anew(tmp_path: Path) -> None:
    claim(tmp_path, RunConfig(), WORK)
    for name in ("data/items.jsonl", "data/benchmark.json", "evaluation/base/prompts.json", "phases.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    claim(tmp_path / "aggregate", RunConfig(), {"stage": "aggregate"})
    assert not claim(tmp_path, RunConfig(seed=3), WORK)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, LOCK}
    assert yaml.safe_load((tmp_path / CONFIG).read_text())["seed"] == 3


@pytest.mark.parametrize(
    "name", ["data/mine.jsonl", "notes.txt", "aggregate/metrics.jsonl", "model/a.safetensors"]
)
def test_whatever_else_is_there_is_work(tmp_path: Path, name: str) -> None:
    claim(tmp_path, RunConfig(), WORK)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(FolderError, match="differs in seed"):
        claim(tmp_path, RunConfig(seed=3), WORK)
    assert (tmp_path / name).read_text() == "mine"


def test_what_changes_no_result_may_change(tmp_path: Path) -> None:
    claim(tmp_path, RunConfig(), WORK)
    evaluation = EvaluationConfig(concurrency=1, retries=9, api_key_env="KEY")
    claim(tmp_path, RunConfig(evaluation=evaluation, tracking=TrackingConfig(project="other")), WORK)


def test_settings_that_came_later_have_their_defaults_in_an_older_run(tmp_path: Path) -> None:
    claim(tmp_path, RunConfig(), WORK)
    tree = yaml.safe_load((tmp_path / CONFIG).read_text())
    del tree["evaluation"]["shots"], tree["tracking"]
    (tmp_path / CONFIG).write_text(yaml.safe_dump(tree))
    claim(tmp_path, RunConfig(), WORK)
    (tmp_path / "predictions.jsonl").touch()
    config = RunConfig()
    with pytest.raises(FolderError, match=r"evaluation\.shots"):
        claim(tmp_path, replace(config, evaluation=replace(config.evaluation, shots=2)), WORK)


def test_a_folder_is_one_process_s_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    first = another(tmp_path / "run")
    assert first.stdout.readline() == "claimed\n"
    with pytest.raises(FolderError, match=rf"Another process is writing to .*run \(pid {first.pid}\)"):
        claim(tmp_path / "run", RunConfig(), WORK)
    first.kill()
    first.communicate()
    assert not claim(tmp_path / "run", RunConfig(), WORK)
    assert not claim(tmp_path / "run", RunConfig(), WORK), "again, by the same process"
    claim(tmp_path / "run" / "aggregate", RunConfig(), WORK)
    second = another(tmp_path / "run")
    assert "Another process is writing" in second.communicate()[1]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_lock_is_as_open_as_the_user_s_files(tmp_path: Path, mask: int, mode: int) -> None:
    former = os.umask(mask)
    try:
        claim(tmp_path / "run", RunConfig(), WORK)
    finally:
        os.umask(former)
    assert (tmp_path / "run" / LOCK).stat().st_mode & 0o777 == mode


def test_no_lock_is_left_behind_and_none_keeps_a_folder_from_being_used(tmp_path: Path) -> None:
    first = another(tmp_path)
    assert first.stdout.readline() == "claimed\n"
    assert (tmp_path / LOCK).exists()
    first.communicate("")
    assert [entry.name for entry in tmp_path.iterdir()] == [CONFIG]
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / LOCK).write_text("1")
    assert not claim(tmp_path / "new", RunConfig(), WORK)


def test_what_a_killed_process_was_writing_goes_when_the_folder_is_claimed_again(tmp_path: Path) -> None:
    claim(tmp_path, RunConfig(), WORK)
    (tmp_path / ".lock").unlink()
    (tmp_path / ".model.safetensors.0123abcd.part").write_text("half")
    (tmp_path / ".part-a1b2_c3d").mkdir()
    (tmp_path / ".part-a1b2_c3d" / "model.safetensors").write_text("half")
    for name in (".notes.part", ".part-of-mine", "x.0123abcd.part"):
        (tmp_path / name).write_text("mine")
    assert not claim(tmp_path, RunConfig(), WORK)
    assert {path.name for path in tmp_path.iterdir()} == {
        CONFIG, LOCK, ".notes.part", ".part-of-mine", "x.0123abcd.part"
    }  # fmt: skip


def test_unfinished_files_of_a_process_at_work_stay(tmp_path: Path) -> None:
    first = another(tmp_path)
    assert first.stdout.readline() == "claimed\n"
    (tmp_path / ".model.safetensors.0123abcd.part").write_text("half")
    with pytest.raises(FolderError, match="Another process"):
        claim(tmp_path, RunConfig(), WORK)
    assert (tmp_path / ".model.safetensors.0123abcd.part").exists()
    first.communicate("")


def test_a_refused_folder_is_left_without_a_lock(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FolderError, match="not empty"):
        claim(tmp_path, RunConfig(), WORK)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_only_the_main_process_of_a_job_takes_the_lock(tmp_path: Path, monkeypatch) -> None:
    first = another(tmp_path)
    assert first.stdout.readline() == "claimed\n"
    monkeypatch.setenv("RANK", "1")
    assert not claim(tmp_path, RunConfig(), WORK)
    first.communicate("")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_in_the_file_system_work_goes_on(tmp_path: Path, monkeypatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "not here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert not claim(tmp_path / "run", RunConfig(), WORK)
    assert (tmp_path / "run" / CONFIG).exists()


def test_work_of_another_kind_is_called_by_its_name(tmp_path):
    folder = tmp_path / "run"
    claim(folder, RunConfig(), WORK)
    (folder / "results.json").write_text("{}")
    with pytest.raises(FolderError, match="holds a run, and a test needs a folder of its own: another --out"):
        claim(folder, RunConfig(), {"stage": "evaluation", "tested": "m"})


def stage(folder: Path, **facts: object) -> Path:
    """A finished stage folder without branches."""
    claim(folder, RunConfig(), {"stage": "align"})
    write_manifest(folder, RunConfig(), {"stage": "align", "base": "b", **facts})
    return folder


def test_a_stage_tells_where_it_came_from(tmp_path: Path) -> None:
    first = stage(tmp_path / "first")
    second = stage(tmp_path / "second", **{"from": "../first"})
    assert [folder for folder, _ in started_from(second)] == [second, first]


@pytest.mark.parametrize("names", [("one",), ("one", "two"), ("one", "two", "three")])
def test_a_stage_that_comes_from_itself_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    """Whoever goes back to where it began would never come there."""
    for name, before in zip(names, (*names[1:], names[0]), strict=True):
        stage(tmp_path / name, **{"from": f"../{before}"})
    with pytest.raises(FolderError, match=r"one comes from itself"):
        list(started_from(tmp_path / "one"))


@pytest.mark.parametrize("missing", ["stage", "base"])
def test_a_manifest_without_its_stage_or_base_is_told(missing: str, tmp_path: Path) -> None:
    stage(tmp_path / "stage", **{missing: None})
    with pytest.raises(FolderError, match="names no finished stage and its base"):
        read_manifest(tmp_path / "stage")
