"""Names on the command line: `org/name@REVISION` for a revision, `org/name:CONFIGURATION` for one table of several."""

from pathlib import Path


def pinned(name: str) -> tuple[str, str | None]:
    """Return a Hub id and its revision (tag, branch or commit), None without one; an existing path stays as it is.

    >>> pinned("org/lora@1a2b3c"), pinned("org/lora")
    (('org/lora', '1a2b3c'), ('org/lora', None))
    """
    return _split(name, "@")


def configured(name: str) -> tuple[str, str | None]:
    """Return a Hub id and the configuration of its data set, None without one; an existing path stays as it is.

    >>> configured("org/recipes:german"), configured("org/recipes")
    (('org/recipes', 'german'), ('org/recipes', None))
    """
    return _split(name, ":")


def _split(name: str, mark: str) -> tuple[str, str | None]:
    try:
        is_path = Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a path, or the home of nobody
        is_path = False
    head, _, tail = name.partition(mark)
    return (name, None) if is_path or not head else (head, tail or None)


def several_configurations(name: str) -> str | None:
    """Return the message for a data set of several configurations of which none was named; None for any other."""
    from datasets import get_dataset_config_names

    try:
        # The names are only needed for a message, so a Hub that does not answer is no further error.
        known = get_dataset_config_names(name)
    except (OSError, ValueError, RuntimeError):
        return None
    if len(known) < 2:
        return None
    return f"{name} has the configurations {', '.join(known)}; write {name}:{known[0]} for one of them"
