"""Reading a config file: every problem at once, each with its remedy."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from alignx.config.presets import PRESETS
from alignx.config.schema import RunConfig
from alignx.config.strict import StrictModel
from alignx.errors import ConfigError

Model = TypeVar("Model", bound=StrictModel)


def load_config(path: Path) -> RunConfig:
    """Read and check a YAML config.

    A top-level `preset: NAME` starts from that preset; the file's own keys win, mapping by mapping.

    Raises:
        ConfigError: no such file, not YAML, unknown key or value out of range; the message names all of them.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; `configs/demo.yaml` is one that runs anywhere") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a UTF-8 YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())}); mend the file") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected `key: value` lines at the top level, found {type(raw).__name__}")
    return parse_config(raw, source=str(path))


def parse_config(raw: dict[str, Any], *, source: str) -> RunConfig:
    """Check a mapping as a run's config; `source` names it in messages."""
    raw = dict(raw)
    preset = raw.pop("preset", None)
    if preset is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ConfigError(f"{source}: unknown preset `{preset}`; known presets: {', '.join(sorted(PRESETS))}")
        raw = _overlay(PRESETS[preset], raw)
    return check_settings(RunConfig, raw, source=source)


def check_settings(model: type[Model], raw: Any, *, source: str) -> Model:
    """Check settings as a model of theirs; `source` names them in messages.

    Raises:
        ConfigError: unknown key or value out of range; the message names all of them.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = [_describe(model, dict(item)) for item in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(problems)) from None


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _overlay(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _describe(root: type[StrictModel], problem: dict[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    where = ".".join(location) or "top level"
    given = problem.get("input")
    if problem["type"] == "extra_forbidden":
        known = _keys_at(root, location[:-1])
        near = get_close_matches(location[-1], known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key `{where}`; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "literal_error":
        near = get_close_matches(str(given), re.findall(r"'([^']+)'", message), n=1)
        message += f"; did you mean `{near[0]}`?" if near else ""
    shown = f" (given: {given!r:.80})" if not isinstance(given, dict) else ""
    return f"`{where}`: {message}{shown}"


def _keys_at(root: type[StrictModel], location: list[str]) -> list[str]:
    """Keys a config may have at a place; names inside `axes` are the user's own."""
    model: type[BaseModel] = root
    own_name = False
    for part in location:
        field = None if own_name else model.model_fields.get(part)
        own_name = False
        if field is not None:
            model = _inner_model(field.annotation) or model
            own_name = get_origin(field.annotation) is dict
    extra = ["preset"] if model is RunConfig else []
    return sorted([*model.model_fields, *extra])


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """The settings model that a field holds: itself, or inside a list or a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for part in get_args(annotation) if (inner := _inner_model(part))), None)
