"""On each family's template: the mask is the answer, tokens are the tokenizer's, no text is control."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, processors

from medcare.foundation.errors import DataError, ModelError
from medcare.text.chat_template import (
    encode_text,
    has_thought,
    render_all,
    render_answer,
    render_prompt,
    spelt,
    stop_ids,
)
from medcare.text.chat_template import end_of_turn as end_of_turn_id
from medcare.text.control_tokens import control_tokens
from medcare.text.records import Conversation, Message, ToolCall
from tests.text.tokenizers_by_family import FAMILIES, end_of_turn, templated, tokenizer_of

QUESTION = Message("user", "What causes arachnodactyly?")
ANSWER = Message("assistant", "Marfan syndrome; code J45.")
SYSTEM = Message("system", "You are a careful assistant.")
TALKS = {
    "one turn": (QUESTION, ANSWER),
    "system": (SYSTEM, QUESTION, ANSWER),
    "two turns": (QUESTION, ANSWER, Message("user", "患者无发热?"), Message("assistant", "答案为B。")),
    "line breaks": (Message("user", "Name:\n\n  fever"), Message("assistant", "a\nb\n\nc")),
    "spaces around": (Message("user", "  fever "), Message("assistant", "B.")),
}
families = pytest.mark.parametrize("family", FAMILIES)


def rows(tokenizer, messages):
    return render_all(tokenizer, [Conversation("", "", tuple(messages))])


def render(tokenizer, messages):
    """The last row, which holds the whole conversation."""
    return rows(tokenizer, messages)[-1]


def masked_runs(tokenizer, messages):
    runs = []
    for row in rows(tokenizer, messages):
        before = False
        for token, kept in zip(row.ids, row.mask, strict=True):
            if kept:
                runs.append([*runs.pop(), token] if before else [token])
            before = kept
    return [tokenizer.decode(run) for run in runs]


@families
@pytest.mark.parametrize("talk", TALKS)
def test_mask_covers_the_answers_and_their_end_of_turn_alone(family, talk):
    runs = masked_runs(tokenizer_of(family), TALKS[talk])
    answers = [message.content for message in TALKS[talk] if message.role == "assistant"]
    assert len(runs) == len(answers)
    for run, answer in zip(runs, answers, strict=True):
        assert run.endswith(end_of_turn(family))
        assert run.removesuffix(end_of_turn(family)).strip() == answer


@families
@pytest.mark.parametrize("talk", TALKS)
def test_tokens_are_those_of_the_tokenizer_itself(family, talk):
    tokenizer = tokenizer_of(family)
    turns = [{"role": message.role, "content": message.content} for message in TALKS[talk]]
    if family in ("gemma", "mistral") and turns[0]["role"] == "system":
        turns = [{"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}, *turns[2:]]
    text = tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False)
    assert render(tokenizer, TALKS[talk]).ids == tokenizer(text, add_special_tokens=False)["input_ids"]


@families
def test_prompt_is_where_the_answer_begins(family):
    tokenizer = tokenizer_of(family)
    prompt, answer = render_answer(tokenizer, [QUESTION], ANSWER.content)
    assert render_prompt(tokenizer, [QUESTION]) == prompt
    assert tokenizer.decode(answer).strip() == ANSWER.content
    whole = render(tokenizer, [QUESTION, ANSWER]).ids
    assert whole[: len(prompt) + len(answer)] == prompt + answer


@families
def test_an_answer_stops_at_the_end_of_its_turn(family):
    tokenizer = tokenizer_of(family)
    assert tokenizer.convert_tokens_to_ids(end_of_turn(family)) in stop_ids(tokenizer)


def spellings(family):
    return sorted(control_tokens(tokenizer_of(family)))


@families
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_text_becomes_a_control_token(family, data):
    tokenizer = tokenizer_of(family)
    control = spellings(family)
    pieces = st.one_of(
        st.sampled_from(control),
        st.sampled_from(control).flatmap(
            lambda token: st.integers(1, len(token)).map(lambda end: token[:end])
        ),
        st.sampled_from(control).flatmap(
            lambda token: st.integers(0, len(token)).map(lambda start: token[start:])
        ),
        st.sampled_from([" ", "\n", "fever", "<", ">", "|", "患者", "\uf8ff0\uf8ff", "\uf8ff"]),
    )
    texts = st.lists(pieces, max_size=6).map("".join)
    user, answer = data.draw(texts), data.draw(texts)
    assume(not has_thought(tokenizer, Message("assistant", answer)))  # whose tags are control by design
    plain = render(tokenizer, [Message("user", "a"), Message("assistant", "b")])
    rendered = render(tokenizer, [Message("user", user), Message("assistant", answer)])
    ids = set(control_tokens(tokenizer).values())
    assert [token for token in rendered.ids if token in ids] == [token for token in plain.ids if token in ids]
    kept = [token for token, mask in zip(rendered.ids, rendered.mask, strict=True) if mask]
    assert [token for token in kept if token in ids] == [tokenizer.convert_tokens_to_ids(end_of_turn(family))]


@families
def test_a_spelt_control_token_stays_readable(family):
    tokenizer = tokenizer_of(family)
    for spelling in spellings(family):
        ids = render(tokenizer, [Message("user", f"what is {spelling} here"), ANSWER]).ids
        text = tokenizer.decode([token for token in ids if token not in control_tokens(tokenizer).values()])
        assert (
            spelling in text.replace(" ", "")
            if family in ("llama2", "mistral", "gemma")
            else spelling in text
        )


@families
def test_many_at_once_are_as_one_by_one(family):
    tokenizer = tokenizer_of(family)
    talks = [*TALKS.values(), (Message("user", spellings(family)[0]), ANSWER)]
    together = render_all(tokenizer, [Conversation("", "", talk) for talk in talks])
    assert together == [row for talk in talks for row in rows(tokenizer, talk)]


def test_roles_that_the_template_refuses_are_told():
    with pytest.raises(DataError, match="user, user"):
        render(tokenizer_of("mistral"), [QUESTION, QUESTION, ANSWER])


def test_a_conversation_without_an_answer_can_not_train():
    with pytest.raises(DataError, match="assistant"):
        render(tokenizer_of("chatml"), [QUESTION])
    with pytest.raises(DataError, match="at least one message"):
        render_prompt(tokenizer_of("chatml"), [])


def test_a_tokenizer_without_template_is_told():
    bare = tokenizer_of("chatml").__class__(tokenizer_object=tokenizer_of("chatml")._tokenizer)
    with pytest.raises(ModelError, match="chat template"):
        render_prompt(bare, [QUESTION])


def test_an_empty_answer_still_ends_its_turn():
    runs = masked_runs(tokenizer_of("qwen2"), [QUESTION, Message("assistant", "")])
    assert runs == ["<|im_end|>"]


def test_a_broken_template_is_not_blamed_on_the_roles(monkeypatch):
    tokenizer = tokenizer_of("chatml")
    monkeypatch.setattr(tokenizer, "chat_template", "{% for message in messages %}{{ message['content'] }}")
    with pytest.raises(ModelError, match=r"template is broken: .*[^.]\. Correct it") as caught:
        render_prompt(tokenizer, [Message("user", "a")])
    assert "roles" not in str(caught.value)


THOUGHT = "They are long: connective tissue."
WITH_THOUGHT = {
    "between tags": Message("assistant", f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER.content}"),
    "in its field": Message("assistant", ANSWER.content, reasoning_content=THOUGHT),
}
ENDED = (
    "qwen3",
    "qwen3_5_think",
    "qwen3_6",
    "qwen3_8",
    "nemotron_3_nano",
    "deepseek_r1_distill",
    "deepseekv3",
)


@pytest.mark.parametrize("name", [*ENDED, "glm4moe", "llama3", "qwen2_5"])
@pytest.mark.parametrize("form", WITH_THOUGHT)
def test_a_thought_is_learned_with_its_tags(name, form):
    tokenizer = templated(name)
    [row] = rows(tokenizer, (QUESTION, WITH_THOUGHT[form]))
    text, [run] = tokenizer.decode(row.ids), masked_runs(tokenizer, (QUESTION, WITH_THOUGHT[form]))
    assert text.count("<think>") == text.count("</think>") == 1
    assert run.index(THOUGHT) < run.index("</think>") < run.index(ANSWER.content)
    tags = control_tokens(tokenizer)
    if "<think>" in tags:  # the tags are tokens of their own, not letters
        assert [row.ids.count(tags[tag]) for tag in ("<think>", "</think>")] == [1, 1]


@pytest.mark.parametrize("name", ["qwen3", "glm4moe", "deepseek_r1_distill", "gptoss"])
@pytest.mark.parametrize("answer", ["B.", ">"])
def test_empty_tags_are_an_empty_thought(name, answer):
    """So models write them that were told not to think; letters of the tags would be learned otherwise."""
    tokenizer = templated(name)
    empty, lines = (
        rows(tokenizer, (QUESTION, Message("assistant", f"<think>{gap}</think>\n\n{answer}")))
        for gap in ("", "\n\n")
    )
    assert empty == lines


def test_a_thought_goes_where_the_template_has_thoughts():
    for form in WITH_THOUGHT.values():
        [run] = masked_runs(templated("gptoss"), (QUESTION, form))
        assert run == (
            f"<|channel|>analysis<|message|>{THOUGHT}<|end|>"
            f"<|start|>assistant<|channel|>final<|message|>{ANSWER.content}<|return|>"
        )


@pytest.mark.parametrize("name", ["deepseek_r1_distill", "deepseekv3"])
def test_a_prompt_that_opens_a_thought_is_gone_on_from(name):
    tokenizer = templated(name)
    prompt = tokenizer.decode(render_prompt(tokenizer, [QUESTION]))
    assert prompt.endswith("<think>\n")
    assert masked_runs(tokenizer, (QUESTION, ANSWER)) == [
        f"\n</think>\n\n{ANSWER.content}<｜end▁of▁sentence｜>"
    ]
    bare = Message("assistant", f"{THOUGHT}\n</think>\n\n{ANSWER.content}")  # as such models write it
    assert rows(tokenizer, (QUESTION, bare)) == rows(tokenizer, (QUESTION, WITH_THOUGHT["in its field"]))


def chatml(turn, begun=""):
    """ChatML's tokens, and a template that writes a turn `m`, and something where an answer begins."""
    tokenizer = copy.deepcopy(tokenizer_of("chatml"))
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n" + turn + "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n" + begun + "{% endif %}"
    )
    return tokenizer


