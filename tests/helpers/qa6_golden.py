"""Model and items of the golden test of `prompt_style: qa6`: the same here and where the harness scored them."""

import csv
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "evaluate" / "likelihood" / "golden" / "qa6.json"
CORRECT, INCORRECT = "Correct Answers", "Incorrect Answers"
N_FROM_SAMPLE = 2
# Answers of about one length: a random model weighs them against each other, and MC2 lies well inside (0, 1).
_SHORT = (
    ("Which of these melts in a kitchen oven?", ("lead", "wax"), ("iron", "gold", "clay")),
    ("What falls from a cloud?", ("rain", "hail", "snow"), ("salt", "sand")),
    ("Where does a fish sleep?", ("In the sea.",), ("In a bed.", "On a rug.", "In a hat.")),
    ("Who wrote the letter on the table?", ("I do not know.", "Nobody said."), ("It was Anna.", "It was Paul.")),
)


def golden_items() -> list[dict[str, Any]]:
    """Questions of the package's own sample and some short ones, with targets in the benchmark's layout."""
    with (ROOT / "src/alignx/data/sample/truthfulqa.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:N_FROM_SAMPLE]
    asked = [
        (row["Question"], *(tuple(map(str.strip, row[name].split(";"))) for name in (CORRECT, INCORRECT)))
        for row in rows
    ]
    return [
        {"question": question, "mc1_targets": _targets(true[:1], false), "mc2_targets": _targets(true, false)}
        for question, true, false in [*asked, *_SHORT]
    ]


def _targets(true: tuple[str, ...], false: tuple[str, ...]) -> dict[str, Any]:
    return {"choices": [*true, *false], "labels": [*[1 for _ in true], *[0 for _ in false]]}


def save_golden_model(folder: Path, *, begins_with_bos: bool) -> Path:
    """A tiny random Llama whose tokenizer does, or does not, begin a text with a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [item["question"] for item in golden_items()]
    tokenizer.train_from_iterator(texts * 20, trainer)
    if begins_with_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
