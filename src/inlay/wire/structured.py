"""What an answer must look like: OpenAI's `response_format` and vLLM's `structured_outputs`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inlay.errors import RequestError


class JsonSchemaFormat(msgspec.Struct, frozen=True, kw_only=True):
    """A named schema. It is always kept strictly, whatever `strict` says."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Any text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    def check(self) -> None:
        """Raises RequestError for a schema that is missing."""
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema is None):
            raise RequestError(
                "`response_format.json_schema.schema` is missing, expected a JSON schema beside type `json_schema`",
                param="response_format",
            )


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly one of JSON of a schema (an object, or one as text), any JSON object, a match of a regular expression, one
    of several texts, or a text of a grammar (Lark or GBNF).

    JSON may have some white space between its parts; `whitespace_pattern` says what, `disable_any_whitespace` that none.
    """

    json: str | dict[str, Any] | None = None
    json_object: bool | None = None
    regex: Annotated[str, Meta(min_length=1)] | None = None
    choice: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=1024)] | None = None
    grammar: Annotated[str, Meta(min_length=1)] | None = None
    whitespace_pattern: Annotated[str, Meta(max_length=256)] | None = None
    disable_any_whitespace: bool | None = None

    def check(self) -> None:
        """Raises RequestError unless exactly one kind is there."""
        kinds = {name: getattr(self, name) for name in ("json", "json_object", "regex", "choice", "grammar")}
        found = [name for name, value in kinds.items() if value is not None and value is not False]
        if len(found) != 1:
            raise RequestError(
                f"`structured_outputs` has {' and '.join(found) or 'none'} of {', '.join(kinds)}, expected exactly one",
                param="structured_outputs",
            )