def test_a_template_that_thinks_only_when_told_and_reads_no_tags():
    """Its prompt opens the thought: nothing stands before one in its field, and one between tags is lost."""
    tokenizer = chatml(
        "{% if m.reasoning_content and enable_thinking %}<think>\n{{ m.reasoning_content }}\n</think>\n\n"
        "{% endif %}"
        "{{ m.content.split('</think>')[-1].lstrip() }}<|im_end|>\n",
        "{% if enable_thinking %}<think>\n{% endif %}",
    )
    bare = Message("assistant", f"{THOUGHT}\n</think>\n\n{ANSWER.content}")
    for said in (*WITH_THOUGHT.values(), bare):
        assert masked_runs(tokenizer, (QUESTION, said)) == [
            f"{THOUGHT}\n</think>\n\n{ANSWER.content}<|im_end|>"
        ]
        prompt = render_prompt(tokenizer, [QUESTION], thinking=True)
        [row] = rows(tokenizer, (QUESTION, said))
        assert row.ids[: len(prompt)] == prompt
    assert masked_runs(tokenizer, (QUESTION, ANSWER)) == [f"{ANSWER.content}<|im_end|>"]


def test_a_thought_between_tags_keeps_its_letters_where_it_goes_into_a_field():
    told = "a thing that many an aunt meant"  # no letter at its ends is taken for white space
    inline = Message("assistant", f"<think>\n{told}\n</think>\n\n{told}")
    apart = Message("assistant", told, reasoning_content=told)
    assert rows(templated("gptoss"), (QUESTION, inline)) == rows(templated("gptoss"), (QUESTION, apart))


