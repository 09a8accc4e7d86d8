"""Fields that other servers know, that would change the tokens, and that are not served here: refused by name.

Each is listed with the values that change nothing; null is always one of them. A field that is in no list here
and in no request type is ignored and reported as such.
"""

from __future__ import annotations

from typing import Any

from inlay.errors import RequestError

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "add_special_tokens": (True,),
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "modalities": (["text"],),
    "prompt_logprobs": (),
    "reasoning_effort": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "verbosity": (),
    "web_search_options": (),
}


def refuse_unserved(fields: dict[str, Any], *, honoured: frozenset[str]) -> tuple[str, ...]:
    """The names among `fields` that mean nothing here. Raises RequestError for one that would change the tokens."""
    ignored = []
    for name, value in fields.items():
        if name in honoured:
            continue
        if name in _NEUTRAL:
            _refuse_unless(name, value, neutral=_NEUTRAL[name])
        elif name == "best_of":
            _refuse_best_of(value, choices=fields.get("n"))
        else:
            ignored.append(name)
    return tuple(ignored)


def _refuse_unless(name: str, value: Any, *, neutral: tuple[Any, ...]) -> None:
    if value is None or value in neutral:
        return
    expected = " or ".join(["no such field", *(f"{item!r}" for item in neutral)])
    found = f"`{name}` is {_short(value)}, expected {expected}"
    raise RequestError(f"{found}: it would change the tokens and is not served yet", param=name, code="unsupported_parameter")


def _refuse_best_of(value: Any, *, choices: Any) -> None:
    if value is None or value == (1 if choices is None else choices):
        return
    expected = "expected no such field or the value of `n`: choosing among hidden answers is not served"
    raise RequestError(f"`best_of` is {_short(value)}, {expected}", param="best_of", code="unsupported_parameter")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
