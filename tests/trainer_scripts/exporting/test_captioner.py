"""An exported captioner: its loop in numpy writes what `generate` writes, from the files of its folder alone."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from modeling_flavour import FlavourForTransformerCaptioning
from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tasks.captioning.conftest import caption_data, tiny_arguments  # noqa: F401
from trainer_scripts import export, predict, train
from trainer_scripts.exporting.caption import Captioner, allowed, prepare
from trainer_scripts.exporting.captioner import generation_settings, pixels_of_table
from trainer_scripts.scoring.saved_model import load_model, load_table

SETTINGS = [
    {},
    {"num_beams": 1, "repetition_penalty": 1.3},
    {"num_beams": 4, "early_stopping": True, "no_repeat_ngram_size": 2},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.5, "min_length": 5},
]


@pytest.fixture(scope="module")
def captioner(caption_data, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("captioner") / "run"
    train.main(tiny_arguments("transformer", caption_data, folder, "--num_train_epochs", "1"))
    # Random weights, at which captions differ from picture to picture.
    model = FlavourForTransformerCaptioning.from_pretrained(folder)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not name.startswith("image_encoder.model"):
            torch.nn.init.normal_(parameter, std=0.4)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(captioner):
    export.main([str(captioner), "--opset", "17", "--max-rows", "8"])
    return captioner / "onnx"


def test_the_report_holds_parity_scores_and_sizes(exported):
    report = json.loads((exported / "export.json").read_text())
    assert {name: line["same_captions"] for name, line in report["captions"].items()} == {"greedy": 8, "2 beams": 8}
    parity = report["parity_of_fp32_with_torch"]
    assert all(line["largest_difference"] < 1e-3 for name, line in parity.items())
    assert set(parity) == {"picture", "logits", "next_cache"}
    lines = {line["name"]: line for line in report["measurements"]}
    assert lines["onnx fp32"]["scores"]["test"] == pytest.approx(lines["torch fp32"]["scores"]["test"])
    assert lines["onnx fp32"]["latencies"]["1"]["median"] > 0
    for name in ("encoder.onnx", "decoder.onnx"):
        model = onnx.load(exported / name)
        assert (model.opset_import[0].version, model.ir_version) == (17, 8)


def test_the_loop_writes_what_generate_writes(exported, captioner):
    saved, loop = load_model(str(captioner)), Captioner(exported)
    pixels = pixels_of_table(saved, load_table(saved, saved.arguments.dataset, "test").first(12))
    torch.manual_seed(0)
    # Pictures of noise give captions of many kinds, not only those of the few colours.
    pixels = torch.cat([pixels, torch.randn(12, *pixels.shape[1:])])
    end, seen = saved.model.config.eos_token_id, set()
    for settings in SETTINGS:
        rows = saved.model.generate(pixels, **settings)[:, 1:].tolist()
        theirs = [row[: row.index(end)] if end in row else row for row in rows]
        assert loop.generate(pixels.numpy(), **settings) == theirs, settings
        seen |= {tuple(row) for row in theirs}
    assert len(seen) > 2


def test_the_folder_captions_a_picture_without_this_package(exported, captioner, tmp_path):
    Image.new("RGB", (60, 40), (230, 90, 120)).save(tmp_path / "plate.png")
    command = [sys.executable, str(exported / "caption.py"), str(tmp_path / "plate.png")]
    # In isolated mode nothing of this folder or of the path is importable.
    found = subprocess.run([command[0], "-I", *command[1:]], capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    saved, loop = load_model(str(captioner)), Captioner(exported)
    image = Image.open(tmp_path / "plate.png")
    ours = prepare(image, loop.settings["inputs"]["pixel_values"])
    theirs = saved.processor(images=[image], return_tensors="np")["pixel_values"]
    assert np.abs(ours - theirs).max() < 0.1
    words = saved.processor.tokenizer.decode(loop.generate(theirs)[0], skip_special_tokens=True)
    assert " ".join(found.stdout.lower().replace(".", " .").split()) == " ".join(words.lower().split())


def test_other_verbs_name_the_loop(exported, capsys):
    assert "which its own caption.py runs" in refused(capsys, predict, exported, "table.csv")


@pytest.mark.slow
def test_smaller_forms_are_smaller_and_a_limit_holds(exported, captioner, tmp_path, capsys):
    export.main(
        [str(captioner), "--quantize", "int8", "--max-rows", "4", "--max-loss", "1000", "--out", str(tmp_path / "q")]
    )
    sizes = [sum((folder / f"{name}.onnx").stat().st_size for name in ("encoder", "decoder"))
             for folder in (exported, tmp_path / "q")]  # fmt: skip
    assert sizes[1] < 0.6 * sizes[0]
    message = refused(capsys, export, captioner, "--max-mb", "0.01", "--max-rows", "2", "--out", tmp_path / "small")
    assert "over --max-mb 0.01; nothing was written" in message
    assert not (tmp_path / "small").exists()


def test_settings_that_the_loop_does_not_know_are_refused(captioner):
    saved = load_model(str(captioner))
    settings = generation_settings(saved)
    assert settings["num_beams"] == 2
    assert settings["max_new_tokens"] == saved.processor.max_length - 1
    saved.model.generation_config.bad_words_ids = [[5]]
    with pytest.raises(ValueError, match="the generation setting bad_words_ids is more than greedy and beam search"):
        generation_settings(saved)


def test_words_that_must_not_follow_are_never_chosen():
    settings = {"repetition_penalty": 2.0, "no_repeat_ngram_size": 2, "min_length": 4, "eos_token_id": 0,
                "suppress_tokens": [1]}  # fmt: skip
    scores = np.array([[4.0, 3, 2, -1, 1]], dtype=np.float32)
    found = allowed(scores, np.array([[2, 3, 2]]), settings)
    # 0 ends too early, 1 is suppressed, 2 was said, 3 was said and follows 2 a second time.
    assert found.tolist() == [[-np.inf, -np.inf, 1, -np.inf, 1]]
    assert scores[0, 0] == 4
