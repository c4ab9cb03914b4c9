"""Documents: every token trained, none of a template, none that controls."""

from __future__ import annotations

import copy

import pytest

from medcare.foundation.errors import ModelError
from medcare.text.chat_template import encode_text, render_all, render_each
from medcare.text.control_tokens import control_tokens
from medcare.text.records import Conversation, Message
from tests.text.tokenizers_by_family import FAMILIES, tokenizer_of

TALK = Conversation("b", "", (Message("user", "Fever?"), Message("assistant", "Seizure.")))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_is_its_text_up_to_the_end_of_text_and_nothing_in_it_controls(family):
    tokenizer = tokenizer_of(family)
    spelt = " ".join(control_tokens(tokenizer))
    text = f"Marfan syndrome.\n\n {spelt} 患者无发热"
    [row] = render_all(tokenizer, [Conversation.of_text("a", "book", text)])
    inner = row.ids[:-1]
    if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] != [None]:
        assert inner.pop(0) == tokenizer.bos_token_id
    assert inner == encode_text(tokenizer, text)
    assert row.ids[-1] == tokenizer.eos_token_id
    assert not set(inner) & (set(control_tokens(tokenizer).values()) - {tokenizer.unk_token_id})
    assert all(row.mask)
    assert (row.document, row.id, row.source) == (True, "a", "book")


def test_documents_and_conversations_are_rendered_together_as_alone():
    tokenizer = tokenizer_of("qwen3")
    document = Conversation.of_text("a", "", "Fever; seizure.")
    together = render_each(tokenizer, [document, TALK, document])
    assert together == [render_all(tokenizer, [entry]) for entry in (document, TALK, document)]


def test_a_base_without_a_template_learns_from_documents_alone():
    tokenizer = copy.deepcopy(tokenizer_of("chatml"))
    tokenizer.chat_template = None
    assert render_all(tokenizer, [Conversation.of_text("a", "", "Fever")])[0].document
    with pytest.raises(ModelError, match="no chat template"):
        render_all(tokenizer, [TALK])
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-text token"):
        render_all(tokenizer, [Conversation.of_text("a", "", "Fever")])
