"""A stranger's code runs in no command; in the app with its flag alone, and of a Hub at a named revision alone."""

import io
import json

import pytest
from huggingface_hub import HfApi

from dataset_builder.errors import BadInputError
from tests.modeling_flavour.contract import randomise
from tests.modeling_flavour.family import classifier, fusion_processor
from tests.trainer_scripts.conftest import refused
from trainer_scripts import compare, export, predict, score, train

MESSAGE = "a model of the type stranger, which comes with code of its own, and a stranger's code does not run here"


@pytest.fixture
def stranger(tmp_path):
    """A model that works by its own code, which leaves a mark wherever it runs."""
    folder, mark = tmp_path / "stranger", tmp_path / "it-ran"
    randomise(classifier()()).save_pretrained(folder)
    fusion_processor().save_pretrained(folder)
    code = folder / "configuration_flavour.py"
    assert 'model_type = "flavour_fusion"' in code.read_text()
    ran = f"\nimport pathlib\n\npathlib.Path({str(mark)!r}).touch()\n"
    code.write_text(code.read_text().replace('model_type = "flavour_fusion"', 'model_type = "stranger"') + ran)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "stranger"}))
    return folder, mark


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (score, "MODEL DATA"),
        (predict, "MODEL DATA --out OUT"),
        (export, "MODEL --format onnx --out OUT"),
        (compare, "MODEL MODEL DATA --out OUT"),
        (train, "flavour_title_tiny --dataset DATA --model_name_or_path MODEL --output_dir OUT"),
        (train, "flavour_title_tiny --dataset DATA --text_encoder MODEL --output_dir OUT"),
        (train, "flavour_picture_tiny --dataset DATA --image_encoder MODEL --output_dir OUT"),
    ],
    ids=["score", "predict", "export", "compare", "train", "text encoder", "image encoder"],
)
def test_no_command_runs_the_code_of_a_model(stranger, small_dataset, tmp_path, capsys, monkeypatch, program, words):
    folder, mark = stranger
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    places = {"MODEL": str(folder), "DATA": str(small_dataset), "OUT": str(tmp_path / "out")}
    assert MESSAGE in refused(capsys, program, *(places.get(word, word) for word in words.split()))
    assert not mark.exists()


def test_the_app_runs_it_with_its_flag_at_a_named_revision(stranger, connected_hub):
    pytest.importorskip("gradio", reason="the app needs gradio, which is not installed here")
    from trainer_scripts.app_pages.models import load_models

    folder, mark = stranger
    api = HfApi()
    api.create_repo("org/stranger")
    commit = api.upload_folder(repo_id="org/stranger", folder_path=folder).oid
    for source in (str(folder), f"org/stranger@{commit}"):
        with pytest.raises(BadInputError, match="the type stranger"):
            load_models([source], None, False)
    with pytest.raises(BadInputError, match="name the revision that you have read: org/stranger@COMMIT"):
        load_models(["org/stranger"], None, True)
    assert not mark.exists()
    for source in (str(folder), f"org/stranger@{commit}"):
        (served,) = load_models([source], None, True)
        assert mark.exists()
        mark.unlink()
        assert served.probabilities(None, "lemon tart").shape == (5,)
