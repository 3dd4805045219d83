"""Tiny random models, tiny data and finished runs: everything a test needs, built in place and offline."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from alignx.config import RunConfig
from alignx.config.presets import AXIS_INSTRUCTIONS
from alignx.models.load import BaseModel, load_base
from alignx.runs import RunDirectory

ARCHITECTURES = ("llama", "mistral", "gemma", "deepseek")
N_PROMPTS = 40

torch.set_num_threads(1)

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_MODELS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 2}),
    # The window covers every sequence: its code runs, and nothing is out of sight.
    "mistral": (MistralConfig, MistralForCausalLM, {"num_key_value_heads": 2, "sliding_window": 128}),
    "gemma": (GemmaConfig, GemmaForCausalLM, {"num_key_value_heads": 1, "head_dim": 8}),
    "deepseek": (LlamaConfig, LlamaForCausalLM, {"num_attention_heads": 8, "num_key_value_heads": 8}),
}

_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_REFUSAL = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
CHAT_TEMPLATES = {"llama": _TURNS, "gemma": _REFUSAL + _TURNS}

_ALPACA_FRAME = [
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n",
    "Below is an instruction that describes a task, paired with an input that provides further context. ",
    "### Instruction:\n### Input:\n### Response:\n",
]
_THINGS = (
    "apple bread candle door engine flower garden hammer island jacket kettle ladder mirror needle orange pencil "
    "queen river saddle table umbrella violin window yard zebra anchor basket circle desert envelope feather glove "
    "harbour insect jungle kitchen lemon mountain notebook ocean"
).split()


def alpaca_rows() -> list[dict[str, str]]:
    """Alpaca's schema; every fifth row has an input."""
    return [
        {
            "instruction": f"Write a line about the {thing}.",
            "input": f"It is {len(thing)} years old." if number % 5 == 0 else "",
            "output": f"The {thing} is {('red', 'blue', 'green')[number % 3]} and {('big', 'small')[number % 2]}.",
        }
        for number, thing in enumerate(_THINGS[:N_PROMPTS])
    ]


def beavertails_rows() -> list[dict[str, Any]]:
    """BeaverTails' schema: an unsafe and a safe answer to every prompt."""
    rows = []
    for thing in _THINGS[:N_PROMPTS]:
        prompt = f"How can I steal the {thing}?"
        rows += [
            {"prompt": prompt, "response": f"Take the {thing} at night.", "category": {}, "is_safe": False},
            {"prompt": prompt, "response": f"Please do not; ask for the {thing}.", "category": {}, "is_safe": True},
        ]
    return rows


def truthfulqa_rows() -> list[dict[str, str]]:
    """TruthfulQA's schema: two correct and two incorrect answers to every question."""
    return [
        {
            "Type": "Adversarial",
            "Category": "Misconceptions",
            "Question": f"Does the {thing} bring luck?",
            "Best Answer": f"No, the {thing} does not.",
            "Correct Answers": f"No, the {thing} does not.; Nothing says the {thing} does.",
            "Incorrect Answers": f"Yes, the {thing} does.; The {thing} brings much luck.",
            "Source": "none",
        }
        for thing in _THINGS[:N_PROMPTS]
    ]


