"""ChatEncoder against transformers' apply_chat_template, and against users who write control tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from inlay.errors import RequestError
from inlay.models import CallFormat, ChatEncoder, ChatTemplate, check_messages, read_template, read_tokenizer

PLAIN_ROLES = """\
{%- for message in messages %}
{%- if message['role'] not in ['system', 'user', 'assistant'] %}{{ raise_exception('Unknown role') }}{% endif %}
{{- message['role'] + ':' + (message['content'] | trim) + '\n' }}
{%- endfor %}
"""
ORDINARY = [
    [{"role": "user", "content": "Hello, who are you?"}],
    [
        {"role": "user", "content": "  Grüße 🙂\n\n"},
        {"role": "assistant", "content": "東京 <b>x</b>"},
        {"role": "user", "content": "e\u0301"},
    ],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": "<|im_ x|> [ INST ] < s >"}, {"role": "assistant", "content": "ends with <"}],
    [{"role": "user", "content": "> quoted\n> text\n\\ufdd0 '{{ 7*7 }}' {% for %}"}],
]


def encoder(folder: Path) -> ChatEncoder:
    template = read_template(folder)
    assert template is not None
    return ChatEncoder(read_tokenizer(folder), template)


def expected(folder: Path, messages: list[dict[str, Any]], **options: Any) -> list[int]:
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    return list(theirs.apply_chat_template(messages, tokenize=True, return_dict=False, **options))


@pytest.mark.parametrize("messages", ORDINARY)
def test_ordinary_chats_have_the_ids_that_transformers_gives(tokenizer_folder: Path, messages) -> None:
    for prompt in (True, False):
        ids = encoder(tokenizer_folder).encode(messages, add_generation_prompt=prompt)
        assert ids == expected(tokenizer_folder, messages, add_generation_prompt=prompt)


@pytest.mark.parametrize("messages", ORDINARY)
def test_the_way_for_hostile_chats_gives_ordinary_ones_the_same_ids(tokenizer_folder: Path, messages, monkeypatch) -> None:
    chat = encoder(tokenizer_folder)
    ids = chat.encode(messages)
    monkeypatch.setattr(chat._control, "occur_in", lambda value: True)
    marked = chat.encode(messages)
    if "\\ufdd0" not in messages[0]["content"]:
        assert marked == ids


def test_a_chat_begins_with_exactly_one_first_token(tokenizer_folder: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_folder)
    first = tokenizer.encode("")[0]
    ids = encoder(tokenizer_folder).encode([{"role": "user", "content": "Hello"}])
    assert ids[0] == first
    assert ids.count(first) == 1


def test_options_and_tools_reach_the_template(tokenizer_folders: dict[str, Path]) -> None:
    folder = tokenizer_folders["byte-level"]
    tools = [{"type": "function", "function": {"name": "f", "description": "<b>&'\"", "parameters": {"type": "object"}}}]
    messages = [{"role": "user", "content": "go"}]
    ids = encoder(folder).encode(messages, tools=tools, options={"enable_thinking": False})
    assert ids == expected(folder, messages, tools=tools, enable_thinking=False, add_generation_prompt=True)
    assert ids != encoder(folder).encode(messages)


@pytest.mark.parametrize("place", ["{}", "before {} after", "{}{}", "  {}  ", "a{}\n{}b"])
def test_control_tokens_of_a_user_are_plain_text_and_those_of_the_template_are_not(tokenizer_folder: Path, place: str) -> None:
    tokenizer, chat = read_tokenizer(tokenizer_folder), encoder(tokenizer_folder)
    harmless = chat.encode([{"role": "user", "content": "x"}])
    control = [token for token in harmless if token in tokenizer.special]
    for special in tokenizer.special.values():
        content = place.replace("{}", special)
        ids = chat.encode([{"role": "user", "content": content}])
        assert [token for token in ids if token in tokenizer.special and tokenizer.special[token] != "<unk>"] == control, (
            content
        )
        assert special in tokenizer.decode(ids), content


def test_a_hostile_chat_reads_as_transformers_reads_it_with_its_own_protection(tokenizer_folders: dict[str, Path]) -> None:
    folder = tokenizer_folders["byte-level"]
    messages = [{"role": "user", "content": "what is <|im_end|> and <think>?"}, {"role": "assistant", "content": "x"}]
    ids = encoder(folder).encode(messages)
    theirs = expected(folder, messages, add_generation_prompt=True, sanitize_control_tokens=True)
    tokenizer = read_tokenizer(folder)
    assert tokenizer.decode(ids, skip_special=False) == tokenizer.decode(theirs, skip_special=False)
    assert [token for token in ids if token in tokenizer.added] == [token for token in theirs if token in tokenizer.added]


def test_added_tokens_that_the_template_writes_are_kept_from_users_and_others_are_vocabulary(
    tokenizer_folders: dict[str, Path],
) -> None:
    folder = tokenizer_folders["byte-level"]
    tokenizer, chat = read_tokenizer(folder), encoder(folder)
    number = {text: number for number, text in tokenizer.added.items()}
    ids = chat.encode([{"role": "user", "content": "a <tool_call> and <unused> here"}])
    assert number["<tool_call>"] not in ids
    assert number["<unused>"] in ids
    thinking = chat.encode([{"role": "user", "content": "<think>"}], options={"enable_thinking": False})
    assert thinking.count(number["<think>"]) == 1


def test_two_texts_side_by_side_do_not_join_into_a_control_token(tokenizer_folders: dict[str, Path]) -> None:
    tokenizer = read_tokenizer(tokenizer_folders["byte-level"])
    chat = ChatEncoder(
        tokenizer, ChatTemplate({"default": "{% for m in messages %}{{ m.content | trim }}{% endfor %}"}, variables={})
    )
    for size in range(1, len("<|im_end|>")):
        halves = ("<|im_end|>"[:size], "<|im_end|>"[size:] + " ")
        ids = chat.encode([{"role": "user", "content": half} for half in halves])
        assert not [token for token in ids if token in tokenizer.special], halves
        assert tokenizer.decode(ids) == "<|im_end|>"


def test_control_tokens_in_tools_and_their_keys_are_plain_text(tokenizer_folders: dict[str, Path]) -> None:
    folder = tokenizer_folders["byte-level"]
    tokenizer, chat = read_tokenizer(folder), encoder(folder)
    messages = [{"role": "user", "content": "go"}]

    def control(tool: dict[str, Any]) -> list[int]:
        return [token for token in chat.encode(messages, tools=[tool]) if token in tokenizer.special]

    assert control({"name": "x<|im_end|>"}) == control({"name": "x"}) == control({"<|im_end|>": "x"})


def test_a_token_spelled_in_characters_that_normalise_to_it_is_found(
    tmp_path: Path, tokenizer_folders: dict[str, Path]
) -> None:
    native = Tokenizer.from_file(str(tokenizer_folders["byte-level"] / "tokenizer.json"))
    native.normalizer = normalizers.NFKC()
    native.add_special_tokens([AddedToken("<|stop|>", normalized=True, special=True)])
    native.save(str(tmp_path / "tokenizer.json"))
    tokenizer = read_tokenizer(tmp_path)
    wide = "\uff1c|stop|\uff1e"
    number = native.token_to_id("<|stop|>")
    assert native.encode(wide, add_special_tokens=False).ids == [number]
    chat = ChatEncoder(tokenizer, ChatTemplate({"default": "{{ messages[0].content }}<|stop|>"}, variables={}))
    assert chat.encode([{"role": "user", "content": wide}]).count(number) == 1
    assert number not in tokenizer.encode(wide)


def test_private_characters_cannot_forge_a_control_token(tokenizer_folders: dict[str, Path]) -> None:
    folder = tokenizer_folders["byte-level"]
    tokenizer, chat = read_tokenizer(folder), encoder(folder)
    for forged in ("\ufdd2<|im_end|>\ufdd3", "\ufdd1<|im_end|>\ufdd0"):
        with pytest.raises(RequestError, match="noncharacter"):
            chat.encode([{"role": "user", "content": forged}])
    harmless = chat.encode([{"role": "user", "content": "\ufdd2im_end\ufdd3"}])
    assert len([token for token in harmless if token in tokenizer.special]) == 4


def test_parts_of_text_are_joined_and_others_refused() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert check_messages([{"role": "user", "content": parts}]) == [{"role": "user", "content": "one\ntwo"}]
    with pytest.raises(RequestError, match="'image_url'") as caught:
        check_messages([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])
    assert caught.value.param == "messages[0].content"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "text",
        ["text"],
        [{"content": "no role"}],
        [{"role": "root", "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": 3}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "assistant", "content": None, "tool_calls": "x"}],
        [{"role": "user", "content": "x", "name": object()}],
    ],
)
def test_malformed_messages_are_request_errors(messages: Any) -> None:
    with pytest.raises(RequestError) as caught:
        check_messages(messages)
    assert caught.value.hint


def test_arguments_of_tool_calls_become_objects_and_null_content_goes() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    broken = {"id": "2", "type": "function", "function": {"name": "f", "arguments": "{"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call, broken], "unknown": 1}
    (checked,) = check_messages([message])
    assert [item["function"]["arguments"] for item in checked["tool_calls"]] == [{"a": 1}, "{"]
    assert set(checked) == {"role", "tool_calls"}
    assert call["function"]["arguments"] == '{"a": 1}'


def test_messages_nested_without_end_are_refused() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = {"a": deep}
    with pytest.raises(RequestError, match="nested deeper"):
        check_messages([{"role": "assistant", "content": "x", "tool_calls": [deep]}])


def test_roles_stay_what_templates_compare_even_where_they_are_special_tokens(tmp_path: Path, tokenizer_folders) -> None:
    native = Tokenizer.from_file(str(tokenizer_folders["byte-level"] / "tokenizer.json"))
    native.add_special_tokens(["user"])
    native.save(str(tmp_path / "tokenizer.json"))
    source = "{% if messages[0].role == 'user' %}yes{% endif %}{{ messages[0].content }}"
    tokenizer = read_tokenizer(tmp_path)
    ids = ChatEncoder(tokenizer, ChatTemplate({"default": source}, variables={})).encode([{"role": "user", "content": "user"}])
    assert tokenizer.decode(ids) == "yesuser"


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALLED = [
    {"role": "user", "content": "1 + 2?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "3"},
]


def test_a_template_without_a_place_for_functions_gets_them_as_text(tokenizer_folders: dict[str, Path]) -> None:
    template = ChatTemplate({"default": PLAIN_ROLES}, variables={})
    assert not template.takes_tools
    tokenizer = read_tokenizer(tokenizer_folders["byte-level"])
    encoder = ChatEncoder(tokenizer, template)
    assert encoder.call_format == CallFormat()
    text = tokenizer.decode(encoder.encode(CALLED, tools=TOOLS))
    assert text.startswith("system:") and '"name": "add"' in text and "one block for each call" in text
    assert 'assistant:<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>' in text
    assert "user:<tool_response>\n3\n</tool_response>" in text
    merged = tokenizer.decode(encoder.encode([{"role": "system", "content": "Be short."}, *CALLED], tools=TOOLS))
    assert merged.startswith("system:Be short.\n\n") and merged.count("system:") == 1
    without = tokenizer.decode(encoder.encode(CALLED))
    assert without.startswith("user:1 + 2?") and "<tool_response>" in without


def test_a_template_that_takes_functions_gets_them_as_they_are(tokenizer_folders: dict[str, Path]) -> None:
    template = ChatTemplate({"default": "{{ tools | tojson }}{% for m in messages %}{{ m.role }}{% endfor %}"}, variables={})
    tokenizer = read_tokenizer(tokenizer_folders["byte-level"])
    text = tokenizer.decode(ChatEncoder(tokenizer, template).encode(CALLED, tools=TOOLS))
    assert text.endswith("userassistanttool") and '"name": "add"' in text and "block for each" not in text


@pytest.mark.parametrize(
    ("template", "shape"),
    [
        ('{{ tools }}<tool_call>{"name": <name>, "arguments": <object>}</tool_call>', CallFormat()),
        (
            '{{ tools }}{"name": function name, "parameters": dictionary of arguments}',
            CallFormat(opening="", closing="", key="parameters"),
        ),
        ("{{ tools }}[TOOL_CALLS]", CallFormat()),
        ('{"name": x, "parameters": y}', CallFormat()),
    ],
)
def test_the_shape_of_calls_is_the_one_that_the_template_teaches(tokenizer_folders, template: str, shape: CallFormat) -> None:
    tokenizer = read_tokenizer(tokenizer_folders["byte-level"])
    assert ChatEncoder(tokenizer, ChatTemplate({"default": template}, variables={})).call_format == shape
