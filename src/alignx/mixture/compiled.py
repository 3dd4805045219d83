"""Folded decoding through `torch.compile`."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from alignx.progress import notice


class CompiledForward:
    """A compiled forward pass of the base, for while a mixture is folded into it and its gates are out of the way.

    Compiled when first used, for any length. Where this machine has no compiler it says so once and changes nothing.

    Args:
        model: the base.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        missing = missing_compiler(model.device.type)
        if missing:
            notice(f"compile: {missing}; answers are made without it")
        self._forward = None if missing else torch.compile(model.forward, dynamic=True)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Forward passes inside are compiled; only for one who has the base to himself."""
        if self._forward is None:
            yield
            return
        self._model.forward = self._forward
        try:
            yield
        finally:
            del self._model.forward


def missing_compiler(device: str) -> str:
    """What `torch.compile` lacks here; empty when nothing."""
    if device == "cpu":
        compilers = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
        return (
            "" if any(name and shutil.which(name) for name in compilers) else "no C++ compiler (g++ or clang++) found"
        )
    return "" if importlib.util.find_spec("triton") else "the package triton is not installed"
