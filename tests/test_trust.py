"""Rules of the whole code about what comes from outside: each is read from the source of the packages."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("dataset_builder", "modeling_flavour", "trainer_scripts", "model_cards")


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in the packages with the path of its file."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield path.relative_to(ROOT).as_posix(), node


def called(node: ast.Call) -> str:
    """Return the name that is called, with the objects before it: `csv.writer`."""
    return ast.unparse(node.func)


def test_only_echo_prints():
    # The demo runs this file in a process that has none of our packages.
    free = {"dataset_builder/messages.py", "trainer_scripts/demos/read_back.py"}
    assert not {(path, node.lineno) for path, node in calls() if called(node) == "print" and path not in free}


def test_only_write_csv_writes_tables_for_spreadsheets():
    # The lexicon beside a build is read again by its hash, so its cells stay as they are.
    free = {"dataset_builder/files.py", "dataset_builder/building/finished_build.py"}
    writers = ("csv.writer", "csv.DictWriter")
    assert not {(path, node.lineno) for path, node in calls() if called(node) in writers and path not in free}


def test_nothing_asks_on_standard_input():
    assert not {(path, node.lineno) for path, node in calls() if called(node) in ("input", "getpass", "sys.stdin.read")}
