"""The whole road, tiny: recipes in, data set and model out, both used by a process that knows nothing of us."""

import json

import pytest

from trainer_scripts import demo


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    demo.main(["--out", str(out), "--number", "120", "--epochs", "1"])
    return out


def test_the_demo_leaves_data_models_comparison_and_a_hub(finished):
    comparison = json.loads((finished / "comparison" / "comparison.json").read_text())
    assert {"fusion", "title", "picture"} <= set(comparison["entries"])
    assert comparison["split"] == "test"
    for name in ("comparison.md", "reliability.png", "training_curves.png", "confusion_fusion.png"):
        assert (finished / "comparison" / name).stat().st_size > 0
    for model in ("title", "picture", "fusion"):
        assert (finished / model / "model.safetensors").is_file()


def test_a_second_demo_reuses_what_is_finished(finished, capfd):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/model.safetensors")}
    demo.main(["--out", str(finished), "--number", "120", "--epochs", "1"])
    assert {path: path.stat().st_mtime_ns for path in finished.glob("*/model.safetensors")} == before
    printed = capfd.readouterr().out
    assert "streamed:" in printed
    assert "umami" in printed
    # The last screen: the table, where the results are, and the lines that use the model.
    last = printed[printed.rindex("== publishing") :]
    assert "TF-IDF" in last
    assert f'AutoModel.from_pretrained("{finished / "fusion"}", trust_remote_code=True)' in last
    assert str(finished / "fusion" / "README.md") in last


def test_a_missing_table_is_refused_at_once(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        demo.main(["--out", str(tmp_path), "--recipes", str(tmp_path / "nowhere.csv")])
    assert stop.value.code == 2
    assert "nowhere.csv does not exist" in capsys.readouterr().err