def test_answers_that_melt_into_their_prompts_have_a_row_each():
    """What is sent before the second answer ends with a blank of its own, and so does what is trained."""
    tokenizer = chatml("{{ ' ' + m.content }}<|im_end|>\n", "{{ ' ' }}")
    talk = (
        QUESTION,
        Message("assistant", "the answer"),
        Message("user", "Why?"),
        Message("assistant", "the"),
    )
    first, second = rows(tokenizer, talk)
    for row, prompt in ((first, talk[:1]), (second, talk[:3])):
        begun = render_prompt(tokenizer, prompt)
        assert row.ids[: len(begun)] == begun
        assert not any(row.mask[: len(begun)])
    whole = tokenizer(tokenizer.decode(second.ids))["input_ids"]
    assert whole != second.ids  # by itself the tokenizer takes blank and word together


def test_a_template_is_given_what_transformers_gives_it():
    tokenizer = chatml("{{ m.content }}{% if documents is not none %} and documents{% endif %}<|im_end|>\n")
    own = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert tokenizer.decode(render_prompt(tokenizer, [Message("user", "Hi")])).startswith(own)


def test_a_template_for_contents_in_parts_is_given_parts():
    tokenizer = chatml("{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>\n")
    assert rows(tokenizer, (SYSTEM, QUESTION, ANSWER)) == rows(
        chatml("{{ m.content }}<|im_end|>\n"), (SYSTEM, QUESTION, ANSWER)
    )


