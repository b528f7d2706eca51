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


def test_every_from_pretrained_says_whether_remote_code_may_run():
    """transformers asks on standard input where nothing is said; only a caller of the library may say yes."""
    silent = set()
    for path, node in calls():
        loads = called(node).endswith((".from_pretrained", ".download")) and not called(node).startswith("super(")
        if not loads or path == "trainer_scripts/demos/read_back.py":  # which shows what a user writes
            continue
        given = " ".join(ast.unparse(keyword) for keyword in node.keywords)
        if given.endswith("**kwargs"):
            given = defaults_above(path, node)
        # The app passes on what its option `--trust_remote_code` says.
        asked = path == "trainer_scripts/app_pages/models.py" and "trust_remote_code=trust_remote_code" in given
        if not asked and "trust_remote_code=False" not in given and "'trust_remote_code': False" not in given:
            silent.add((path, node.lineno, ast.unparse(node)))
    assert not silent


def defaults_above(path: str, call: ast.Call) -> str:
    """Return the statements of the function around a call that give `kwargs` its defaults."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.lineno < call.lineno <= (node.end_lineno or 0):
            return "; ".join(ast.unparse(one) for one in node.body if ast.unparse(one).startswith("kwargs = "))
    return ""


def test_no_command_of_this_package_trusts_remote_code():
    yes = {
        (path, node.lineno)
        for path, node in calls()
        for keyword in node.keywords
        if keyword.arg == "trust_remote_code" and ast.unparse(keyword.value) == "True"
    }
    assert {path for path, _ in yes} <= {"trainer_scripts/demos/read_back.py"}
