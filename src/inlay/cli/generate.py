"""`inlay generate`: prompts in, texts out, without HTTP."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from inlay import api
from inlay.cli.starting import ROLE_HELP, SPECULATION_HELP, ended_by_signals, progress, wanted
from inlay.specs.speculation import SpeculationSetup


def generate(
    model: Annotated[str, typer.Argument(help="a Hugging Face model folder, or a deployment.yaml")],
    prompt: Annotated[list[str], typer.Argument(help="one or more prompts")],
    cluster: Annotated[str, typer.Option(help="'local' to probe this machine, or a cluster.yaml")] = "local",
    role: Annotated[list[str] | None, typer.Option(help=ROLE_HELP)] = None,
    max_tokens: Annotated[int, typer.Option(help="tokens to generate at most")] = 64,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; default: the model's own")] = None,
    top_p: Annotated[float | None, typer.Option(help="mass of the tokens that are kept")] = None,
    seed: Annotated[int | None, typer.Option(help="the same seed gives the same text")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="end before this text")] = None,
    context: Annotated[int | None, typer.Option(help="most tokens of one sequence")] = None,
    draft_model: Annotated[str, typer.Option(help="folder of the model that the role draft runs")] = "",
    speculation: Annotated[str, typer.Option(help=SPECULATION_HELP)] = "auto",
    drafts: Annotated[int, typer.Option(help="most tokens drafted for one verify step")] = SpeculationSetup().drafts,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line per prompt")] = False,
) -> None:
    """Complete prompts on the devices given, and print the texts."""
    deployment = wanted(
        model,
        cluster=cluster,
        roles=role or [],
        context=context,
        draft_model=draft_model,
        speculation=SpeculationSetup(mode=speculation, drafts=drafts),
    )
    with ended_by_signals(), progress() as tell:
        llm = api.LLM(deployment, progress=tell)
    with llm:
        parameters = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "stop": tuple(stop or ()),
        }
        completions = llm.generate(prompt, **parameters)
    for text, completion in zip(prompt, completions, strict=True):
        if as_json:
            print(msgspec.json.encode({"prompt": text, **msgspec.to_builtins(completion)}).decode())
        else:
            print(f"{text}{completion.text}")
            tokens = len(completion.tokens)
            print(
                f"[{completion.prompt_tokens} + {tokens} tokens, {completion.finish_reason}; prefill {completion.prefill}, "
                f"decode {completion.decode}; first token {completion.timing['first_token']:.3f} s]",
                file=sys.stderr,
            )