def test_a_question_about_the_tag_that_ends_thoughts_is_only_a_question():
    tokenizer = templated("deepseek_r1_distill")
    about = Message("user", "What does </think> mean?")
    bare = Message("assistant", f"{THOUGHT}\n</think>\n\n{ANSWER.content}")
    assert rows(tokenizer, (about, bare)) == rows(tokenizer, (about, WITH_THOUGHT["in its field"]))


def test_a_template_that_drops_earlier_thoughts_gives_a_row_for_each_answer():
    tokenizer, said = tokenizer_of("qwen3"), WITH_THOUGHT["between tags"]
    first, second = rows(tokenizer, (QUESTION, said, Message("user", "Why?"), Message("assistant", "Genes.")))
    assert THOUGHT in tokenizer.decode(first.ids)
    assert THOUGHT not in tokenizer.decode(second.ids)
    assert len(rows(tokenizer_of("qwen2"), (QUESTION, said, Message("user", "Why?"), ANSWER))) == 1


def test_the_next_role_ends_a_turn_where_nothing_else_does():
    tokenizer = templated("glm4moe")
    call = Message("assistant", "", tool_calls=(ToolCall("look_up", '{"word": "fever"}'),))
    talk = (QUESTION, call, Message("tool", "Heat."), ANSWER, Message("user", "Why?"), ANSWER)
    runs = masked_runs(tokenizer, talk)
    assert [run.rpartition("<|")[2] for run in runs] == ["observation|>", "user|>", "user|>"]
    ends = tokenizer.convert_tokens_to_ids(["<|user|>", "<|observation|>", "<|eos|>"])
    assert stop_ids(tokenizer) == sorted(ends)
    assert stop_ids(templated("gptoss")) == sorted(
        templated("gptoss").convert_tokens_to_ids(["<|return|>", "<|call|>", "<|eos|>"])
    )


