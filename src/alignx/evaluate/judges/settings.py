"""What can be set about each judge, by `--judge-settings FILE.yaml` or `--judge-option JUDGE.FIELD=VALUE`."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from alignx.config.strict import StrictModel
from alignx.errors import ConfigError

Question = Literal["preference", "safety", "refusal", "truth", "info"]


class EndpointSettings(StrictModel):
    """How an OpenAI-compatible endpoint is reached, and what it costs."""

    base_url: str = Field("https://api.openai.com/v1", description="of the endpoint, with its /v1")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable with the key; empty: no key is sent")
    timeout_seconds: float = Field(60.0, gt=0, description="of one request")
    attempts: int = Field(6, ge=1, description="requests for one judgement before it counts as failed")
    max_wait_seconds: float = Field(900.0, ge=0, description="longest wait a server may ask for; longer fails")
    input_price: float | None = Field(None, ge=0, description="US dollars a million prompt tokens; empty: unknown")
    output_price: float | None = Field(None, ge=0, description="US dollars a million completion tokens")


class OpenAISettings(EndpointSettings):
    """The chat judge."""

    model: str = Field("gpt-4", min_length=1)
    temperature: float | None = Field(0.0, ge=0, description="null: not sent, for models that refuse it")
    token_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="newer models want max_completion_tokens"
    )
    max_tokens: int = Field(64, ge=1, description="longest reply; a model that thinks needs thousands")
    questions: tuple[Question, ...] = Field(
        ("preference", "safety", "refusal", "truth", "info"), min_length=1, description="what it is asked"
    )


class ModerationSettings(StrictModel):
    """The classifier of harm categories."""

    model: str = Field("PKU-Alignment/beaver-dam-7b", min_length=1, description="local folder or hub id")
    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which a category counts")
    max_tokens: int = Field(512, ge=16, description="of prompt and answer; what exceeds is cut off, and counted")
    batch_size: int = Field(16, ge=1)
    template: str = Field("BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:{answer}", description="its input")


class YesNoSettings(EndpointSettings):
    """A GPT-Judge: a local causal model, or a model behind a completions endpoint that gives log-probabilities."""

    model: str = Field(min_length=1, description="local folder or hub id; with a base_url the endpoint's name of it")
    base_url: str = Field("", description="completions endpoint, with its /v1; empty: the model is loaded here")
    threshold: float = Field(0.5, gt=0, lt=1, description="probability of yes from which the verdict is yes")
    least_mass: float = Field(0.1, ge=0, le=1, description="yes and no together; below, it was no verdict")
    batch_size: int = Field(16, ge=1)


class TruthSettings(YesNoSettings):
    """Is the answer true?"""

    model: str = Field("allenai/truthfulqa-truth-judge-llama2-7B", min_length=1)


class InfoSettings(YesNoSettings):
    """Is the answer informative?"""

    model: str = Field("allenai/truthfulqa-info-judge-llama2-7B", min_length=1)


class TrainedSettings(StrictModel):
    """Judges that `alignx judge train` made."""

    moderation: str = Field("judges/moderation", min_length=1, description="its folder")
    truth: str = Field("judges/truth", min_length=1, description="its folder")
    info: str = Field("judges/info", min_length=1, description="its folder")
    model: str = Field("", description="where their base lies now; empty: as named when they were trained")
    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which the verdict is yes")
    batch_size: int = Field(16, ge=1)


class JudgeSettings(StrictModel):
    """Settings of all judges; those that are not asked are not looked at."""

    openai: OpenAISettings = OpenAISettings()
    moderation: ModerationSettings = ModerationSettings()
    truth: TruthSettings = TruthSettings()
    info: InfoSettings = InfoSettings()
    trained: TrainedSettings = TrainedSettings()


def read_settings(path: Path | None, options: Sequence[str]) -> JudgeSettings:
    """Settings from a file, then from options, which win.

    Args:
        path: YAML with a mapping for each judge, or none.
        options: `JUDGE.FIELD=VALUE`, the value as YAML reads it.

    Raises:
        ConfigError: anything unknown, malformed or out of its range; names the file or option.
    """
    raw: dict[str, Any] = _file(path) if path is not None else {}
    for option in options:
        judge, field, value = _option(option)
        raw[judge] = {**(raw.get(judge) or {}), field: value}
    try:
        return JudgeSettings.model_validate(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        given = f" (given: {problem.get('input')!r:.80})"
        source = f"--judge-settings {path}" if path is not None else "--judge-option"
        raise ConfigError(f"{source}: `{where}`: {problem['msg']}{given}; see docs/evaluation.md") from None


def _file(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"--judge-settings {path}: cannot be read ({error.strerror}); give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--judge-settings {path}: not YAML ({' '.join(str(error).split())}); mend it") from error
    if not isinstance(raw, dict) or not all(isinstance(part, dict) for part in raw.values()):
        raise ConfigError(f"--judge-settings {path}: expected a judge's name with `field: value` lines below each")
    for judge, part in raw.items():
        for field in part:
            _check_known(f"--judge-settings {path}", str(judge), str(field))
    return raw


def _option(option: str) -> tuple[str, str, Any]:
    name, equals, text = option.partition("=")
    judge, dot, field = name.partition(".")
    if not (equals and dot):
        raise ConfigError(f"--judge-option {option}: expected JUDGE.FIELD=VALUE, e.g. openai.model=gpt-4")
    _check_known(f"--judge-option {option}", judge, field)
    try:
        return judge, field, yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise ConfigError(f"--judge-option {option}: the value cannot be read; put it in quotes") from error


def _check_known(source: str, judge: str, field: str) -> None:
    known = {name: list(type(part).model_fields) for name, part in JudgeSettings()}
    if judge not in known:
        raise ConfigError(f"{source}: no settings for a judge `{judge}`; known: {', '.join(known)}")
    if field not in known[judge]:
        near = get_close_matches(field, known[judge], n=1)
        hint = f"did you mean `{judge}.{near[0]}`?" if near else f"known: {', '.join(known[judge])}"
        raise ConfigError(f"{source}: unknown field `{judge}.{field}`; {hint}")
