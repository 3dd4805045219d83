"""Rows of a set on the Hugging Face hub, downloaded once or streamed."""

from collections.abc import Iterator

from alignx.data.files import Row
from alignx.errors import DataError


def iterate_hub_rows(name: str, configuration: str | None, split: str, *, streaming: bool) -> Iterator[Row]:
    """The rows of one split, one at a time.

    Args:
        name: `owner/name`.
        configuration: the set's configuration, where it has several.
        split: the split's name.
        streaming: read over the network as rows are asked for, instead of downloading the set first.

    Raises:
        DataError: no such set, no network, or a row that cannot be fetched.
    """
    import datasets

    try:
        for row in datasets.load_dataset(name, configuration, split=split, streaming=streaming):
            yield dict(row)
    except Exception as error:  # the hub's own errors differ by version and by what failed
        reason = str(error).split("\n")[0].strip() or type(error).__name__
        raise DataError(
            f"{name}: cannot be fetched from the hub ({reason}); check the network, or give a local file, e.g. "
            "--dataset alpaca=PATH or `source:` with --data-dir"
        ) from error
