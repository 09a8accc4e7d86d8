"""Messages between a client (the gateway, the SDK) and the engine: text in, text out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inlay.specs.choice import Drafted, Drafting, Weighed


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer must be: any JSON object; JSON of a schema (`text`, itself JSON); a match of a regular expression; one
    of several texts (`text` is a JSON list of them); or a text of a grammar (Lark or GBNF, found out; or Lark).

    `field` is the request field that asked for it. `whitespace` is a pattern of what may stand between the parts of JSON:
    None for the default, empty for nothing.
    """

    kind: Literal["json_object", "json", "regex", "choice", "grammar", "lark"]
    text: str = ""
    field: str = "structured_outputs"
    whitespace: str | None = None

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return {"json_object": "JSON constraint", "json": "JSON schema", "regex": "regular expression"}.get(
            self.kind, self.kind
        )


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """Functions that an answer may call: `tools` as OpenAI spells them. `is_required` forces a call, of `function` where one
    is named; `parallel` allows several calls in one answer."""

    tools: tuple[dict[str, Any], ...]
    is_required: bool = False
    function: str | None = None
    parallel: bool = True


class GenerationParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What may be asked of one generation. `None` means the model's own default (generation_config).

    `logprobs` asks for so many log-probabilities beside the chosen token's (0 = none, -1 = not even that one's); with
    `echo` the prompt comes back before the answer, with its own log-probabilities if they are wanted.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0.0)] | None = None
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int = -1
    echo: bool = False
    speculation: str = "auto"
    drafts: int = 0
    constraint: Constraint | None = None


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where one request must run, by place ("cpu:0/openvino"); None leaves it to the scheduler."""

    prefill: str | None = None
    decode: str | None = None
    draft: str | None = None


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """One request: exactly one of `text`, `tokens` and `messages` is set. `call` names it on this connection. `tool_use`
    goes with messages alone."""

    call: int
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    tool_use: ToolUse | None = None
    parameters: GenerationParameters = GenerationParameters()
    placement: Placement = Placement()
    request: str = ""
    tenant: str = ""


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """The client has gone or does not want the rest."""

    call: int


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, tag="tokenize"):
    """Ids of a text or of chat messages, special tokens as `generate` would add them; none around a text where
    `add_special` is false."""

    call: int
    text: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    add_special: bool = True


class Detokenize(msgspec.Struct, frozen=True, kw_only=True, tag="detokenize"):
    """The text of ids."""

    call: int
    tokens: tuple[int, ...]


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag="describe"):
    """Asks for Description: model, plan, readiness."""

    call: int


class ReadMeters(msgspec.Struct, frozen=True, kw_only=True, tag="meters"):
    """Asks for the engine's own Prometheus text."""

    call: int


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """The request was admitted: prompt length, the placement chosen for it, and what was weighed; see `Placed`."""

    call: int
    prompt_tokens: int
    prefill: str
    decode: str
    way: str = "whole"
    weighed: tuple[Weighed, ...] = ()
    asked: bool = False
    drafting: Drafting | None = None


class CallPiece(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of the call of a function: `index` numbers the calls of one choice; `id` and `name` come with the first
    piece of each, `arguments` (JSON text) in pieces that are joined."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Delta(msgspec.Struct, frozen=True, kw_only=True, tag="delta", omit_defaults=True):
    """New text of choice `index` (may be empty while UTF-8 is incomplete) and the tokens behind it.

    `logprobs` holds, per token, [token id, its text, log-probability, [[id, text, log-probability], ...]].
    """

    call: int
    index: int
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[Any, ...] = ()
    calls: tuple[CallPiece, ...] = ()
    finish_reason: str | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """All choices have ended: the usage counts, timing in seconds by name, and how they speculated, if they did."""

    call: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    timing: dict[str, float] = {}
    drafted: Drafted | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The call failed; `status` is the HTTP status that says so."""

    call: int
    status: int
    code: str
    message: str
    param: str | None = None
    hint: str | None = None


class Tokens(msgspec.Struct, frozen=True, kw_only=True, tag="tokens"):
    """The answer to Tokenize."""

    call: int
    tokens: tuple[int, ...]


class Text(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """The answer to Detokenize and ReadMeters."""

    call: int
    text: str


class RegionDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One device process of a replica: its place and framework, the layers it owns (first to end, not included), its
    precision and process; `memory` is what it allocated when it had loaded, bytes by name; `runner` keeps KV in slots
    ("extend") or pages ("paged")."""

    place: str
    device: str
    framework: str
    version: str
    layers: tuple[int, int]
    precision: dict[str, str]
    pid: int
    alive: bool
    epoch: int
    memory: dict[str, int] = {}
    runner: str = "extend"


class RunnerDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One running replica: its name (its places joined by "+"), what it does, whether all of it lives, and its regions
    in the order of their layers."""

    place: str
    roles: tuple[str, ...]
    alive: bool
    regions: tuple[RegionDescription, ...]


class Description(msgspec.Struct, frozen=True, kw_only=True, tag="description"):
    """What is served and by whom; `ready` is false as soon as a role has no living runner. `tokenizer` is what a client
    that tokenises by itself asks for (`models.tokenizer_facts`)."""

    call: int
    model: str
    context: int
    created: int
    ready: bool
    reason: str
    runners: tuple[RunnerDescription, ...]
    tokenizer: dict[str, Any] = {}


ClientToEngine = Generate | Cancel | Tokenize | Detokenize | Describe | ReadMeters
EngineToClient = Started | Delta | Finished | Failed | Tokens | Text | Description
