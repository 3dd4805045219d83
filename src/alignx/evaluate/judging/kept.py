"""Kept answers and verdicts that are about what a run still gives; stale rows of the files are not read."""

from alignx.config import RunConfig
from alignx.evaluate.judging.answers import KeptAnswer, answer_key, read_answers
from alignx.evaluate.judging.rows import JudgedRow, read_judged
from alignx.evaluate.methods import sources
from alignx.evaluate.pipeline import TEST, find_test_examples
from alignx.evaluate.prompts import judged_prompts
from alignx.runs.directory import RunDirectory


def current_keys(config: RunConfig, run: RunDirectory, max_new_tokens: int) -> set[str]:
    """Keys of the answers that the run's methods give to its test prompts now."""
    examples, _ = find_test_examples(config, run, None)
    prompts = judged_prompts(config, examples, None)
    return {
        answer_key(config, prompt, method, made_from, max_new_tokens)
        for method, made_from in sources(config, run).items()
        for prompt in prompts
    }


def current_verdicts(config: RunConfig, run: RunDirectory, max_new_tokens: int) -> list[JudgedRow]:
    """Judged rows, of all judges, about those answers.

    Raises:
        ArtifactError: a file is damaged.
    """
    keys = current_keys(config, run, max_new_tokens)
    folder = run.evaluation_folder(TEST) / "judged"
    return [row for path in sorted(folder.glob("*.jsonl")) for row in read_judged(path) if row.answer_key in keys]


def current_answers(
    config: RunConfig, run: RunDirectory, max_new_tokens: int
) -> dict[tuple[str, str, str], KeptAnswer]:
    """(method, group, prompt hash) -> answer.

    Raises:
        ArtifactError: the file is damaged.
    """
    keys = current_keys(config, run, max_new_tokens)
    kept = read_answers(run.evaluation_folder(TEST) / "answers.jsonl")
    return {(answer.method, answer.group, answer.prompt_hash): answer for key, answer in kept.items() if key in keys}
