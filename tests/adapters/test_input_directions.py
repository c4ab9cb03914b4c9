from __future__ import annotations

import pytest
import torch

from medcare.adapters import input_directions
from medcare.adapters.input_directions import (
    Directions,
    Sketch,
    check_room,
    contrasting,
    leading,
    load_directions,
    save_directions,
    sketching,
)
from medcare.adapters.orthogonality import project
from medcare.adapters.tuner import adapted_layers, add_branches, remove_branch
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig
from tests.conftest import tiny_model

CPU = torch.device("cpu")


def low_rank_inputs(tokens: int, features: int, rank: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = 0.7 ** torch.arange(rank, dtype=torch.float32)
    return (torch.randn(tokens, rank, generator=generator) * sizes) @ torch.randn(
        rank, features, generator=generator
    )


def gathered(x: torch.Tensor, pieces: int = 3) -> Directions:
    sketch = Sketch(x.shape[1], CPU, "layer")
    for part in x.chunk(pieces):
        sketch.add(part)
    return sketch.directions()


def passing(directions, kept_out):
    """The share of the energy that is left without some directions [m, i], orthonormal rows."""
    inside = (directions.basis.double() @ kept_out.double().T).square().sum(1)
    return 1 - float((inside * directions.energy.double()).sum()) / directions.total


@pytest.mark.parametrize("sketched", [False, True])
def test_directions_are_the_second_moments_eigenvectors(sketched, monkeypatch):
    if sketched:
        monkeypatch.setattr(input_directions, "SKETCH", 24)
    x = low_rank_inputs(500, 40, 12)
    found = gathered(x)
    energy, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    torch.testing.assert_close(found.energy[:12].double(), energy.flip(0)[:12], rtol=1e-3, atol=1e-5)
    assert found.total == pytest.approx(float(x.square().sum()) / len(x), rel=1e-5)
    mine, true = found.basis[:3].double(), vectors.flip(1)[:, :3].T
    torch.testing.assert_close(mine.T @ mine, true.T @ true, rtol=0, atol=1e-3)
    identity = found.basis @ found.basis.T
    torch.testing.assert_close(identity, torch.eye(len(identity)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_leading_directions_hold_the_share_and_no_fewer_do(share):
    found = gathered(low_rank_inputs(500, 40, 12))
    kept_out = leading(found, share)
    assert passing(found, kept_out) <= 1 - share + 1e-4
    assert passing(found, kept_out[:-1]) > 1 - share


def test_contrasting_directions_leave_more_to_the_forms():
    # Eight dimensions that both use, and four that knowledge alone does.
    shared, own = torch.eye(20)[:8], torch.eye(20)[8:12]
    draw = torch.Generator().manual_seed(0)
    forms = gathered(torch.randn(2000, 8, generator=draw) @ shared)
    knowledge = gathered(
        torch.randn(2000, 8, generator=draw) @ shared + torch.randn(2000, 4, generator=draw) @ own
    )
    contrast = contrasting(knowledge, forms, 0.3)
    assert passing(knowledge, contrast) == pytest.approx(2 / 3, abs=0.03)
    assert passing(forms, contrast) > 0.98
    plain = leading(knowledge, 0.3)
    assert passing(forms, plain) < 0.9
    torch.testing.assert_close(contrast @ contrast.T, torch.eye(len(contrast)), rtol=0, atol=1e-4)


def test_the_first_token_and_padding_do_not_count_and_gate_and_up_share():
    model = tiny_model("llama")
    add_branches(model, "aggregate", AdapterConfig(rank=2, experts=0))
    ids = torch.randint(3, 90, (2, 8))
    longer = torch.cat([ids, torch.zeros(2, 3, dtype=torch.int64)], dim=1)
    found = []
    for batch in (ids, longer):
        with torch.no_grad(), sketching(model) as gathering:
            gathering.keep = batch != 0
            gathering.keep[:, 0] = False
            model(input_ids=batch)
        found.append(gathering)
    assert len(found[0].sketches) == 4  # two layers: gate with up, and down
    assert set(found[0].same) == set(adapted_layers(model, "knowledge"))
    for name, sketch in found[0].sketches.items():
        torch.testing.assert_close(sketch.product, found[1].sketches[name].product, rtol=1e-4, atol=1e-4)
        assert sketch.sums[1] == 14


def test_views_of_one_input_share_as_it_does_itself():
    """ZeRO-3 hands each linear a view of its own."""
    model = tiny_model("llama")
    add_branches(model, "aggregate", AdapterConfig(rank=2, experts=0))
    layers = adapted_layers(model, "knowledge")
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].view_as(inputs[0]),))
        for layer in layers.values()
    ]
    with torch.no_grad(), sketching(model) as gathering:
        gathering.keep = torch.ones(1, 8, dtype=torch.bool)
        model(input_ids=torch.randint(3, 90, (1, 8)))
    assert len(hooks) == len(gathering.same) == 6
    assert len(gathering.sketches) == 4


def test_projected_rows_hear_nothing_of_what_is_kept_out():
    model = tiny_model("llama")
    config = AdapterConfig(rank=2, experts=2)
    add_branches(model, "aggregate", config)
    with torch.no_grad(), sketching(model) as gathering:
        ids = torch.randint(3, 90, (4, 16))
        gathering.keep = torch.ones_like(ids, dtype=torch.bool)
        model(input_ids=ids)
    kept_out = {name: leading(entry, 0.9) for name, entry in gathering.directions().items()}
    remove_branch(model, "noise")
    add_branches(model, "align", config)
    project(model, kept_out)
    for name, linear in adapted_layers(model, "alignment").items():
        rows = linear.branch("alignment").down
        assert float((rows @ kept_out[name].T).detach().abs().max()) < 1e-6
        assert float(rows.detach().norm()) > 0.1


def test_files_hold_what_linears_share_once(tmp_path):
    shared, alone = gathered(low_rank_inputs(99, 20, 4)), gathered(low_rank_inputs(99, 30, 4))
    save_directions(tmp_path / "x.safetensors", {"gate": shared, "up": shared, "down": alone})
    found = load_directions(tmp_path / "x.safetensors")
    assert found["gate"] is found["up"]
    torch.testing.assert_close(found["down"].basis, alone.basis)
    assert found["down"].total == alone.total
    with pytest.raises(AdapterError, match="Train stage 1 again"):
        load_directions(tmp_path / "none.safetensors")


def test_too_few_directions_left_are_refused():
    check_room({"down": torch.eye(8)[:4]}, rank=4)
    with pytest.raises(AdapterError, match=r"3 of 8 .* rank 4"):
        check_room({"down": torch.eye(8)[:5]}, rank=4)
