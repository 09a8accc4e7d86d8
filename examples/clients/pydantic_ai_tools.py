"""pydantic-ai, unmodified: an agent over chat completions, plain, with a tool, with a typed answer.

Needs environments/clients-agents.txt.

python examples/clients/pydantic_ai_tools.py http://127.0.0.1:8000
"""

from __future__ import annotations

import json
import sys
import urllib.request
from enum import StrEnum
from importlib.metadata import version

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError, UnexpectedModelBehavior, UsageLimitExceeded
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import UsageLimits

QUESTION = "What does os.path.join do?"


class Kind(StrEnum):
    """What a name stands for."""

    FUNCTION = "function"
    CLASS = "class"


class Finding(BaseModel):
    """An answer of this form is a call that pydantic-ai requires of the model."""

    kind: Kind
    certain: bool


def main(url: str) -> None:
    """Asks; prints one JSON line with what was seen."""
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        name = json.load(answer)["data"][0]["id"]
    model = OpenAIChatModel(name, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none"))
    settings = ModelSettings(max_tokens=64, temperature=0.0, seed=1)
    plain = Agent(model, model_settings=settings).run_sync(QUESTION)
    usage = plain.usage
    usage = usage() if callable(usage) else usage
    found = {
        "client": "pydantic-ai",
        "version": version("pydantic-ai-slim"),
        "answer": plain.output[:60],
        "usage": [usage.input_tokens, usage.output_tokens],
        **with_tool(model, settings),
        "typed": typed(model, settings),
    }
    print(json.dumps(found))


def typed(model: OpenAIChatModel, settings: ModelSettings) -> dict:
    """An answer that must be a Finding: the server's grammar makes it one, whatever the model knows."""
    return Agent(model, output_type=Finding, model_settings=settings).run_sync(QUESTION).output.model_dump(mode="json")


def with_tool(model: OpenAIChatModel, settings: ModelSettings) -> dict:
    """An agent that has a tool: which calls the model made, and how the run ended.

    A model as small as the demo's seldom ends such a conversation by itself, so the number of requests is limited."""
    agent = Agent(model, model_settings=settings)
    called: list[str] = []

    @agent.tool_plain
    def describe(function: str) -> str:
        """What a function of the standard library does."""
        called.append(function)
        return "joins path components"

    try:
        ended = agent.run_sync(QUESTION, usage_limits=UsageLimits(request_limit=3)).output[:60]
    except (UsageLimitExceeded, UnexpectedModelBehavior) as error:
        ended = type(error).__name__
    except ModelHTTPError as error:
        raise SystemExit(f"error: tools are refused: {error}") from error
    return {"tool_called_with": called, "with_tool": ended}


if __name__ == "__main__":
    main(sys.argv[1])
