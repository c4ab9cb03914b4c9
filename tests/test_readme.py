"""Every command that the README shows is run, on a tiny model in the place of the one it names."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.forked import command_line, started

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = (
    "model.device=cpu", "model.dtype=float32", "adapters.rank=2", "evaluation.max_new_tokens=2",
    "benchmark.facts_per_task=1", "benchmark.items_per_task=1", "benchmark.align_per_task=4",
    "benchmark.aggregate_forms=1", "benchmark.tasks=[disease_to_gene, code_to_chapter, note_sections]",
)  # fmt: skip


def in_one_process(folder: str, typed: list[list[str]]) -> None:
    """Several command lines, one after the other, in a folder."""
    os.chdir(folder)
    for arguments in typed:
        try:
            command_line(*arguments)
        except SystemExit as stop:
            if stop.code:
                sys.exit(f"{arguments}: {stop.code}")


def commands(text: str, language: str = "sh") -> list[str]:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def test_the_make_targets_are_there():
    targets = [line.split()[1] for line in commands(README) if line.startswith("make ")]
    assert targets[:2] == ["demo", "test"]
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_command_runs(tiny_base, tmp_path):
    talk = {"messages": [{"role": "user", "content": "Fever?"}, {"role": "assistant", "content": "R50"}]}
    for name in ("mine.jsonl", "forms.jsonl"):
        (tmp_path / name).write_text(json.dumps(talk) + "\n" + json.dumps(talk).replace("50", "51") + "\n")
    (tmp_path / "exam.csv").write_text(",Question,A,B,C,D,Answer\n0,Which sign?,cough,rash,pain,none,B\n")
    lines = [
        line.removeprefix(".venv/bin/") for line in commands(README) if line.startswith(".venv/bin/medcare")
    ]
    assert len(lines) >= 6
    typed = []
    for line in lines:
        arguments = shlex.split(line.replace("Qwen/Qwen2.5-1.5B-Instruct", str(tiny_base)))[1:]
        if arguments[0] in ("run", "train", "evaluate"):
            for setting in (*SMALL, f"model.base={tiny_base}"):
                arguments += ["--set", setting]
        typed.append(arguments)
    with started(in_one_process, str(tmp_path), typed) as (process, told):
        said = told.read()
        process.join()
        assert process.exitcode == 0, said
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()
    assert (tmp_path / "runs" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "runs" / "one" / "knowledge" / "adapter_config.json").is_file()


def test_the_python_of_the_readme_runs(tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "two").symlink_to(tiny_base)
    blocks = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_pictures_and_pages_that_it_links_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_it_says_what_it_is_not_for():
    assert "not a medical device" in README.lower()
    assert "not for clinical decisions" in README.lower()
