"""The parser of the command lines beside `train.py`."""

import argparse
from typing import Any


class ArgumentParser(argparse.ArgumentParser):
    """Takes options of several words with hyphens and with underscores alike, as the parser of transformers does."""

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add an option under both spellings; the one given is shown first."""
        others = (name[:2] + name[2:].translate(_OTHER) for name in names if name.startswith("--"))
        return super().add_argument(*dict.fromkeys((*names, *others)), **settings)


_OTHER = str.maketrans("-_", "_-")
