"""Language models: `LLM` and `AsyncLLM` run one inside a program; `deployment`, `start` and `open_gateway` put one behind
HTTP; `devices` tells what there is. Wiring only.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from inlay.backends import backend, backend_names
from inlay.client import EngineClient
from inlay.client import stream_chat as client_stream_chat
from inlay.engine.journal import read_journal
from inlay.engine.timeline import Timeline, as_svg, as_text, draw
from inlay.errors import DeploymentError, InlayError, RequestError
from inlay.gateway import make_app, serve_http
from inlay.hardware import Cluster, load_cluster, probe
from inlay.models import read_model
from inlay.orchestrator import Running, start_local
from inlay.runtime import Cache
from inlay.runtime.machine import kept_figures, measure_figures
from inlay.specs.capability import Availability
from inlay.specs.deployment import Deployment, deployment_from_roles, load_deployment
from inlay.specs.generation import Delta, Description, Failed, Finished, Generate, GenerationParameters, Placement, Started
from inlay.specs.roofline import MachineFigures
from inlay.specs.speculation import AUTO, SpeculationSetup
from inlay.workers import WorkerSpec

CHUNK = 128
SLOTS = 8
CONTEXT_LIMIT = 8192
PREFERRED = ("onnxruntime", "openvino", "reference")
Progress = Callable[[str], None]
Result = TypeVar("Result")


class DeviceReport(msgspec.Struct, frozen=True, kw_only=True):
    """The local or described cluster, every backend: present with its version, or absent with the reason; and what of
    the devices was measured."""

    cluster: Cluster
    backends: tuple[Availability, ...]
    figures: MachineFigures = MachineFigures()


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """One generated text with its token ids, why it ended, where it ran, and seconds by name."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    prefill: str
    decode: str
    timing: dict[str, float]


def devices(cluster: str | Path = "local", *, measure: bool = False, progress: Progress = lambda text: None) -> DeviceReport:
    """What there is to run on. `cluster` is "local" (probe this machine) or the path of a cluster file.

    Figures are those kept in the cache; `measure` takes all of them anew, half a minute for each kind of device.
    """
    found = probe() if str(cluster) == "local" else load_cluster(cluster)
    cache = Cache.default()
    return DeviceReport(
        cluster=found,
        backends=tuple(backend(name).available() for name in backend_names()),
        figures=measure_figures(found, cache=cache, progress=progress) if measure else kept_figures(found, cache=cache),
    )


def deployment(
    model: str | Path,
    *,
    cluster: str | Path = "local",
    roles: Sequence[str] = (),
    context: int | None = None,
    slots: int = SLOTS,
    chunk: int = CHUNK,
    draft_model: str | Path = "",
    speculation: SpeculationSetup | str = AUTO,
) -> Deployment:
    """A deployment of a model folder. Without roles one device does everything, on the best backend present. `speculation` is
    a mode or a whole setup; a role `draft` runs `draft_model`.

    Raises ModelError, ClusterError or DeploymentError.
    """
    spec = read_model(model)
    found = probe() if str(cluster) == "local" else load_cluster(cluster)
    if context is not None and not 2 <= context <= spec.context:
        raise DeploymentError(f"context is {context}, expected 2 to {spec.context}, the model's own limit", hint="choose less")
    length = min(spec.context, CONTEXT_LIMIT) if context is None else context
    return deployment_from_roles(
        str(model),
        found,
        list(roles) or [_default_role(found)],
        context=length,
        slots=slots,
        chunk=min(chunk, length),
        draft_model=str(draft_model),
        speculation=SpeculationSetup(mode=speculation) if isinstance(speculation, str) else speculation,
        depth=spec.layers,
    )


def read_deployment(path: str | Path) -> Deployment:
    """The deployment in a YAML file."""
    return load_deployment(path)


def start(
    wanted: Deployment, *, name: str | None = None, progress: Progress = lambda text: None, event_log: Path | None = None
) -> Running:
    """Make it true on this machine, without HTTP. The caller stops what is returned."""
    return start_local(wanted, name=name, progress=progress, event_log=event_log)


def open_gateway(running: Running, *, host: str, port: int, keys: Iterable[str] = ()) -> str:
    """Start the HTTP process of a running deployment; returns its base URL once it listens."""
    address = running.directory / "gateway.address"
    config = {
        "socket": str(running.engine_socket),
        "key": running.key,
        "host": host,
        "port": port,
        "address": str(address),
        "keys": list(keys),
    }
    spec = WorkerSpec(name="gateway", program="inlay.api:run_gateway", run_directory=str(running.directory), config=config)
    running.spawn(spec)
    running.wait_for(address, needs=["gateway", "engine"], seconds=30.0)
    return f"http://{address.read_text()}"