TOOLS = (
    '[{"type": "function", "function": {"name": "look_up", "description": "Looks a word up.", "parameters": '
    '{"type": "object", "properties": {"word": {"type": "string", "description": "The word."}}}}}]'
)


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_6", "llama3_1", "glm4moe", "gptoss"])
def test_tools_calls_and_results_are_written(name):
    tokenizer = templated(name)
    call = Message("assistant", "", tool_calls=(ToolCall("look_up", '{"word": "fever"}', "call00001"),))
    result = Message("tool", "Raised heat.", name="look_up", tool_call_id="call00001")
    talk = Conversation("", "", (QUESTION, call, result, ANSWER), TOOLS)
    made = render_all(tokenizer, [talk])
    text = tokenizer.decode(made[-1].ids)
    assert "Looks a word up." in text
    assert "Raised heat." in text
    learned = "".join(
        tokenizer.decode([token for token, kept in zip(row.ids, row.mask, strict=True) if kept])
        for row in made
    )
    assert all(part in learned for part in ("look_up", "fever", ANSWER.content))
    assert "Raised heat." not in learned


def test_a_call_that_nothing_ends_is_followed_by_nothing():
    """What ends a plain answer does not end it: the model would write what it has never seen there."""
    tokenizer = chatml(
        "{% for call in m.tool_calls %}CALL {{ call.function.name }}{% else %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}"
    )
    call = Message("assistant", "", tool_calls=(ToolCall("look_up", "{}"),))
    assert masked_runs(tokenizer, (QUESTION, call)) == ["CALL look_up"]


def test_a_template_that_takes_arguments_as_texts_is_given_texts():
    tokenizer = chatml(
        "{{ m.content }}{% for call in m.tool_calls %}"
        "{{ call.function.name + ' ' + call.function.arguments }}{% endfor %}<|im_end|>\n"
    )
    call = Message("assistant", "", tool_calls=(ToolCall("look_up", '{"word": "Fieber äu"}'),))
    assert masked_runs(tokenizer, (QUESTION, call)) == ['look_up {"word": "Fieber äu"}<|im_end|>']


@pytest.mark.parametrize(
    ("name", "talk", "told"),
    [
        ("gemma", Conversation("", "", (QUESTION, ANSWER), TOOLS), "leaves the tools out"),
        ("deepseekv3", Conversation("", "", (QUESTION, ANSWER), TOOLS), "leaves the tools out"),
        (
            "lfm2",
            Conversation("", "", (QUESTION, Message("assistant", "", tool_calls=(ToolCall("f", "{}"),)))),
            "leaves tool calls out",
        ),
    ],
)
def test_what_a_template_can_not_write_is_refused(name, talk, told):
    with pytest.raises(DataError, match=told):
        render_all(templated(name), [talk])


def test_a_template_that_fails_on_tools_is_one_without_them():
    tokenizer = copy.deepcopy(tokenizer_of("chatml"))
    fails = "{% if tools %}{{ raise_exception('no tools here') }}{% endif %}"
    tokenizer.chat_template = f"{fails}{tokenizer.chat_template}"
    assert rows(tokenizer, (QUESTION, ANSWER)) == rows(tokenizer_of("chatml"), (QUESTION, ANSWER))
    with pytest.raises(DataError, match="leaves the tools out"):
        render_all(tokenizer, [Conversation("", "", (QUESTION, ANSWER), TOOLS)])


def test_a_turn_of_no_weight_is_only_context():
    tokenizer = tokenizer_of("qwen2")
    untrained = Message("assistant", "Wrong.", trained=False)
    talk = (QUESTION, untrained, Message("user", "Sure?"), ANSWER)
    assert masked_runs(tokenizer, talk) == [f"{ANSWER.content}<|im_end|>"]
    assert "Wrong." in tokenizer.decode(rows(tokenizer, talk)[0].ids)


