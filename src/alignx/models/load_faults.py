"""Why a base could not be loaded, in one line with the remedy."""

from pathlib import Path

_PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "consolidated*.pth")


def explain(name: str, location: str, error: Exception) -> str:
    """What to tell about a base that Transformers could not load.

    Args:
        name: as given in the config.
        location: hub id or folder it was looked for.
        error: what Transformers raised; its text differs by version, so only few facts are read from it.
    """
    folder, text = Path(location), " ".join(str(error).split())
    convert = "convert it where you trust it (load and `save_pretrained` in Transformers) and give that folder"
    if folder.is_dir():
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        if pickled and not any(folder.glob("*.safetensors")):
            return (
                f"model `{name}`: {folder / pickled[0]} is a pickle, which can run code when it is read, so it is not; "
                f"{convert}"
            )
    elif _offline():
        return (
            f"model `{name}`: not in the local cache, and HF_HUB_OFFLINE is set; unset it to download {location}, or "
            "give a local folder"
        )
    elif "model.safetensors" in text:
        return (
            f"model `{name}`: {location} has no safetensors weights on the hub, and pickles are not read; try "
            f"`revision:` with a converted one (often refs/pr/N, see its pull requests), or {convert}"
        )
    return (
        f"model `{name}` cannot be loaded from {location} ({type(error).__name__}: {text[:300]}); "
        "check the name and the network, or give a local folder"
    )


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
