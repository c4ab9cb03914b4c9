"""Whether a folder may be continued."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from medcare.config import EvaluationConfig, RunConfig, TrackingConfig
from medcare.errors import FolderError
from medcare.folders import CONFIG, claim

WORK = {"stage": "run"}


def test_a_run_is_continued_with_its_own_settings_only(tmp_path: Path) -> None:
    assert not claim(tmp_path / "run", RunConfig(), WORK)
    assert not claim(tmp_path / "run", RunConfig(), WORK)
    with pytest.raises(FolderError, match=r"differs in evaluation\.shots, seed"):
        claim(tmp_path / "run", RunConfig(seed=3, evaluation=EvaluationConfig(shots=1)), WORK)


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
    config = RunConfig()
    with pytest.raises(FolderError, match=r"evaluation\.shots"):
        claim(tmp_path, replace(config, evaluation=replace(config.evaluation, shots=2)), WORK)