def normalising(normalizer):
    """A tokenizer that finds its control tokens in the normalised text."""
    tree = json.loads(tokenizer_of("chatml")._tokenizer.to_str())
    tree["normalizer"] = normalizer
    for token in tree["added_tokens"]:
        token["normalized"] = True
    made = tokenizer_of("chatml").__class__(tokenizer_object=Tokenizer.from_str(json.dumps(tree)))
    made.chat_template = tokenizer_of("chatml").chat_template
    return made


@pytest.mark.parametrize(
    ("normalizer", "hostile"),
    [
        ({"type": "NFKC"}, "＜｜im_end｜＞"),
        ({"type": "NFKC"}, "<|ｉｍ_end|>＜|im_start|＞"),
        ({"type": "Lowercase"}, "<|IM_END|>"),
        ({"type": "Replace", "pattern": {"String": "@@"}, "content": "<|im_end|>"}, "a @@ b"),
    ],
)
def test_no_spelling_that_a_tokenizer_normalises_becomes_control(normalizer, hostile):
    tokenizer = normalising(normalizer)
    control = set(control_tokens(tokenizer).values())
    assert control & set(tokenizer(hostile)["input_ids"])  # it would, without us
    plain = [token for token in rows(tokenizer, (QUESTION, ANSWER))[0].ids if token in control]
    [row] = rows(tokenizer, (Message("user", hostile), Message("assistant", f"x {hostile}")))
    assert [token for token in row.ids if token in control] == plain


def test_a_template_can_not_be_smuggled_in_by_a_message():
    tokenizer = tokenizer_of("qwen2")
    text = "{{ messages }}{% for x in range(9) %}y{% endfor %}"
    assert masked_runs(tokenizer, (QUESTION, Message("assistant", text))) == [f"{text}<|im_end|>"]


@pytest.mark.parametrize("family", ["llama2", "llama3", "gemma"])
def test_a_tokenizer_that_begins_and_ends_every_text_itself_does_so_in_documents_alone(family):
    """As Llama's and Gemma's do by their post-processors: a template writes its beginning itself."""
    plain = tokenizer_of(family)
    own = copy.deepcopy(plain)
    ends = [(token, plain.convert_tokens_to_ids(token)) for token in (plain.bos_token, plain.eos_token)]
    own.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{plain.bos_token} $A {plain.eos_token}", special_tokens=ends
    )
    begin, end = plain.bos_token_id, plain.eos_token_id
    assert own("")["input_ids"] == [begin, end], "or this would show nothing"
    for talk in TALKS.values():
        assert rows(own, talk) == rows(plain, talk)
    assert render_prompt(own, [QUESTION]) == render_prompt(plain, [QUESTION])
    assert render_answer(own, [QUESTION], "B.") == render_answer(plain, [QUESTION], "B.")
    inner = encode_text(plain, "Fever; seizure.")
    assert encode_text(own, "Fever; seizure.") == inner
    document = [Conversation.of_text("a", "", "Fever; seizure.")]
    assert render_all(own, document)[0].ids == [begin, *inner, end]
    assert render_all(plain, document)[0].ids == [*inner, end]


@pytest.mark.parametrize(
    ("family", "spelling", "controls"),
    [
        ("chatml", "<|im_end|>", True),  # special
        ("chatml", "<|endoftext|>", True),  # special, and not in the template
        ("qwen2", "<tool_call>", True),  # an ordinary added token that the template writes
        ("qwen3", "</think>", True),
        ("chatml", "<think>", True),  # a tag around thoughts, also where no template writes it
        ("chatml", "<table>", False),  # an added token that is only text
        ("gemma", "\n\n", False),
    ],
)
def test_what_controls_is_special_a_tag_or_written_by_the_template(family, spelling, controls):
    tokenizer = copy.deepcopy(tokenizer_of(family))
    if spelling not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(spelling, special=False, normalized=False)])
    token = tokenizer.convert_tokens_to_ids(spelling)
    assert token in tokenizer(f"a{spelling}b", add_special_tokens=False)["input_ids"]
    with_it, without = (
        [*render_prompt(tokenizer, [Message("user", text)]), *encode_text(tokenizer, text)].count(token)
        for text in (f"a{spelling}b", "a b")
    )
    assert with_it - without == (0 if controls else 2)


