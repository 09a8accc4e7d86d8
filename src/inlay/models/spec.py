"""ModelSpec: the facts of a causal language model, read from config.json and generation_config.json.

Read by the engine, the planner and the torch door. It reads no weights and runs no code of the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from inlay.errors import ModelError, UnsupportedError
from inlay.models.folder import check_folder, read_json

# The same fact under the names that older architectures gave it.
_NAMES = {
    "vocabulary": ("vocab_size",),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim",),
    "intermediate": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "context": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"),
}
# Full attention in every n-th layer, where an older config.json leaves `layer_types` to the model's code.
_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}
_CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")


class DefaultSampling(msgspec.Struct, frozen=True, kw_only=True):
    """What generation_config.json says of sampling; None where it says nothing."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Geometry and conventions of one model folder.

    `context` counts tokens, rope scaling included. `layer_types` names each layer "full_attention" or
    "sliding_attention" (or another word of the config). `rope_scaling` is the config's dictionary without theta,
    None for plain rope; where it differs by layer type, it is keyed by that. `dtype` is what the weights are said
    to be. `intermediate` is 0 where the config leaves it to the model's code.
    """

    folder: Path
    model_type: str
    architecture: str
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    context: int
    tied: bool
    dtype: str
    layer_types: tuple[str, ...]
    sliding_window: int | None = None
    rope_theta: float | None = None
    rope_scaling: dict[str, Any] | None = None
    eos_ids: tuple[int, ...] = ()
    bos_id: int | None = None
    pad_id: int | None = None
    sampling: DefaultSampling = DefaultSampling()


def read_model(folder: str | Path) -> ModelSpec:
    """The spec of a Hugging Face folder. Raises ModelError for a damaged one, UnsupportedError for a known other kind."""
    path = check_folder(folder)
    config = read_json(path, "config.json")
    if config is None:
        raise ModelError(f"{path} has no config.json, expected a Hugging Face model", hint="give the folder that holds it")
    generation = read_json(path, "generation_config.json") or {}
    _refuse_foreign(path, config)
    architecture = _architecture(path, config)
    hidden, heads = positive(path, config, "hidden"), positive(path, config, "heads")
    window, layer_types = attention_kinds(config, positive(path, config, "layers"), path)
    theta, scaling = _rope(config)
    end = generation.get("eos_token_id")
    return ModelSpec(
        folder=path,
        model_type=str(config.get("model_type", "")),
        architecture=architecture,
        vocabulary=positive(path, config, "vocabulary"),
        hidden=hidden,
        layers=len(layer_types),
        heads=heads,
        kv_heads=positive(path, config, "kv_heads", default=1 if config.get("multi_query") is True else heads),
        head_dim=positive(path, config, "head_dim", default=hidden // heads),
        intermediate=positive(path, config, "intermediate", default=0),
        context=_context(positive(path, config, "context"), str(config.get("model_type", "")), scaling),
        tied=ties_embeddings(config, str(config.get("model_type", ""))),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch."),
        layer_types=layer_types,
        sliding_window=window,
        rope_theta=theta,
        rope_scaling=scaling,
        eos_ids=_ids(path, "eos_token_id", end if end is not None else config.get("eos_token_id")),
        bos_id=_first(_ids(path, "bos_token_id", _either(generation, config, "bos_token_id"))),
        pad_id=_first(_ids(path, "pad_token_id", _either(generation, config, "pad_token_id"))),
        sampling=_sampling(path, generation),
    )


def _refuse_foreign(path: Path, config: dict[str, Any]) -> None:
    """What this version does not serve, by name."""
    where = f"{path / 'config.json'}:"
    if config.get("auto_map"):
        raise UnsupportedError(
            f"{where} auto_map is {config['auto_map']!r}, expected a model without code of its own",
            hint="inlay never runs code from a model folder; use a version of the model that transformers knows natively",
        )
    quantisation = config.get("quantization_config")
    if quantisation:
        method = quantisation.get("quant_method", "unknown") if isinstance(quantisation, dict) else quantisation
        raise UnsupportedError(
            f"{where} quantization_config has quant_method {method!r}, expected plain float weights",
            hint="use the unquantised version of the model",
        )
    if config.get("is_encoder_decoder"):
        raise UnsupportedError(f"{where} is_encoder_decoder is true, expected a decoder", hint="serve a causal language model")
    nested = sorted(set(config) & {"text_config", "vision_config", "audio_config"})
    if nested:
        raise UnsupportedError(f"{where} has {nested[0]}, expected a model of text only", hint="use its text-only version")


def _architecture(path: Path, config: dict[str, Any]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ModelError(
            f"{path / 'config.json'}: architectures is {names!r}, expected a list with one class name",
            hint='for example "architectures": ["LlamaForCausalLM"]',
        )
    if not names[0].endswith(_CAUSAL_ENDINGS):
        raise UnsupportedError(
            f"{path / 'config.json'}: architecture is {names[0]!r}, expected one ending in {' or '.join(_CAUSAL_ENDINGS)}",
            hint="serve a causal language model",
        )
    return names[0]


def positive(path: Path, config: dict[str, Any], fact: str, *, default: int | None = None) -> int:
    """A positive whole number under any of its names."""
    for name in _NAMES[fact]:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(
                f"{path / 'config.json'}: {name} is {value!r}, expected a whole number above zero", hint="see its card"
            )
        return value
    if default is not None:
        return default
    raise ModelError(
        f"{path / 'config.json'}: {_NAMES[fact][0]} is absent, expected a whole number above zero",
        hint=f"it may also be called {', '.join(_NAMES[fact][1:])}" if len(_NAMES[fact]) > 1 else "add it",
    )


def ties_embeddings(config: dict[str, Any], model_type: str) -> bool:
    """Whether input and output embeddings are one; some families tie them without saying so."""
    value = config.get("tie_word_embeddings")
    return (
        value
        if isinstance(value, bool)
        else model_type in ("gpt2", "gemma", "gemma2", "gemma3_text", "opt", "cohere", "cohere2")
    )


def attention_kinds(config: dict[str, Any], layers: int, path: Path) -> tuple[int | None, tuple[str, ...]]:
    """The window and each layer's kind."""
    window = config.get("sliding_window") if config.get("use_sliding_window") is not False else None
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise ModelError(f"{path / 'config.json'}: sliding_window is {window!r}, expected a size or null", hint="see its card")
    given = config.get("layer_types")
    if given is not None:
        if not isinstance(given, list) or len(given) != layers or not all(isinstance(kind, str) for kind in given):
            raise ModelError(f"{path / 'config.json'}: layer_types is {given!r}, expected {layers} names", hint="one a layer")
        return window, tuple(given)
    if window is None:
        return None, ("full_attention",) * layers
    pattern = config.get("sliding_window_pattern") or _PATTERNS.get(str(config.get("model_type")))
    first = config.get("max_window_layers", 0) if config.get("use_sliding_window") else 0

    def is_full(layer: int) -> bool:
        return layer < first or (isinstance(pattern, int) and (layer + 1) % pattern == 0)

    return window, tuple("full_attention" if is_full(layer) else "sliding_attention" for layer in range(layers))


