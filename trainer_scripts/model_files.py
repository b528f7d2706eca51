"""Files that a run left beside its model, in a folder or on a Hub."""

from pathlib import Path

from transformers.utils import cached_file


def file_of_model(source: str | Path, name: str, revision: str | None = None) -> Path | None:
    """Return a file beside a model, from its folder or from the cache of the Hub; None where the model has none.

    Raises:
        OSError: the Hub has no such model or revision, or does not answer.
    """
    found = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)