def test_what_ends_an_answer_is_known_of_each_kind_of_template():
    ends = {
        "chatml": ["<|im_end|>"],
        "llama3": ["<|eot_id|>", "<|end_of_text|>"],
        "gemma": ["<end_of_turn>", "<eos>"],
    }
    for family, spelt_ends in ends.items():
        tokenizer = tokenizer_of(family)
        assert stop_ids(tokenizer) == sorted(map(tokenizer.convert_tokens_to_ids, spelt_ends)), family
        assert end_of_turn_id(tokenizer) == tokenizer.convert_tokens_to_ids(spelt_ends[0]), family
    assert end_of_turn_id(templated("no_end")) is None
    assert stop_ids(templated("no_end")) == [templated("no_end").eos_token_id]


def test_a_row_is_shown_in_pieces_with_and_without_loss():
    tokenizer = tokenizer_of("chatml")
    [row] = rows(tokenizer, (QUESTION, ANSWER))
    assert spelt(tokenizer, row) == [
        (f"<|im_start|>user\n{QUESTION.content}<|im_end|>\n<|im_start|>assistant\n", False),
        (f"{ANSWER.content}<|im_end|>", True),
        ("\n", False),
    ]


@pytest.mark.parametrize(
    ("message", "thinks"),
    [
        (Message("assistant", "<think>\nhm\n</think>\n\nB."), True),
        (Message("assistant", "<think>\n\n</think>\n\nB."), False),
        (Message("assistant", "B.", reasoning_content="hm"), True),
        (Message("assistant", "hm</think>B."), False),  # nothing opens it
        (Message("user", "<think>\nhm\n</think>\n\nB."), False),
        (Message("assistant", "B."), False),
    ],
)
def test_whether_a_turn_holds_a_thought(message, thinks):
    assert has_thought(tokenizer_of("qwen3"), message) == thinks
    opened = templated("deepseek_r1_distill")
    assert has_thought(opened, Message("assistant", "hm</think>B."))


def test_rows_know_their_conversation():
    talk = (QUESTION, WITH_THOUGHT["between tags"], Message("user", "Why?"), Message("assistant", "Genes."))
    made = render_all(tokenizer_of("qwen3"), [Conversation("a", "book", talk), Conversation("b", "", talk)])
    assert [(row.id, row.source, row.document) for row in made] == [
        ("a", "book", False), ("a", "book", False), ("b", "", False), ("b", "", False)
    ]  # fmt: skip


def test_an_answer_comes_first_in_no_conversation():
    with pytest.raises(DataError, match="first turn is the assistant's"):
        rows(tokenizer_of("chatml"), (ANSWER,))


def test_a_message_that_a_template_leaves_out_is_told_with_its_place(monkeypatch):
    tokenizer = copy.deepcopy(tokenizer_of("chatml"))
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "in messages %}", "in messages if m['role'] != 'system' %}"
    )
    for use in (rows, render_prompt):
        with pytest.raises(DataError, match=r"turn 1, the system's"):
            use(tokenizer, (SYSTEM, QUESTION, ANSWER))
    assert rows(tokenizer, (QUESTION, ANSWER))


@pytest.mark.parametrize(("left_out", "turn"), [("user", 1), ("assistant", 2)])
def test_the_last_question_and_the_answer_itself_are_missed_too(left_out, turn):
    tokenizer = chatml(f"{{% if m.role != '{left_out}' %}}{{{{ m.content }}}}{{% endif %}}<|im_end|>\n")
    with pytest.raises(DataError, match=rf"turn {turn}, the {left_out}'s"):
        rows(tokenizer, (QUESTION, ANSWER))
