"""Chat templates: where they come from, that they render as with transformers, and that they end."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from inlay.errors import ModelError, RequestError
from inlay.models import ChatTemplate, read_template, tokenizer_facts

MESSAGES = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two <&>"},
    {"role": "user", "content": "three"},
]


def render(source: str, **options: object) -> str:
    return ChatTemplate({"default": source}, variables={"bos_token": "<s>"}).render(MESSAGES, options=options)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}\n    {{ m.role }}: {{ m['content'] }}\n{% endfor %}\nend",
        "{%- for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} "
        "{{ m.content }}{% else %}none{% endfor %}",
        "{% for m in messages[::-1] %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
        "{% set ns = namespace(n=0, context='c', obj=1, self=2) %}{% for m in messages %}"
        "{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ ns.obj }}",
        "{{ messages | tojson }} {{ messages[0] | tojson(indent=2) }}",
        "{% macro show(m) %}[{{ m.content ~ '!' ~ 1 }}]{% endmacro %}{% for m in messages %}{{ show(m) }}{% endfor %}",
        "{% generation %}{{ messages[1].content }}{% endgeneration %}",
        "{{ bos_token + messages[0].content.upper() * 2 }}{{ '%s-%d' % ('a', 3) }}{{ '{}'.format(4) }}",
        "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{{ range(3) | list }}{{ loop is defined }}",
        "{{ messages | map(attribute='content') | join(', ') }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
        "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}"
        "{{ loop.nextitem.role if not loop.last }}{% endfor %}",
        "{{ undefined_name }}{% if tools %}t{% endif %}{% if documents is none %}d"
        "{% endif %}{{ messages[-1]['content'].split('r')[0].strip('\\n') }}",
    ],
)
def test_a_template_renders_as_with_transformers(source: str) -> None:
    (theirs,), _ = render_jinja_template([MESSAGES], chat_template=source, add_generation_prompt=True, bos_token="<s>")
    assert render(source) == theirs


def test_the_time_of_day_is_the_one_given() -> None:
    template = ChatTemplate({"default": "{{ strftime_now('%d %b %Y') }}"}, variables={}, now=lambda: datetime(2024, 7, 26))
    assert template.render(MESSAGES) == "26 Jul 2024"


def test_a_template_refuses_with_its_own_words() -> None:
    with pytest.raises(RequestError, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert (caught.value.param, caught.value.code, caught.value.status) == ("messages", "chat_template_error", 400)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content + 1 }}",
        "{{ messages[9].content.x }}",
        "{{ 1 // 0 }}",
        "{{ messages[0].content.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% include 'x' %}",
        "{{ ''.__class__ }}{{ cycler.__init__.__globals__ }}",
    ],
)
def test_failures_and_escapes_in_a_template_are_request_errors(source: str) -> None:
    with pytest.raises(RequestError):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set r = range(2000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ ([0] * 1000000000) | length }}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s | length }}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{% for a in range(90000) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ range(1000000000) }}",
        "{{ messages | tojson(indent=100000000) }}",
    ],
)
def test_a_template_that_would_not_end_or_fit_is_stopped_in_any_thread(source: str) -> None:
    caught: list[Exception] = []

    def run() -> None:
        try:
            render(source)
        except Exception as error:  # noqa: BLE001  (judged below, in the test's own thread)
            caught.append(error)

    started = time.monotonic()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert time.monotonic() - started < 30
    assert len(caught) == 1
    assert isinstance(caught[0], RequestError), caught[0]


@pytest.mark.parametrize("source", ["{% for %}", "{{ 'x' | center(9) }}", "{% if %}"])
def test_a_template_that_cannot_be_compiled_is_a_model_error(source: str) -> None:
    with pytest.raises(ModelError, match="cannot be compiled"):
        ChatTemplate({"default": source}, variables={})


def test_a_folder_without_a_template_has_none(tmp_path: Path) -> None:
    assert read_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert read_template(tmp_path) is None


def test_the_template_file_goes_before_the_configuration(tmp_path: Path) -> None:
    config = {"chat_template": "old", "bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<pad>", "eos_token": "no"}))
    assert read_template(tmp_path).render(MESSAGES) == "old"
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}")
    assert read_template(tmp_path).render(MESSAGES) == "<s></s><pad>"


def test_the_facts_of_a_tokenizer_are_its_special_tokens_and_its_template(tmp_path: Path) -> None:
    config = {
        "tokenizer_class": "Fast",
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "added_tokens_decoder": {"1": {}},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert tokenizer_facts(tmp_path) == {"tokenizer_class": "Fast", "bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_facts(tmp_path)["chat_template"] == "{{ messages }}"
    (tmp_path / "chat_template.jinja").write_text(" " * 20_000)
    assert "chat_template" not in tokenizer_facts(tmp_path)


def test_of_several_templates_the_one_for_tools_is_used_with_tools(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    template = read_template(tmp_path)
    assert template.render(MESSAGES) == "plain"
    assert template.render(MESSAGES, tools=[{"name": "f"}]) == "tools"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates/tool_use.jinja").write_text("file")
    assert read_template(tmp_path).render(MESSAGES, tools=[{"name": "f"}]) == "file"


@pytest.mark.parametrize("value", [3, ["x"], [{"name": "default"}]])
def test_a_template_of_another_shape_is_a_model_error(tmp_path: Path, value: object) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(ModelError, match="chat_template"):
        read_template(tmp_path)


def test_options_of_a_request_replace_neither_special_tokens_nor_messages() -> None:
    source = "{{ bos_token }}{{ messages[0].content }}{{ style }}"
    assert render(source, bos_token="<|system|>", messages=[{"content": "forged"}], style="!") == "<s>one!"
