"""One prompt at several settings of the dial, kept beside the figures."""

from alignx.config import DialSetting, RunConfig
from alignx.mixture.runtime import AlignX, Answer
from alignx.models.lazy import LazyBase
from alignx.progress import notice
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_jsonl, write_jsonl
from alignx.stage2.dial import Dial

LEAN = 20.0


def showcase_settings(config: RunConfig) -> list[DialSetting]:
    """The config's settings, or a lean towards each axis in turn."""
    given = list(config.showcase.settings)
    return given or [DialSetting(label=f"lean to {axis}", weights={axis: LEAN}) for axis in config.axes]


def run_showcase(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> list[dict[str, object]]:
    """Answer the showcase prompt at every setting, as one batch, into `eval/showcase/answers.jsonl`.

    Returns:
        One row a setting; nothing when the config has no showcase prompt.
    """
    if not config.showcase.prompt:
        return []
    path = run.evaluation_folder("showcase") / "answers.jsonl"
    settings = showcase_settings(config)
    inputs = {
        "mocae": run.step_fingerprint("mocae"),
        "showcase": config.showcase.model_dump(mode="json"),
        "settings": [setting.model_dump(mode="json") for setting in settings],
    }
    if run.is_done("showcase", inputs, path):
        notice("showcase: up to date")
        return read_jsonl(path)
    dials = [Dial(setting.weights, setting.floors, setting.strength) for setting in settings]
    notice(f"answering the showcase prompt at {len(dials)} dial settings")
    with AlignX.from_run(config, run, lazy) as model:
        answers = model.generate(
            [config.showcase.prompt] * len(dials), dials, max_new_tokens=config.showcase.max_new_tokens
        )
    rows = [
        answer_row(setting.label, config.showcase.prompt, answer)
        for setting, answer in zip(settings, answers, strict=True)
    ]
    write_jsonl(path, rows)
    run.mark_done("showcase", inputs, path)
    return rows


def answer_row(setting: str, prompt: str, answer: Answer) -> dict[str, object]:
    """An answer with its weights, for jsonl."""
    weights = answer.weights
    return {
        "setting": setting,
        "prompt": prompt,
        "answer": answer.text,
        "pi": weights.pi,
        "scale": weights.scale,
        "axis_probs": weights.axis_probs,
        "best_probs": weights.best_probs,
        "known": weights.known,
        "out_of_distribution": weights.out_of_distribution,
        "finished": answer.finished,
        "n_tokens": answer.n_tokens,
    }
