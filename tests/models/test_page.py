"""docs/models.md is as its script writes it; test_every_family.py holds each row to what it measures."""

from __future__ import annotations

from tests.models.families import FAMILIES
from tests.models.page import writer


def test_the_page_of_models_is_up_to_date():
    rows = writer()["read"]()
    assert list(rows) == FAMILIES
    for family, cells in rows.items():
        assert [cells["in 4.57"], cells["GGUF"]] == writer()["elsewhere"](family)
    text = writer()["PAGE"].read_text(encoding="utf-8")
    assert text == writer()["page"]([list(cells.values()) for cells in rows.values()]), (
        "Run docs/write_models.py"
    )


LEAKING = """
    bamba biogpt bloom deepseek_v32 falcon_h1 gpt_oss granitemoehybrid jamba lfm2 mpt opt qwen3_5
    qwen3_next rwkv xglm
"""
COMMON = """
    gemma gemma2 gemma3 gemma3_text glm4 llama llama4 mistral mixtral phi3 qwen2 qwen3 qwen3_moe
"""


def test_the_families_that_leaked_are_not_packed_and_the_common_ones_are():
    rows = writer()["read"]()
    assert {rows[family]["packs"] for family in LEAKING.split()} == {"no"}
    assert {rows[family]["packs"] for family in COMMON.split()} == {"yes"}
