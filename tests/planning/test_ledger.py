from __future__ import annotations

import torch
from torch import nn

from medcare.planning.ledger import Ledger

KIB = 1024


def test_storages_are_counted_once_and_forgotten_when_freed():
    ledger = Ledger()
    with ledger:
        made = torch.ones(256)
        view = made.view(16, 16).t()
        assert ledger.alive.total() == KIB
        del made
        assert ledger.alive.total() == KIB  # the view still holds it
        del view
        assert ledger.alive.total() == 0


def test_the_peak_of_each_part_is_kept_by_kind():
    ledger = Ledger()
    with ledger:
        ledger.part("first")
        ledger.kind = "logits"
        logits = torch.ones(512)
        ledger.kind = "temporary"
        short = torch.ones(256)
        del short
        ledger.part("second")
        del logits
        rest = torch.ones(128)
    assert ledger.parts["first"] == {"logits": 2 * KIB, "temporary": KIB}
    assert ledger.parts["second"]["logits"] == 2 * KIB  # what the part began with
    assert rest.shape == (128,)


def test_what_is_counted_twice_changes_its_kind():
    ledger = Ledger()
    with ledger:
        tensor = torch.ones(256)
        ledger.count([tensor], "optimizer")
    assert ledger.alive["optimizer"] == KIB
    assert ledger.alive["temporary"] == 0


def test_a_resized_storage_counts_as_large_as_it_is():
    ledger = Ledger()
    with ledger:
        tensor = torch.ones(256)
        tensor.untyped_storage().resize_(0)
        assert ledger.alive.total() == 0
        tensor.untyped_storage().resize_(2 * KIB)
        assert ledger.alive.total() == 2 * KIB
    resize = torch.UntypedStorage.resize_
    with Ledger():
        pass
    assert torch.UntypedStorage.resize_ is resize  # put back


def test_a_watched_module_marks_what_it_makes():
    ledger, layer = Ledger(), nn.Linear(8, 256, bias=False)
    ledger.watch(layer, "attention")
    ledger.count(layer.parameters(), "weights")
    inputs = torch.ones(1, 8)
    with ledger, torch.no_grad():
        output = layer(inputs)
        other = inputs + 1
    assert ledger.alive["attention"] == output.untyped_storage().nbytes() == KIB
    assert ledger.alive["temporary"] == other.untyped_storage().nbytes()
