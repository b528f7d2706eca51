"""Files that are complete under their own name, or absent."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_builder.errors import BadInputError


def write_whole(path: Path, write: Any) -> None:
    """Create a file through a temporary name, so that under its own name it is complete or absent.

    Args:
        path: the file.
        write: function of the temporary path that fills it.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:  # as those of Arrow are
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file, None without one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise BadInputError(
            f"{path} is not the JSON that a build writes ({error}); give --fresh or another folder"
        ) from error
