"""Every block of docs/build_on_it.md runs, in its order: Python in one namespace, commands as a shell runs them."""

import csv
import io
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer_scripts.conftest import make_row, small_dataset, small_rows  # noqa: F401
from tests.trainer_scripts.tiny_runs import SMALL, run
from trainer_scripts import export, train

pytest.importorskip("peft")
pytest.importorskip("optuna")

PAGE = Path(__file__).parents[1] / "docs" / "build_on_it.md"
PROGRAMS = {"trainer_scripts/train.py": train, "trainer_scripts/export.py": export}
CUISINES = ("greek", "thai", "mexican")


def blocks():
    """Language and text of each block, without those after the heading on graphs, and those alone."""
    before, after = PAGE.read_text().split("## ONNX in plain numpy")
    return [re.findall(r"```(\w+)\n(.*?)```", part, re.DOTALL) for part in (before, after)]


def commands(block):
    """The commands of a block of shell, as lists of words."""
    for line in block.replace("\\\n", " ").strip().splitlines():
        python, program, *words = shlex.split(line)
        assert python == "python"
        yield PROGRAMS[program], words


def write_table(path, rows, labels=True, lacking=()):
    """A table with pictures beside it; rows whose number is in `lacking` have no picture."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["photo" if labels else "image", "title", *(["cuisine"] if labels else [])])
        for number, row in enumerate(rows):
            name = f"{path.stem}-{number}.png"
            Image.open(io.BytesIO(row["image"]["bytes"])).save(path.parent / name)
            cuisine = [CUISINES[number % 3]] if labels else []
            table.writerow(["" if number in lacking else name, row["title"], *cuisine])


@pytest.fixture(scope="module")
def workplace(small_dataset, tmp_path_factory):  # noqa: F811
    """A folder with all that the page names."""
    folder = tmp_path_factory.mktemp("workplace")
    run(folder / "org" / "flavour-fusion", small_dataset, "--num_train_epochs", "1")
    shutil.copytree(small_dataset, folder / "org" / "flavour-sd")
    rows = [make_row("train", 300 + index, 48) for index in range(24)]
    write_table(folder / "cuisines.csv", rows)
    write_table(folder / "incomplete.csv", rows, lacking=(2, 5))
    write_table(folder / "unlabelled.csv", rows, labels=False)
    Image.open(io.BytesIO(rows[0]["image"]["bytes"])).resize((60, 48)).save(folder / "plate.jpg")
    return folder


def do(parts, capsys):
    """Run blocks one after another; return what the Python ones have defined, and what was printed."""
    names: dict = {"__name__": "page"}
    for language, text in parts:
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        elif language == "bash":
            for program, words in commands(text):
                configured = program is train and not words[0].endswith(".yaml")
                program.main([*words, *(SMALL if configured else [])])
        else:
            Path("space.yaml").write_text(text)
    return names, capsys.readouterr().out


def test_every_block_on_training_runs(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    names, printed = do(blocks()[0], capsys)
    assert names["fresh"].config.num_labels == 3
    assert names["loss"].isfinite()
    assert "its body is kept, its head starts anew" in printed
    assert "trainable params" in printed
    assert (workplace / "outputs" / "my-adapter" / "adapter_model.safetensors").is_file()
    assert "2 their picture" in printed
    assert "labels 24 rows of unlabelled.csv" in printed
    assert np.asarray(names["vector"], float).size == names["text"].shape[1] + names["picture"].shape[1]
    assert "2 trials" in printed
    assert (workplace / "outputs" / "best" / "soup.json").is_file()


# Tracing takes long; `exporting/test_export.py` does the same in every run with a graph that is there already.
@pytest.mark.slow
def test_the_graph_answers_in_plain_numpy_as_the_model_does(workplace, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(workplace)
    names, printed = do(blocks()[1], capsys)
    assert names["shares"].sum() == pytest.approx(1, abs=1e-5)
    assert "sweet: 0." in printed
