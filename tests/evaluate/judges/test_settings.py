from pathlib import Path

import pytest

from alignx.errors import ConfigError
from alignx.evaluate.judges.budget import Budget
from alignx.evaluate.judges.registry import make_judges, parse_judges
from alignx.evaluate.judges.settings import JudgeSettings, read_settings


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "judges.yaml"
    path.write_text("openai: {model: one, max_tokens: 9}\ntruth: {base_url: http://x/v1}\n")
    found = read_settings(path, ["openai.model=two", "openai.temperature=null", "openai.api_key_env="])
    assert (found.openai.model, found.openai.max_tokens, found.openai.temperature) == ("two", 9, None)
    assert found.openai.api_key_env == ""
    assert found.truth.base_url == "http://x/v1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("openai: [1]", "expected a judge's name"),
        ("openai: {modle: x}", "did you mean `openai.model`"),
        ("gpt: {model: x}", "no settings for a judge `gpt`"),
        ("openai: {attempts: 0}", "`openai.attempts`"),
        ("a: [", "not YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "judges.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="judges.yaml") as caught:
        read_settings(path, [])
    assert says in str(caught.value)


def test_safety_never_comes_without_refusals() -> None:
    names = [judge.name for judge in make_judges(parse_judges("moderation"), JudgeSettings(), Budget())]
    assert names == ["moderation", "refusal"]


def test_an_endpoint_takes_the_place_of_a_local_judge() -> None:
    settings = read_settings(None, ["truth.base_url=http://x/v1"])
    truth, info = make_judges(["truth", "info"], settings, Budget())
    assert (truth.is_remote, info.is_remote) == (True, False)
    assert truth.template("truth") != make_judges(["truth"], JudgeSettings(), Budget())[0].template("truth")