def _rope(config: dict[str, Any]) -> tuple[float | None, dict[str, Any] | None]:
    """Theta and scaling: transformers 5 writes `rope_parameters`, older ones `rope_theta` and `rope_scaling`."""
    parameters = config.get("rope_parameters")
    theta = config.get("rope_theta")
    if isinstance(parameters, dict) and parameters and all(isinstance(item, dict) for item in parameters.values()):
        main = parameters.get("full_attention") or next(iter(parameters.values()))
        found = main.get("rope_theta", theta)
        return (None if found is None else float(found)), parameters
    if isinstance(parameters, dict):
        theta = parameters.get("rope_theta", theta)
        scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
    else:
        scaling = dict(config.get("rope_scaling") or {})
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    return (None if theta is None else float(theta)), (None if kind == "default" else scaling)


def _context(positions: int, model_type: str, scaling: dict[str, Any] | None) -> int:
    """Positions times the factor, for the kinds of scaling whose config gives the length before it.

    `llama3` and `longrope` configs, and gemma3's, already give the length after it. Yarn starts from
    `original_max_position_embeddings`. The same rule as vLLM's.
    """
    if scaling is None or model_type.startswith("gemma3"):
        return positions
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if not isinstance(factor, (int, float)) or isinstance(factor, bool) or not 1 <= factor <= 1e4:
        return positions
    if kind in ("linear", "dynamic"):
        return int(positions * factor)
    if kind == "yarn":
        original = scaling.get("original_max_position_embeddings")
        return max(positions, int((original if isinstance(original, int) else positions) * factor))
    return positions


def _either(generation: dict[str, Any], config: dict[str, Any], name: str) -> object:
    value = generation.get(name)
    return value if value is not None else config.get(name)


def _ids(path: Path, name: str, value: object) -> tuple[int, ...]:
    """Token ids from a number, a list or nothing. Negative ones mean none in old configs."""
    items = [] if value is None else value if isinstance(value, list) else [value]
    ids = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
    if len(ids) < len(items):
        raise ModelError(
            f"{path}: {name} is {value!r}, expected a token id or a list of them", hint="see generation_config.json"
        )
    return tuple(item for item in ids if item >= 0)


def _first(ids: tuple[int, ...]) -> int | None:
    return ids[0] if ids else None


def _sampling(path: Path, generation: dict[str, Any]) -> DefaultSampling:
    fields = {name: generation.get(name) for name in DefaultSampling.__struct_fields__}
    try:
        return msgspec.convert(fields, DefaultSampling)
    except msgspec.ValidationError as cause:
        raise ModelError(f"{path / 'generation_config.json'}: {cause}, found {fields!r}", hint="correct that value") from cause
