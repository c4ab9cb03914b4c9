"""Laws of the branches, on every causal family that the installed transformers know."""

from __future__ import annotations

import pytest

from tests.adapters.every_family import adapt
from tests.models.families import FAMILIES
from tests.models.page import check_row

# Why no branch can stand beside their feed-forward weights; all others must be adapted.
REFUSED = {
    "dbrx": "DbrxExpertGLU",
    "falcon_mamba": "no feed-forward layers",
    "inkling_text": "InklingSharedExperts",
    "jetmoe": "JetMoeParallelExperts",
    "llama4": "Llama4TextExperts",
    "llama4_text": "Llama4TextExperts",
    "longcat_flash": "LongcatFlashExperts",
    "mamba": "no feed-forward layers",
    "mamba2": "no feed-forward layers",
    "zamba": "shares its weight with another layer",
}
# Reformer's reversible layers return no gradient where the embeddings are frozen: nothing can be trained.
ADAPTED = [family for family in FAMILIES if family != "reformer"]


@pytest.mark.parametrize("family", ADAPTED)
def test_what_should_learn_does_and_merges(family, tmp_path):
    measured = adapt(family, tmp_path)
    check_row(family, measured)
    if family in REFUSED:
        assert REFUSED[family] in measured.refused
        return
    assert measured.refused == ""
    assert measured.feed_forward >= 0.9
    assert measured.at_first == 0
    assert measured.without_gradient == ()
    assert measured.made > 0.01
    assert measured.merging < 1e-4 * max(1, measured.made)
    assert measured.files <= 1e-6 * max(1, measured.made)
