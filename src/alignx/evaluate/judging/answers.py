"""Answers of every method to every test prompt, generated once and kept row by row.

`answers.jsonl` only grows: each batch is appended as whole lines, so a kill loses at most the batch in progress, and a
rerun makes only what is missing. A row whose method, prompt or settings have changed since stays in the file under its
old key and is not read any more.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.data.batches import rows_by_length
from alignx.errors import ArtifactError, ConfigError
from alignx.evaluate.methods import Method
from alignx.evaluate.prompts import TestPrompt
from alignx.mixture.padding import left_padded
from alignx.models.fold import folded
from alignx.models.gated import GatedModel
from alignx.models.load import BaseModel
from alignx.progress import notice, progress
from alignx.runs import processes
from alignx.runs.directory import fingerprint
from alignx.runs.files import read_jsonl


@dataclass(frozen=True)
class KeptAnswer:
    """One answer and what made it.

    Attributes:
        key: fingerprint of everything the answer depends on.
        prompt_hash: identity of the prompt.
        group: axis its data comes from, or `overrefusal`.
        dataset: schema of that data, or `overrefusal`.
        method: who answered.
        prompt: what was asked, as one text.
        answer: what was said, without control tokens.
        finished: whether the model ended the answer itself.
        n_tokens: tokens generated, the end token among them.
        prompt_cut: tokens taken off the prompt's start to fit the context.
    """

    key: str
    prompt_hash: str
    group: str
    dataset: str
    method: str
    prompt: str
    answer: str
    finished: bool
    n_tokens: int
    prompt_cut: int


def answer_key(config: RunConfig, prompt: TestPrompt, method: str, made_from: str, max_new_tokens: int) -> str:
    """Fingerprint of everything an answer depends on; the base is the run's own, which `base.json` guards."""
    model = [config.model, config.revision, config.dtype, config.template]
    return fingerprint(
        [model, prompt.example.instruction, prompt.example.input, prompt.group, method, made_from, max_new_tokens]
    )


def read_answers(path: Path) -> dict[str, KeptAnswer]:
    """Kept answers by key; a last line that a kill has cut is taken off the file.

    Raises:
        ArtifactError: another line is damaged.
    """
    if not path.is_file():
        return {}
    _drop_cut_line(path)
    if path.stat().st_size == 0:
        return {}
    kept = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            kept[row["key"]] = KeptAnswer(**row)
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: row {number} is damaged ({error}); remove the file and run again") from error
    return kept


def make_answers(
    config: RunConfig,
    base: BaseModel,
    gated: GatedModel,
    found: Sequence[Method],
    prompts: Sequence[TestPrompt],
    path: Path,
    *,
    max_new_tokens: int,
) -> None:
    """Generate what is missing, greedily, method by method, in batches of similar length; several processes share them.

    Args:
        config: the run's config; `evaluate.batch_size` prompts a batch.
        base: the model.
        gated: the adapters, installed in it.
        found: methods that answer, with a row of weights for each prompt.
        prompts: what they answer.
        path: of `answers.jsonl`.
        max_new_tokens: longest answer.

    Raises:
        ConfigError: no room for an answer in the model's context.
        ArtifactError: the file is damaged.
    """
    if not 1 <= max_new_tokens < base.context_tokens:
        raise ConfigError(
            f"--max-new-tokens {max_new_tokens}: must be at least 1 and leave room for a prompt in the model's "
            f"{base.context_tokens} tokens"
        )
    kept = read_answers(path)
    encoded = [_encode(base, prompt, max_new_tokens) for prompt in prompts]
    for method in found:
        keys = [answer_key(config, prompt, method.name, method.made_from, max_new_tokens) for prompt in prompts]
        missing = [row for row, key in enumerate(keys) if key not in kept]
        if not missing:
            notice(f"answers of {method.name}: up to date")
            continue
        with (
            folded(base.model, method.updates) if method.updates else nullcontext(),
            progress(f"answers of {method.name}", len(missing)) as advance,
        ):
            batches = rows_by_length([len(encoded[row][0]) for row in missing], config.evaluate.batch_size)
            for start in range(0, len(batches), processes.world()):
                made = []
                for places in processes.own_share(batches[start : start + processes.world()]):
                    rows = [missing[place] for place in places]
                    weights = None if method.weights is None else method.weights[rows]
                    said = _generate(base, gated, [encoded[row][0] for row in rows], weights, max_new_tokens)
                    made += [
                        _row(keys[row], prompts[row], method.name, base, tokens, encoded[row][1])
                        for row, tokens in zip(rows, said, strict=True)
                    ]
                together = processes.gather(made)
                processes.from_main(partial(_append, path, together))
                advance(len(together))


def _encode(base: BaseModel, prompt: TestPrompt, max_new_tokens: int) -> tuple[list[int], int]:
    """The prompt's last tokens that leave room for the answer, and how many were cut off."""
    ids = base.template.encode_prompt(prompt.example.instruction, input=prompt.example.input)
    kept = ids[-(base.context_tokens - max_new_tokens) :]
    return kept, len(ids) - len(kept)


def _generate(
    base: BaseModel, gated: GatedModel, ids: Sequence[Sequence[int]], weights: Tensor | None, max_new_tokens: int
) -> list[list[int]]:
    """New tokens of each row."""
    input_ids, attention_mask = left_padded(ids, base.pad_token_id)
    with torch.no_grad(), gated.using(weights):
        output = base.model.generate(
            input_ids=input_ids.to(base.model.device),
            attention_mask=attention_mask.to(base.model.device),
            max_new_tokens=max_new_tokens,
            eos_token_id=base.template.end_token_id,
            pad_token_id=base.pad_token_id,
            do_sample=False,
        )
    new: list[list[int]] = output[:, input_ids.shape[1] :].tolist()
    return new


def _row(key: str, prompt: TestPrompt, method: str, base: BaseModel, tokens: list[int], cut: int) -> KeptAnswer:
    end = base.template.end_token_id
    finished = end in tokens
    said = tokens[: tokens.index(end)] if finished else tokens
    return KeptAnswer(
        key=key,
        prompt_hash=prompt.example.prompt_hash,
        group=prompt.group,
        dataset=prompt.dataset,
        method=method,
        prompt=prompt.text,
        answer=base.tokenizer.decode(said, skip_special_tokens=True).strip(),
        finished=finished,
        n_tokens=len(said) + finished,
        prompt_cut=cut,
    )


def _append(path: Path, rows: Sequence[KeptAnswer]) -> None:
    """Add whole lines, and have them on disk before the next batch starts."""
    text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(text.encode("utf-8", errors="replace"))
        file.flush()
        os.fsync(file.fileno())


def _drop_cut_line(path: Path) -> None:
    raw = path.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):
        notice(f"{path}: its last line was cut off by a kill; that answer is made again")
        with path.open("r+b") as file:
            file.truncate(whole)


def answers_of(
    config: RunConfig,
    kept: Mapping[str, KeptAnswer],
    prompts: Sequence[TestPrompt],
    sources: Mapping[str, str],
    *,
    max_new_tokens: int,
) -> dict[str, list[KeptAnswer | None]]:
    """Method -> its kept answer to each prompt, none where it is missing."""
    return {
        method: [kept.get(answer_key(config, prompt, method, made_from, max_new_tokens)) for prompt in prompts]
        for method, made_from in sources.items()
    }