def build_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the tiny data."""
    special = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    rows = [*alpaca_rows(), *beavertails_rows(), *truthfulqa_rows()]
    sentences = [value for row in rows for value in row.values() if isinstance(value, str)]
    trainer = trainers.BpeTrainer(
        vocab_size=512,  # 256 bytes, 5 special tokens and enough merges to write prompts in fewer than 96 tokens
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*sentences, *[*_ALPACA_FRAME, *AXIS_INSTRUCTIONS.values()] * 50], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    wrapped.chat_template = chat_template
    return wrapped


def build_model(architecture: str, folder: Path) -> Path:
    """Save a tiny random model with its tokenizer."""
    config_class, model_class, options = _MODELS[architecture]
    tokenizer = build_tokenizer(CHAT_TEMPLATES.get(architecture))
    torch.manual_seed(ARCHITECTURES.index(architecture))
    model = model_class(config_class(**{**_SIZES, "vocab_size": len(tokenizer), **options}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """Each architecture in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Architecture -> folder of a tiny random model."""
    root = tmp_path_factory.mktemp("models")
    return {architecture: build_model(architecture, root / architecture) for architecture in ARCHITECTURES}


@pytest.fixture(scope="session")
def load_tiny(tiny_models: dict[str, Path]) -> Callable[[str], BaseModel]:
    """Architecture -> a freshly loaded base, which the caller may change."""
    return lambda architecture: load_base(str(tiny_models[architecture]))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 prompts in each published schema."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "alpaca.json").write_text(json.dumps(alpaca_rows()), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in beavertails_rows())
    (folder / "beavertails.jsonl").write_text(lines, encoding="utf-8")
    rows = truthfulqa_rows()
    with (folder / "truthfulqa.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="session")
def tiny_config(tiny_data: Path) -> Callable[..., RunConfig]:
    """Factory of configs: `tiny_config(model_folder, stage1={"rank": 4}, seed=1)`; mappings are overlaid."""

    def make(model_folder: Path | str, **overrides: Any) -> RunConfig:
        splits = {"train": 16, "mix": 8, "calibration": 8, "test": 8}
        raw: dict[str, Any] = {
            "model": str(model_folder),
            "axes": {
                "helpful": {"dataset": "alpaca", "source": str(tiny_data / "alpaca.json"), "splits": splits},
                "harmless": {
                    "dataset": "beavertails",
                    "source": str(tiny_data / "beavertails.jsonl"),
                    "splits": splits,
                },
                "honest": {"dataset": "truthfulqa", "source": str(tiny_data / "truthfulqa.csv"), "splits": splits},
            },
            "stage1": {
                "rank": 2,
                "alpha": 4,
                "latent_size": 8,
                "epochs": 1,
                "batch_size": 4,
                "precision": "float32",
                "learning_rate": 1e-2,
                "shared_expert": True,
                "max_tokens": 96,
            },
            "stage2": {"dimension_neighbours": (4, 8), "end_to_end": {"epochs": 1}},
            "evaluate": {
                "max_tokens": 120,
                "bootstrap_draws": 100,
                "joint_candidates": [{"learning_rate": 1e-2, "epochs": 1}],
            },
        }
        return RunConfig.model_validate(_overlay(raw, overrides))

    return make


@pytest.fixture(scope="session")
def finished_run(
    tiny_models: dict[str, Path], tiny_config: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[RunConfig, RunDirectory]]:
    """Architecture -> config and directory of a run with both stages done; made once, so leave it as it is."""
    from alignx.stage1.pipeline import run_stage1
    from alignx.stage2.pipeline import run_stage2

    finished: dict[str, tuple[RunConfig, RunDirectory]] = {}

    def finish(architecture: str) -> tuple[RunConfig, RunDirectory]:
        if architecture not in finished:
            config = tiny_config(tiny_models[architecture])
            run = RunDirectory(tmp_path_factory.mktemp(f"run-{architecture}"))
            run_stage1(config, run)
            run_stage2(config, run)
            finished[architecture] = (config, run)
        return finished[architecture]

    return finish


@pytest.fixture(scope="session")
def evaluated_runs(
    tiny_models: dict[str, Path], tiny_config: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDirectory, RunDirectory]:
    """Two evaluated runs on the same prompts, the second of another rank and without joint LoRA: to be read only."""
    from alignx.workflow import run_all

    root = tmp_path_factory.mktemp("evaluated")
    prompt = {"prompt": "Why?", "max_new_tokens": 4}
    run_all(tiny_config(tiny_models["llama"], showcase=prompt), root / "first")
    run_all(tiny_config(tiny_models["llama"], stage1={"rank": 3}, evaluate={"joint": False}), root / "second")
    return RunDirectory(root / "first"), RunDirectory(root / "second")


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _overlay(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged
