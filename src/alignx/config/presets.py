"""Published settings (AlignX, EACL 2026) and the built-in axis instructions."""

from typing import Any

AXIS_INSTRUCTIONS = {
    "helpful": "Be helpful: do what is asked, completely and clearly, in as few words as it needs.",
    "harmless": "Be harmless: refuse to help with anything that could hurt someone, say why, and offer a safe way.",
    "honest": "Be honest: say only what is true, correct false beliefs, and say so when nobody knows.",
}

_PAPER_STAGE1: dict[str, Any] = {
    "method": "full",
    "learning_rate": 2e-5,
    "epochs": 3,
    "batch_size": 64,
    "micro_batch_tokens": 4096,
    "weight_decay": 0.01,
    "injection_rate": 1.0,
    "latent_size": 256,
    "shared_expert": False,
}

# Published: 20k Alpaca pairs and 30k BeaverTails pairs are rows read; how many prompts remain with a safe answer
# depends on the draw, so the split sizes leave room.
_PAPER: dict[str, Any] = {
    "template": "alpaca",
    "dtype": "bfloat16",
    "axes": {
        "helpful": {
            "dataset": "alpaca",
            "max_examples": 20000,
            "splits": {"train": 17000, "mix": 1000, "calibration": 500, "test": 500},
        },
        "harmless": {
            "dataset": "beavertails",
            "max_examples": 30000,
            "splits": {"train": 4000, "mix": 500, "calibration": 400, "test": 500},
        },
        "honest": {
            "dataset": "truthfulqa",
            "splits": {"train": 470, "mix": 85, "calibration": 80, "test": 182},
        },
    },
    "stage1": _PAPER_STAGE1,
    "stage2": {
        "lambda_fractal": 0.6,
        "lambda_natural": 0.4,
        "learn_coefficients": False,
        "fit_temperature": False,
        "epsilon": 0.05,
    },
}

# The published rate reads as full fine-tuning; LoRA updates need a larger one (Schulman et al. 2025, "LoRA Without
# Regret": about ten times).
_PAPER_LORA: dict[str, Any] = {**_PAPER, "stage1": {**_PAPER_STAGE1, "method": "lora", "learning_rate": 2e-4}}

PRESETS: dict[str, dict[str, Any]] = {"paper": _PAPER, "paper-lora": _PAPER_LORA}
