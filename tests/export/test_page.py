"""Every command that docs/export.md shows is run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from medcare.cli import app
from tests.export.stage_folders import stage_folders
from tests.export.test_conversion import stage_one, stage_two
from tests.export.test_push import front
from tests.test_readme import SMALL

TEXT = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


def test_every_command_runs(tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage_folders(tiny_base, tmp_path / "runs" / "demo")
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "base").symlink_to(tiny_base)
    stage_one(tmp_path / "theirs" / "stage1", model)
    stage_two(tmp_path / "theirs" / "stage2", model, pickled=True)
    config = LoraConfig(target_modules=["up_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(tmp_path / "theirs" / "lora")
    talk = {"messages": [{"role": "user", "content": "Fever?"}, {"role": "assistant", "content": "R50"}]}
    (tmp_path / "forms.jsonl").write_text(json.dumps(talk) + "\n")
    lines = re.findall(r"^medcare (.*)$", TEXT, flags=re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        arguments = shlex.split(line)
        if arguments[0] == "train":
            arguments += [w for s in (*SMALL, f"model.base={tiny_base}") for w in ("--set", s)]
        if arguments[0] == "push":  # the base is a folder of this machine here, and no hub model
            front(tmp_path / arguments[1], base_model="owner/base", license="apache-2.0")
            card = tmp_path / arguments[1] / "README.md"
            card.write_text(card.read_text().replace(str(tiny_base), "owner/base"))
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception}"
        if arguments[0] == "push":
            assert "Nothing was sent" in done.output
        else:
            assert (tmp_path / arguments[arguments.index("--out") + 1] / "manifest.json").is_file()
