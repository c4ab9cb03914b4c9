"""Containerfile and deployment/: what can be known of them without building or submitting anything."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from medcare.cli import app
from tests.test_packaging import pins

ROOT = Path(__file__).parents[1]
SLURM = ROOT / "deployment" / "slurm.sh"
SKYPILOT = ROOT / "deployment" / "skypilot.yaml"


def instructions() -> list[tuple[str, str]]:
    """Of the Containerfile, each with its arguments, lines joined."""
    lines = [line for line in (ROOT / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    found = (line.partition(" ") for line in "\n".join(lines).replace("\\\n", "").splitlines() if line)
    return [(name, arguments.strip()) for name, _, arguments in found]


def of(kind: str) -> list[str]:
    return [arguments for name, arguments in instructions() if name == kind]


def test_the_image_is_pinned_and_runs_without_root():
    (base,) = re.findall(r"PYTHON=(\S+)", " ".join(of("ARG")))
    assert re.fullmatch(r"docker\.io/library/python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert of("FROM") == ["${PYTHON} AS build", "${PYTHON}"]
    assert of("USER") == ["1000:1000"]
    last = max(place for place, (name, _) in enumerate(instructions()) if name == "RUN")
    assert instructions().index(("USER", "1000:1000")) > last
    installs = [part for run in of("RUN") for part in run.split(";;") if "pip install" in part]
    hashed = [part for part in installs if "--require-hashes" in part]
    assert len(hashed) == 2
    assert all("--no-deps" in part for part in installs)


def test_what_the_image_copies_is_there_and_nothing_else_is_sent_to_the_build():
    copied = {
        word for arguments in of("COPY") if "--from" not in arguments for word in arguments.split()[:-1]
    }
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_health_check_is_a_program(monkeypatch):
    (check,) = of("HEALTHCHECK")
    python, option, program = json.loads(check[check.index("[") :])
    assert (python, option) == ("python", "-c")
    monkeypatch.setattr("urllib.request.urlopen", pytest.fail)
    for words in (["medcare", "run"], ["tini", "--", "medcare", "train", "--out", "serve.d"]):
        line = b"\0".join(word.encode() for word in words) + b"\0"
        monkeypatch.setattr(Path, "read_bytes", lambda _, line=line: line)
        exec(compile(program, "HEALTHCHECK", "exec"), {})
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"python\0medcare\0serve\0runs/demo\0")
    asked = []
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: asked.append(url))
    exec(compile(program, "HEALTHCHECK", "exec"), {})
    assert asked == ["http://127.0.0.1:8000/health"]


def test_torch_is_the_same_everywhere():
    makefile = re.search(r"^TORCH := torch==(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    gpu = pins("requirements-cuda.txt")
    assert makefile
    assert gpu["torch"] == makefile[1]
    assert f"torch=={makefile[1]} ;;" in " ".join(of("RUN"))
    both = gpu.keys() & pins("requirements.txt").keys()
    assert {name: gpu[name] for name in both} == {name: pins("requirements.txt")[name] for name in both}
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements-cuda.txt").read_text().strip())
    assert not [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)]


def commands(text: str) -> list[list[str]]:
    """The words of `medcare train` as scripts call it, without what the shell fills in."""
    lines = re.findall(r"^ *train (--stage .*)$", text, re.MULTILINE)
    return [[word for word in shlex.split(line) if "$" not in word] for line in lines]


def test_the_slurm_script_is_bash_and_asks_for_what_slurm_has():
    subprocess.run(["bash", "-n", SLURM], check=True)
    text = SLURM.read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert len(asked) == text.count("#SBATCH")
    known = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "requeue"}
    assert asked.keys() == known | {"signal", "open-mode", "output"}
    assert asked["ntasks-per-node"] == "1"  # one launcher a node
    assert asked["signal"].startswith("B:USR1@")
    assert "USR1" in re.findall(r"^trap .* (\w+)$", text, re.MULTILINE)
    assert text.index("#SBATCH") < text.index("set -uo")  # directives end at the first command


def test_the_slurm_script_ends_goes_on_and_fails_as_its_runs_do(tmp_path):
    """Slurm's commands, played: two nodes, a run that is told to stop, and one that fails."""
    played = {
        "scontrol": 'echo "$@" >> calls; [ "$1" = show ] && printf "n1\\nn2\\n"; true',
        "scancel": 'echo scancel "$@" >> calls; touch stop',
        "srun": 'SLURM_NODEID=1 exec "$@"',
        "accelerate": 'echo "$@" >> calls; [ -z "$SLOW" ] || until_told; exit ${CODE:-0}',
        "until_told": 'kill -USR1 "$BATCH"; until [ -e stop ]; do sleep 0.1; done',
    }
    for name, body in played.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    given = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_JOB_ID": "7",
        "SLOW": "",
    }

    def submit(**more: str) -> tuple[int, list[str]]:
        (tmp_path / "calls").unlink(missing_ok=True)
        script = f"BATCH=$$ exec bash {SLURM}"
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=given | more, timeout=30, check=False)
        return done.returncode, (tmp_path / "calls").read_text().splitlines()

    code, calls = submit()
    assert code == 0
    assert [call.partition("-m medcare ")[2] for call in calls[1:]] == [
        "train configs/14b.yaml --stage aggregate --out runs/14b/aggregate",
        "train configs/14b.yaml --stage align --from runs/14b/aggregate --out runs/14b/align",
    ]
    assert "--machine_rank 1" in calls[1]
    assert "--num_machines 2 --num_processes 16 --main_process_ip n1" in calls[1]
    code, calls = submit(SLOW="yes", CODE="130")
    assert code == 0
    assert calls[2:] == ["scancel --signal=TERM 7", "requeue 7"]
    code, calls = submit(CODE="2")
    assert code == 2
    assert len(calls) == 2


def test_the_skypilot_task_has_known_fields_and_runs_what_there_is():
    task = yaml.safe_load(SKYPILOT.read_text())
    assert task.keys() == {"name", "resources", "workdir", "envs", "file_mounts", "setup", "run"}
    assert task["resources"].keys() == {"accelerators", "use_spot", "disk_size", "job_recovery"}
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True)
    for name in re.findall(r"-r (\S+)", task["setup"]):
        assert (ROOT / name).is_file()
    for name in ("SETTINGS", "LAUNCHER"):
        assert (ROOT / task["envs"][name]).is_file()


@pytest.mark.parametrize("path", [SLURM, SKYPILOT], ids=lambda path: path.name)
def test_both_train_both_stages_with_options_that_exist(path):
    train = get_command(app).commands["train"]  # type: ignore[attr-defined]
    known = {option for parameter in train.params for option in parameter.opts}
    found = commands(path.read_text())
    assert [words[words.index("--stage") + 1] for words in found] == ["aggregate", "align"]
    assert {word for words in found for word in words if word.startswith("--")} <= known
