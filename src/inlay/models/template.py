"""ChatTemplate: messages to the text a chat model was trained on. Templates come from the model folder only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes

from inlay.errors import ModelError, RequestError
from inlay.models.folder import check_folder, read_json
from inlay.models.sandbox import BudgetError, TemplateEnvironment, render_bounded

MAXIMUM_TEMPLATE_BYTES = 2**20
MAXIMUM_TOLD_TEMPLATE = 2**14
_TOLD = ("tokenizer_class", "model_max_length", "add_bos_token", "add_eos_token")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTemplate:
    """The compiled templates of one model by name; "default" is used, or "tool_use" where tools are given."""

    def __init__(
        self, sources: Mapping[str, str], *, variables: Mapping[str, str], now: Callable[[], datetime] = datetime.now
    ) -> None:
        environment = TemplateEnvironment(now=now)
        self.variables = dict(variables)
        self._templates: dict[str, jinja2.Template] = {}
        literals: list[str] = []
        self.takes_tools = "tool_use" in sources
        """Whether functions can be given to it."""
        for name, source in sources.items():
            try:
                self._templates[name] = environment.from_string(source)
                tree = environment.parse(source)
                literals.extend(_literals(tree))
                self.takes_tools = self.takes_tools or "tools" in meta.find_undeclared_variables(tree)
            except (jinja2.TemplateError, RecursionError) as cause:
                raise ModelError(
                    f"chat template {name!r} cannot be compiled: {cause}", hint="correct chat_template.jinja"
                ) from cause
        self.literals = "\0".join(literals)
        """All text that the templates themselves can write, as far as it stands in them literally."""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text of checked messages. `options` are further variables (enable_thinking).

        Raises RequestError with the template's own words when it refuses or fails, or uses up its budget.
        """
        template = self._templates.get("tool_use" if tools else "default") or self._templates.get("default")
        if template is None:
            template = next(iter(self._templates.values()))
        own = {"messages": list(messages), "tools": tools, "documents": None, "add_generation_prompt": add_generation_prompt}
        try:
            return render_bounded(template, {**(options or {}), **self.variables, **own})
        except BudgetError as cause:
            raise _refusal(f"the chat template was stopped: {cause}", "send fewer or shorter messages") from cause
        except RecursionError as cause:
            raise _refusal("the chat template was stopped: it called itself too deeply", "send simpler messages") from cause
        except jinja2.TemplateError as cause:
            raise _refusal(f"the chat template refused the messages: {cause.message}", "see the model's card") from cause
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as cause:
            # What Python raises when the template meets data it was not written for.
            raise _refusal(f"the chat template failed on the messages: {cause}", "see the model's card") from cause


def read_template(folder: str | Path, *, now: Callable[[], datetime] = datetime.now) -> ChatTemplate | None:
    """The chat template of a model folder, or None for a model without one (a base model).

    chat_template.jinja (and additional_chat_templates/*.jinja) goes before tokenizer_config.json. Raises ModelError.
    """
    path = check_folder(folder)
    config = read_json(path, "tokenizer_config.json") or {}
    sources = _named(path, config.get("chat_template"))
    files = {"default": path / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted((path / "additional_chat_templates").glob("*.jinja"))}
    for name, file in files.items():
        if file.is_file():
            sources[name] = _read_text(file)
    if not sources:
        return None
    return ChatTemplate(sources, variables=_special_tokens(path, config), now=now)


def tokenizer_facts(folder: str | Path) -> dict[str, Any]:
    """What a client that tokenises by itself needs beside the vocabulary: class, special tokens, the default template.

    A template above MAXIMUM_TOLD_TEMPLATE characters is left out: the facts travel in one message. Raises ModelError.
    """
    path = check_folder(folder)
    config = read_json(path, "tokenizer_config.json") or {}
    facts: dict[str, Any] = {name: config[name] for name in _TOLD if isinstance(config.get(name), (str, int, bool))}
    facts |= _special_tokens(path, config)
    file = path / "chat_template.jinja"
    template = _read_text(file) if file.is_file() else _named(path, config.get("chat_template")).get("default")
    if template is not None and len(template) <= MAXIMUM_TOLD_TEMPLATE:
        facts["chat_template"] = template
    return facts


def _named(path: Path, value: object) -> dict[str, str]:
    """One template, or a list of named ones."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list) and all(isinstance(item, dict) and {"name", "template"} <= set(item) for item in value):
        return {str(item["name"]): str(item["template"]) for item in value}
    raise ModelError(
        f"{path / 'tokenizer_config.json'}: chat_template is a {type(value).__name__}, "
        "expected text or a list of name and template",
        hint="save the tokenizer again with transformers",
    )


def _read_text(file: Path) -> str:
    try:
        size = file.stat().st_size
        if size > MAXIMUM_TEMPLATE_BYTES:
            raise ModelError(f"{file} has {size} bytes, expected at most {MAXIMUM_TEMPLATE_BYTES}", hint="is it damaged?")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise ModelError(f"{file} cannot be read: {cause}", hint="download the file again") from cause


def _special_tokens(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token and the like, written as text or as a dictionary with `content`."""
    older = read_json(path, "special_tokens_map.json") or {}
    found: dict[str, str] = {}
    for name in _SPECIAL:
        value = config.get(name) if config.get(name) is not None else older.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def _literals(tree: nodes.Template) -> list[str]:
    constants = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return [*(node.data for node in tree.find_all(nodes.TemplateData)), *constants]


def _refusal(message: str, hint: str) -> RequestError:
    return RequestError(message, hint=hint, param="messages", code="chat_template_error")
