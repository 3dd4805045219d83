"""Reading a config file: every problem at once, each with its remedy."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from alignx.config.presets import PRESETS
from alignx.config.schema import AxisConfig, RunConfig
from alignx.errors import ConfigError


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
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        problems = [_describe(dict(item)) for item in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(problems)) from None


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _overlay(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _describe(problem: dict[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    where = ".".join(location) or "top level"
    if problem["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        near = get_close_matches(location[-1], known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key `{where}`; {hint}"
    return f"`{where}`: {problem['msg'].removeprefix('Value error, ')} (given: {problem.get('input')!r:.80})"


def _keys_at(location: list[str]) -> list[str]:
    """Keys a config may have at a place; names inside `axes` are the user's own."""
    model: type[BaseModel] = RunConfig
    for part in location:
        if model is RunConfig and part == "axes":
            model = AxisConfig
            continue
        field = model.model_fields.get(part)
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    extra = ["preset"] if model is RunConfig else []
    return sorted([*model.model_fields, *extra])
