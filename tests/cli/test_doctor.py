from __future__ import annotations

import pytest
from typer.testing import CliRunner

from medcare.cli import app, doctor


def test_it_says_what_there_is():
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    for word in ("processor", "cores", "threads", "device", "cache", "GiB free", "extras", "serve"):
        assert word in done.output


@pytest.mark.parametrize(
    ("load", "free", "said"), [(4.0, 1 << 40, "busy (load 4.0 a core)"), (0.0, 1 << 30, "MEDCARE_CACHE")]
)
def test_it_says_what_would_help(load, free, said):
    import torch

    advice = doctor._advice(torch.device("cpu"), load, free)
    assert any(said in line for line in advice)
    assert not any(said in line for line in doctor._advice(torch.device("cpu"), 0.0, 1 << 40))
