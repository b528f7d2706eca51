"""Model folders made by a stranger, or damaged: no code of theirs runs, and one line says what is wrong."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tiny_runs import run
from trainer_scripts import score

CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import CLIPImageProcessor, PreTrainedTokenizerFast, PreTrainedConfig
class Strange(CLIPImageProcessor): pass
class StrangeTokenizer(PreTrainedTokenizerFast): pass
class StrangeConfig(PreTrainedConfig): model_type = "strange"
"""


@pytest.fixture(scope="module")
def trained(small_dataset, tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("trained") / "model", small_dataset, "--num_train_epochs", "1")


@pytest.fixture
def model(trained, tmp_path) -> Path:
    shutil.copytree(trained, tmp_path / "model")
    return tmp_path / "model"


def change(path: Path, **entries) -> None:
    """Change entries of a JSON file; None removes one."""
    content = json.loads(path.read_text())
    content.update(entries)
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def test_code_of_a_processor_never_runs_even_where_yes_is_typed(model, small_dataset, tmp_path, capsys, monkeypatch):
    mark = tmp_path / "ran"
    (model / "strange.py").write_text(CODE.format(mark=str(mark)))
    content = json.loads((model / "processor_config.json").read_text())
    content["image_processor"] |= {
        "image_processor_type": "Strange",
        "auto_map": {"AutoImageProcessor": "strange.Strange"},
    }
    (model / "processor_config.json").write_text(json.dumps(content))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    message = refused(capsys, score, model, small_dataset)
    assert "custom code" in message
    assert "Do you wish" not in message
    assert not mark.exists()


def test_code_of_a_tokenizer_never_runs(model, small_dataset, tmp_path, capsys):
    mark = tmp_path / "ran"
    (model / "strange.py").write_text(CODE.format(mark=str(mark)))
    change(
        model / "tokenizer_config.json",
        tokenizer_class="StrangeTokenizer",
        auto_map={"AutoTokenizer": [None, "strange.StrangeTokenizer"]},
    )
    refused(capsys, score, model, small_dataset)
    assert not mark.exists()


def test_code_of_a_configuration_never_runs(model, small_dataset, tmp_path, capsys):
    mark = tmp_path / "ran"
    (model / "strange.py").write_text(CODE.format(mark=str(mark)))
    change(model / "config.json", model_type="strange", auto_map={"AutoConfig": "strange.StrangeConfig"})
    refused(capsys, score, model, small_dataset)
    assert not mark.exists()
