"""The house keeps its shape: imports run one way, folders stay small, product code needs no tests."""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dataset_builder", "modeling_flavour", "trainer_scripts", "model_cards")
MOST_FILES = 15
# Of a file, and of a function without its docstring. Most are far below; what comes near is divided by idea.
MOST_LINES, MOST_LINES_OF_FUNCTION = 500, 70

# The verb scripts, which are "", start the demos and the pretraining, and these run verbs.
TOP = {"", "demos", "pretraining"}
# From the bottom up. A folder may import folders of lower floors; those of one floor do not know each other.
FLOORS = {
    "trainer_scripts": [
        {"settings"},
        {"data"},
        {"evaluation"},
        {"features"},
        {"tasks"},
        {"training"},
        {"scoring"},
        {"comparing", "exporting", "improving"},
        {"app_pages"},
        TOP,
    ],
    "dataset_builder": [
        {"columns", "messages"},
        {"processes", "progress"},
        {"errors"},
        {"boundaries", "kinds", "named_files"},
        {"storage", "engines"},
        {"hub_files"},
        {"files", "hub_data", "schema", "recipes", "local_hub"},
        {"catalogue"},
        {"labelling", "plating"},
        {"pictures"},
        {"building"},
        {"flavour_sd", "importers"},
        {"publishing"},
        {"cli"},
    ],
}
# `modeling_flavour` travels to the Hub and knows nothing of the others.
MAY_IMPORT = {
    "modeling_flavour": {"modeling_flavour"},
    "model_cards": {"model_cards"},
    "dataset_builder": {"dataset_builder", "model_cards"},
    "trainer_scripts": set(PACKAGES),
}


def modules_of(root: Path, packages: Iterable[str]) -> dict[str, Path]:
    """Return the modules below a folder by their dotted names."""
    paths = (path for package in packages for path in (root / package).rglob("*.py"))
    named = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def imports_of(name: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """Return the known modules that a module imports anywhere in its text, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
    return {module for module in found if module in known and module != name}


def circle_of(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return a circle of a graph, [] where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def folders_graph(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return which folder imports which; a module directly in a package stands for itself."""
    folder = {name: name if name.count(".") < 2 else name.rpartition(".")[0] for name in graph}
    folders: dict[str, set[str]] = defaultdict(set)
    for name, imported in graph.items():
        folders[folder[name]] |= {folder[other] for other in imported} - {folder[name]}
    return folders


def upward(graph: Mapping[str, set[str]], package: str, floors: list[set[str]]) -> list[str]:
    """Return the imports of a package that do not go to a lower floor."""
    floor = {part: number for number, parts in enumerate(floors) for part in parts}

    def part_of(name: str) -> str:
        inner = name.split(".")[1:]
        return inner[0] if inner and inner[0] in floor else ""

    wrong = []
    for name, imported in graph.items():
        for other in imported:
            if not (name.startswith(f"{package}.") and other.startswith(f"{package}.")):
                continue
            here, there = part_of(name), part_of(other)
            if here != there and floor[there] >= floor[here] and not {here, there} <= TOP:
                wrong.append(f"{name} imports {other}")
    return wrong


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules_of(ROOT, PACKAGES)
    return {name: imports_of(name, path, known) for name, path in known.items()}


def test_no_circle_between_files(graph):
    assert circle_of(graph) == []


def test_no_circle_between_folders(graph):
    assert circle_of(folders_graph(graph)) == []


@pytest.mark.parametrize("package", FLOORS)
def test_imports_only_go_down(graph, package):
    assert upward(graph, package, FLOORS[package]) == []


@pytest.mark.parametrize("package", FLOORS)
def test_every_folder_has_a_floor(package):
    placed = set().union(*FLOORS[package])
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert folders - placed == set()


def test_packages_import_only_those_that_they_may(graph):
    wrong = [
        f"{name} imports {other}"
        for name, imported in graph.items()
        for other in imported
        if other.split(".")[0] not in MAY_IMPORT[name.split(".")[0]]
    ]
    assert wrong == []


def test_product_code_does_not_import_tests():
    for name, path in modules_of(ROOT, PACKAGES).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [module or ""]
            assert not any(each.split(".")[0] == "tests" for each in names), name


def test_folders_stay_small():
    counts = defaultdict(int)
    for path in modules_of(ROOT, ("dataset_builder", "trainer_scripts", "model_cards")).values():
        counts[path.parent] += 1
    assert {str(folder): count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_files_and_functions_stay_small():
    long = {}
    for name, path in modules_of(ROOT, (*PACKAGES, "tests", "benchmarks")).items():
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > MOST_LINES:
            long[name] = text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                docstring = node.body[0] if ast.get_docstring(node) is not None else None
                of_docstring = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
                lines = node.end_lineno - node.lineno + 1 - of_docstring
                if lines > MOST_LINES_OF_FUNCTION:
                    long[f"{name}.{node.name}"] = lines
    assert long == {}


def test_no_folder_of_scripts_shadows_a_library():
    # The folder of a script that is run comes first on the path of modules.
    names = {path.stem for path in (ROOT / "trainer_scripts").iterdir()} - {"__init__", "__pycache__"}
    installed = set(sys.stdlib_module_names) | {"onnx", "evaluate", "datasets", "tokenizers", "transformers", "peft"}
    assert names & installed == set()


def test_a_circle_and_an_upward_import_are_found():
    circle = {
        "trainer_scripts.data.a": {"trainer_scripts.data.b"},
        "trainer_scripts.data.b": {"trainer_scripts.data.a"},
    }
    assert set(circle_of(circle)) == set(circle)
    rising = {"trainer_scripts.data.a": {"trainer_scripts.tasks.b"}, "trainer_scripts.tasks.b": set()}
    floors = FLOORS["trainer_scripts"]
    assert upward(rising, "trainer_scripts", floors) == ["trainer_scripts.data.a imports trainer_scripts.tasks.b"]
    assert circle_of(folders_graph({"p.a.x": {"p.b.y"}, "p.b.z": {"p.a.w"}, "p.b.y": set(), "p.a.w": set()}))


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_each_library_is_pinned_once(name):
    lines = (ROOT / name).read_text().splitlines()
    pinned = Counter(line.split("==")[0].lower() for line in lines if "==" in line and not line.startswith("#"))
    assert [library for library, times in pinned.items() if times > 1] == []
