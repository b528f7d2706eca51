"""What a fusion learns of its training rows after training, from stored outputs of frozen backbones."""

import torch

from tests.trainer_scripts.tiny_runs import run
from trainer_scripts.scoring.saved_model import load_model, load_selection, load_train
from trainer_scripts.tasks.classification.familiarity import learn_familiarity

PLAIN = (
    "--crop_scale",
    "1",
    "--flip",
    "false",
    "--quarter_turns",
    "false",
    "--color_jitter",
    "0",
    "--word_dropout",
    "0",
)


def test_stored_features_are_read_and_teach_what_the_pictures_do(small_dataset, tmp_path, monkeypatch):
    stored = ("--freeze_image", "true", "--frozen_features", "store", "--features_dir", str(tmp_path / "features"))
    folder = run(tmp_path / "run", small_dataset, *PLAIN, *stored, "--max_steps", "1")
    saved = load_model(str(folder))
    train, selection = load_train(saved, str(small_dataset)), load_selection(saved, str(small_dataset))

    def learned(reader):
        assert learn_familiarity(saved.model, saved.processor, train, selection, 0.9, reader)
        return {name: value.clone() for name, value in saved.model.image_familiarity.named_buffers()}

    from_pictures = learned(None)
    seen, backbone = [], saved.model.image_encoder.run_backbone

    def counted(pixels, **more):
        seen.append(len(pixels))
        return backbone(pixels, **more)

    # The features lie on disk since the training: one picture of each table tells their shape, and no other is seen.
    monkeypatch.setattr(saved.model.image_encoder, "run_backbone", counted)
    from_store = learned(saved.reader)
    assert seen == [1, 1]
    for name, value in from_pictures.items():
        torch.testing.assert_close(value, from_store[name], rtol=1e-3, atol=1e-4)
