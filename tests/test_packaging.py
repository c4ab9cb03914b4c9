"""What is installed: pinned files with hashes, and a wheel that holds the whole package."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = [sys.executable, "-m", "hatchling", "build"]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    found = [re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!-]+)", line) for line in lines]
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def test_every_pin_has_hashes():
    assert pins("requirements.txt") == pins("requirements.in"), "run: make lock"
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.txt").read_text().strip())
    assert len(entries) == len(pins("requirements.in"))
    assert not [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)]


def test_what_the_package_needs_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    names = [
        *project["dependencies"],
        *(name for extra in optional if extra != "zero" for name in optional[extra]),
    ]
    names = [re.split(r"[<>=\[ ]", name)[0].lower().replace("_", "-") for name in names]
    names.remove("torch")  # its build depends on the machine: see the Makefile
    assert not [name for name in names if name not in pins("requirements.in")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    subprocess.run([*BUILD, "-d", out], cwd=ROOT, check=True, capture_output=True)
    return out


def contents(folder: Path) -> dict[str, int]:
    """The checksum of each file in a folder's wheel."""
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return {info.filename: info.CRC for info in wheel.infolist()}


def test_the_wheel_holds_every_file_of_the_package(built: Path):
    here = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "medcare").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in contents(built) if ".dist-info/" not in name} == here


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(tmp_path.iterdir())
    assert (source / "requirements.txt").is_file()
    assert (source / "tests" / "test_packaging.py").is_file()
    out = tmp_path / "again"
    build = [*BUILD, "-t", "wheel", "-d", out]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    with (
        zipfile.ZipFile(next(built.glob("*.whl"))) as first,
        zipfile.ZipFile(next(out.glob("*.whl"))) as second,
    ):
        assert {info.filename: info.CRC for info in first.infolist()} == {
            info.filename: info.CRC for info in second.infolist()
        }


def test_the_installed_wheel_runs(built: Path, tmp_path: Path):
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        tmp_path / "site",
    ]
    subprocess.run([*install, next(built.glob("*.whl"))], check=True, capture_output=True)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import medcare; print(medcare.__file__)\n"
        "import medcare.cli; from medcare.settings.files import load_config\n"
        "print(load_config(preset='paper'))"
    )
    run = [sys.executable, "-I", "-c", program, tmp_path / "site"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))
    assert "RunConfig(" in done.stdout
