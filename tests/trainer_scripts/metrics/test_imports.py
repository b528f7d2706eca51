import ast
from pathlib import Path

import pytest

import dataset_builder
import modeling_flavour
import trainer_scripts

METRICS = Path(trainer_scripts.__file__).parent / "metrics"


@pytest.mark.parametrize("package", [dataset_builder, modeling_flavour, trainer_scripts])
def test_only_the_metric_modules_import_evaluate(package):
    importing = []
    for path in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "evaluate" for name in names) and METRICS not in path.parents:
                importing.append(path)
    assert importing == []