def run_gateway(config: dict[str, Any]) -> None:
    """The program of the gateway process: HTTP on one side, the engine's client on the other."""

    def tell(host: str, port: int) -> None:
        part = Path(config["address"] + ".part")
        part.write_text(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        part.rename(config["address"])

    upstream = EngineClient(config["socket"], key=config["key"], name="gateway")
    app = make_app(upstream, keys=config["keys"], metrics_open=True)
    serve_http(app, host=config["host"], port=config["port"], on_bound=tell)


def describe(running: Running) -> Description:
    """What a running deployment serves."""

    async def ask() -> Description:
        async with EngineClient(running.engine_socket, key=running.key) as client:
            return await client.describe()

    return asyncio.run(ask())


def timeline(event_log: str | Path) -> Timeline:
    """When each runner was busy, from an engine's event log."""
    return draw(read_journal(Path(event_log)))


def timeline_drawing(found: Timeline, *, svg: bool = False) -> str:
    """A timeline for a terminal, or as an SVG drawing."""
    return as_svg(found) if svg else as_text(found)


def stream_chat(
    url: str, *, model: str, question: str, key: str | None = None, served: Callable[[dict[str, Any]], None] = lambda fact: None
) -> Iterator[str]:
    """Ask one question at an OpenAI-compatible endpoint; text as it arrives, and to `served` what ours says of how it was
    served. Raises RequestError."""
    return client_stream_chat(url, model=model, question=question, key=key, served=served)


class AsyncLLM:
    """A model at work inside an asyncio program. Use as `async with`, or call `aclose`."""

    def __init__(
        self,
        model: str | Path | Deployment,
        *,
        progress: Progress = lambda text: None,
        event_log: Path | None = None,
        **options: Any,
    ) -> None:
        if isinstance(model, Deployment) and options:
            raise DeploymentError(
                f"option {sorted(options)[0]!r} is given beside a Deployment, expected none", hint="make the Deployment with it"
            )
        wanted = model if isinstance(model, Deployment) else deployment(model, **options)
        self.running = start(wanted, progress=progress, event_log=event_log)
        self._client = EngineClient(self.running.engine_socket, key=self.running.key, name="sdk")

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all processes."""
        await self._client.aclose()
        await asyncio.to_thread(self.running.stop)

    async def stream(
        self, prompt: str | Sequence[int], *, placement: Placement = Placement(), **parameters: Any
    ) -> AsyncIterator[str]:
        """Text as it is generated. `parameters` are the fields of GenerationParameters."""
        async for event in self.events(prompt, placement=placement, **parameters):
            if isinstance(event, Delta) and event.text:
                yield event.text

    async def generate(
        self, prompt: str | Sequence[int], *, placement: Placement = Placement(), **parameters: Any
    ) -> Completion:
        """One whole completion (choice 0). Raises RequestError when it fails."""
        texts: list[str] = []
        tokens: list[int] = []
        reason = ""
        started = Started(call=0, prompt_tokens=0, prefill="", decode="")
        finished = Finished(call=0, prompt_tokens=0, completion_tokens=0)
        async for event in self.events(prompt, placement=placement, **parameters):
            match event:
                case Started():
                    started = event
                case Delta(index=0):
                    texts.append(event.text)
                    tokens += event.tokens
                    reason = event.finish_reason or reason
                case Finished():
                    finished = event
        return Completion(
            text="".join(texts),
            tokens=tuple(tokens),
            finish_reason=reason,
            prompt_tokens=finished.prompt_tokens,
            prefill=started.prefill,
            decode=started.decode,
            timing=finished.timing,
        )

    async def events(
        self, prompt: str | Sequence[int], *, placement: Placement = Placement(), **parameters: Any
    ) -> AsyncIterator[Started | Delta | Finished]:
        """Everything the engine says of one request. Raises RequestError when it fails."""
        try:
            asked = msgspec.convert(parameters, GenerationParameters, strict=True)
        except msgspec.ValidationError as error:
            known = ", ".join(GenerationParameters.__struct_fields__)
            raise RequestError(f"generation parameters: {error}", hint=f"known: {known}") from error
        unknown = set(parameters) - set(GenerationParameters.__struct_fields__)
        if unknown:
            known = ", ".join(GenerationParameters.__struct_fields__)
            raise RequestError(f"generation parameter {sorted(unknown)[0]!r} is not known", hint=f"known: {known}")
        text = prompt if isinstance(prompt, str) else None
        ids = None if isinstance(prompt, str) else tuple(prompt)
        request = Generate(call=0, text=text, tokens=ids, parameters=asked, placement=placement)
        async for event in self._client.generate(request):
            if isinstance(event, Failed):
                raise RequestError(event.message, hint=event.hint, code=event.code, status=event.status, param=event.param)
            yield event


class LLM:
    """A model at work, for programs without asyncio. Use as `with`, or call `close`."""

    def __init__(self, model: str | Path | Deployment, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="inlay", daemon=True)
        self._thread.start()
        try:
            self._llm = AsyncLLM(model, **options)
        except BaseException:
            self._stop_loop()
            raise

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> Running:
        """The processes behind it."""
        return self._llm.running

    def generate(self, prompts: Sequence[str | Sequence[int]], **parameters: Any) -> list[Completion]:
        """Completions in the order of the prompts, computed together. Raises RequestError."""

        async def together() -> list[Completion]:
            return list(await asyncio.gather(*(self._llm.generate(prompt, **parameters) for prompt in prompts)))

        return self.run(together())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on this object's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End all processes; safe to call twice."""
        if self._loop.is_running():
            self.run(self._llm.aclose())
            self._stop_loop()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _default_role(cluster: Cluster) -> str:
    """One device for everything: the first one, on the best backend that is present and allowed there."""
    for device in cluster.devices.values():
        for name in PREFERRED:
            if name in backend_names() and device.allows(name) and backend(name).available().available:
                return f"prefill,decode={device.name}/{name}"
    raise InlayError("no backend is present for any device", hint="pip install 'inlay[onnxruntime,torch]'")
