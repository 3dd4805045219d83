"""Bases in 8 or 4 bits (bitsandbytes): what `from_pretrained` is told, and where they cannot run.

Only linear layers are quantised. LoRA experts run behind gates on them as on any other; what adds to the weights
themselves (full fine-tuning, merges, a shared expert below others) has nothing to add to.
"""

import importlib.util
from typing import Any

import torch

from alignx.errors import ModelError
from alignx.runs import processes


def check_quantisation(quantization: str, *, gguf: bool = False) -> None:
    """Refuse what cannot run here, before anything is downloaded.

    Args:
        quantization: `none`, `8bit` or `4bit`.
        gguf: whether the base is a GGUF file.

    Raises:
        ModelError: the file is quantised already, no GPU, or no bitsandbytes.
    """
    if quantization == "none":
        return
    asked = f"quantization `{quantization}`"
    if gguf:
        raise ModelError(
            f"{asked}: the base is a GGUF file, whose weights were rounded already and are read back in full; give a "
            "hub id or a folder of the unrounded model, or set `quantization: none`"
        )
    if not torch.cuda.is_available():
        raise ModelError(
            f"{asked}: needs a CUDA GPU, and PyTorch sees none here; set `quantization: none` (and `dtype: bfloat16` "
            "to halve the memory)"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f'{asked}: the package bitsandbytes is not installed; `pip install "alignx[quantized]"`, or set '
            "`quantization: none`"
        )


def quantised_options(quantization: str) -> dict[str, Any]:
    """Options of `from_pretrained`; empty for `none`.

    4 bits are NF4 with products in bfloat16 (Dettmers et al. 2023, arXiv:2305.14314); 8 bits are LLM.int8 (Dettmers et
    al. 2022, arXiv:2208.07339).
    """
    if quantization == "none":
        return {}
    from transformers import BitsAndBytesConfig

    settings = (
        BitsAndBytesConfig(load_in_8bit=True)
        if quantization == "8bit"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    )
    return {"quantization_config": settings, "device_map": {"": processes.device()}}
