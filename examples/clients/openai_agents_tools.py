"""openai-agents, unmodified: an agent over chat completions, plain and with a tool. Needs environments/clients-agents.txt.

    python examples/clients/openai_agents_tools.py http://127.0.0.1:8000

Its default model class calls /v1/responses, and it sends traces to OpenAI: both are set otherwise here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from agents.exceptions import MaxTurnsExceeded, ModelBehaviorError
from openai import APIStatusError, AsyncOpenAI

QUESTION = "What does os.path.join do?"
CALLED: list[str] = []


@function_tool
def describe(function: str) -> str:
    """What a function of the standard library does."""
    CALLED.append(function)
    return "joins path components"


async def main(url: str) -> None:
    """Asks; prints one JSON line with what was seen."""
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        name = (await client.models.list()).data[0].id
        model = OpenAIChatCompletionsModel(model=name, openai_client=client)
        settings = ModelSettings(max_tokens=64, temperature=0.0)
        plain = await Runner.run(Agent(name="plain", model=model, model_settings=settings), QUESTION)
        streamed = Runner.run_streamed(Agent(name="streamed", model=model, model_settings=settings), QUESTION)
        events = [event.type async for event in streamed.stream_events()]
        required = ModelSettings(max_tokens=64, temperature=0.0, tool_choice="required")
        agent = Agent(
            name="tooled", model=model, model_settings=required, tools=[describe], tool_use_behavior="stop_on_first_tool"
        )
        try:
            ended = str((await Runner.run(agent, QUESTION, max_turns=3)).final_output)[:60]
        except (MaxTurnsExceeded, ModelBehaviorError) as error:
            ended = type(error).__name__
        except APIStatusError as error:
            raise SystemExit(f"error: tools are refused: {error}") from error
    found = {
        "client": "openai-agents",
        "version": version("openai-agents"),
        "answer": str(plain.final_output)[:60],
        "stream_equals_whole": streamed.final_output == plain.final_output,
        "stream_events": len(events),
        "tool_called_with": CALLED,
        "with_tool": ended,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
