"""Model folders made by a stranger, or damaged: no code of theirs runs, and one line says what is wrong."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

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
    assert "stranger's code does not run here" in message
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


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def weights(change_weights) -> Callable[[Path], None]:
    """Return a change of the tensors in the weight file."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change_weights(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return damage


def without_safetensors(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def text_of(name: str, content: str | bytes) -> Callable[[Path], None]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data) and None


def config(**entries) -> Callable[[Path], None]:
    return lambda folder: change(folder / "config.json", **entries)


def picture(**entries) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "processor_config.json"
        content = json.loads(path.read_text())
        content["image_processor"] |= entries
        path.write_text(json.dumps(content))

    return damage


NAN, FEW = float("nan"), {"text_config": {"model_type": "bert", "vocab_size": 10**8, "hidden_size": 16}}
DAMAGES = {
    "weights cut": lambda folder: cut(folder / "model.safetensors"),
    "weights empty": text_of("model.safetensors", ""),
    "weights with an endless header": text_of("model.safetensors", b"\xff" * 64),
    "weights of text": text_of("model.safetensors", "{}" * 50),
    "weights of another shape": weights(lambda all_: all_.update({name: torch.zeros(3, 3) for name in list(all_)[:2]})),
    "weights missing": weights(lambda all_: all_.pop(next(iter(all_)))),
    "weights NaN": weights(lambda all_: all_[next(name for name in all_ if "classifier" in name)].fill_(NAN)),
    "weights pickled": without_safetensors,
    "config empty": text_of("config.json", ""),
    "config a list": text_of("config.json", "[]"),
    "config null": text_of("config.json", "null"),
    "config not UTF-8": text_of("config.json", b'{"model_type": "\xff"}'),
    "config deep": text_of("config.json", '{"a":' * 3000 + "1" + "}" * 3000),
    "config cut": lambda folder: cut(folder / "config.json"),
    "config of no known kind": config(model_type="x\x1b[1m"),
    "config of a number as kind": config(model_type=5),
    "config with odd classes": config(architectures=5),
    "config with odd class": config(architectures=[{}]),
    "config with odd text part": config(text_config=5),
    "config with a size of words": config(head_dense_sizes=["x"]),
    "config with a negative size": config(head_dense_sizes=[-1]),
    "config with a huge vocabulary": config(**FEW),
    "config with many layers": config(lstm_layers=10**6),
    "config with many labels": config(num_labels=10**8, id2label=None, label2id=None),
    "config with label numbers": config(id2label={str(n): n for n in range(5)}),
    "config with a label twice": config(id2label={str(n): "x" for n in range(5)}),
    "config with gaps in labels": config(id2label={str(2 * n): str(n) for n in range(5)}),
    "config with a list of labels": config(id2label=list("abcde")),
    "config without labels": config(id2label={}),
    "config with another number of labels": config(id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}),
    "tokenizer cut": lambda folder: cut(folder / "tokenizer.json"),
    "tokenizer empty": text_of("tokenizer.json", ""),
    "tokenizer of nothing": text_of("tokenizer.json", "{}"),
    "tokenizer settings a list": text_of("tokenizer_config.json", "[]"),
    "processor null": text_of("processor_config.json", "null"),
    "processor a list": text_of("processor_config.json", "[1]"),
    "processor cut": lambda folder: cut(folder / "processor_config.json"),
    "pictures without spread": picture(image_std=[0, 0, 0]),
    "pictures of NaN": picture(image_mean=[NAN] * 3),
    "pictures of words": picture(image_mean="abc"),
    "pictures too large": picture(size={"height": 10**6, "width": 10**6}),
    "metrics cut": lambda folder: cut(folder / "metrics.json"),
    "metrics a list": text_of("metrics.json", "[]"),
    "metrics deep": text_of("metrics.json", "[" * 10**5),
    "metrics with an odd split": lambda folder: change(folder / "metrics.json", selection_split=[1]),
    "configuration not UTF-8": text_of("configuration.yaml", b"a: \xff"),
    "configuration no mapping": text_of("configuration.yaml", "- 1"),
    "configuration with numbers as names": text_of("configuration.yaml", "1: 2\nnull: 3"),
    "configuration deep": text_of("configuration.yaml", "[" * 3000),
    "configuration with odd columns": text_of("configuration.yaml", "columns: [1]"),
    "configuration with odd label column": text_of("configuration.yaml", "label_column: {a: 1}"),
    "configuration with odd split": text_of("configuration.yaml", "train_split: 5"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_one_line_that_names_it(name, model, small_dataset, capsys):
    DAMAGES[name](model)
    message = refused(capsys, score, model, small_dataset)
    line = message.strip().splitlines()[-1]
    assert line.startswith("score.py: error: ")
    assert str(model) in line
    assert len(line) < 1400
    assert line.isprintable()
