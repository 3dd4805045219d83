"""AlignX: align a causal language model on several axes and mix the experts for every prompt."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignx.config import load_config as load_config
    from alignx.errors import AlignXError as AlignXError
    from alignx.mixture.runtime import AlignX as AlignX
    from alignx.mixture.runtime import Answer as Answer
    from alignx.mixture.runtime import MixtureWeights as MixtureWeights
    from alignx.stage2.dial import Dial as Dial
    from alignx.workflow import run_all as run_all

# Imported when first used: torch and Transformers take seconds, and `alignx --help` needs neither.
_HOMES = {
    "AlignX": "alignx.mixture.runtime",
    "AlignXError": "alignx.errors",
    "Answer": "alignx.mixture.runtime",
    "Dial": "alignx.stage2.dial",
    "MixtureWeights": "alignx.mixture.runtime",
    "load_config": "alignx.config",
    "run_all": "alignx.workflow",
}

__all__ = ["AlignX", "AlignXError", "Answer", "Dial", "MixtureWeights", "load_config", "run_all"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module `alignx` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted(__all__)
