"""Pretraining of the diffusion model: its plates and prompts, and the road to a pipeline."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusionPipeline

from dataset_builder.catalogue.serving import vessel_for
from tests.trainer_scripts.conftest import make_row, write_dataset
from trainer_scripts import pretrain
from trainer_scripts.pretraining import autoencoder, diffusion, plates
from trainer_scripts.pretraining.plates import PlateSettings, choose, draw_row, plate_features
from trainer_scripts.pretraining.prompted import MOST_VISIBLE, Prompted, dish_plates, random_plates


def test_prompts_name_the_vessel_and_what_lies_in_it_and_dishes_are_those_of_training(tmp_path):
    settings = PlateSettings(train=12, validation=0, seed=3, size=32)
    table = Dataset.from_list([draw_row(settings, "train", number) for number in range(12)], features=plate_features())
    (tmp_path / "plates").mkdir()
    table.to_parquet(tmp_path / "plates" / "train-00000.parquet")
    dishes = write_dataset(tmp_path / "dishes", {split: [make_row(split, 0)] for split in ("train", "test")})
    source = Prompted(settings, tmp_path / "plates", dishes)
    rows = list(random_plates(source, "train-00000.parquet"))
    kept = {row["id"]: row for row in table if row["id"] in {each["id"] for each in rows}}
    assert 0 < len(rows) < 12  # crowded ones are left out
    for row in rows:
        vessel, names = row["prompt"].split(": ")
        assert vessel == choose(settings, "train", int(row["id"][-6:]))[0]
        # The picture was drawn with this vessel, and of these ingredients.
        assert vessel_for(row["prompt"]) == vessel
        assert set(names.split(", ")) <= set(kept[row["id"]]["ingredients"])
        assert len(names.split(", ")) <= MOST_VISIBLE
    (first,), (second,) = list(dish_plates(source, 0)), list(dish_plates(source, 1))
    assert first["prompt"] == second["prompt"] == "dish number train 0: tomato"
    assert first["dish_id"] == "train-000"
    assert first["id"] != second["id"]
    assert first["image"] != second["image"]


TINY = {
    "block_out_channels": [8, 8, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@pytest.mark.slow
def test_plates_become_a_pipeline_that_stock_diffusers_draws_with(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(diffusion, "NUMBER", 20)
    monkeypatch.setattr(plates, "PLATES_PER_SHARD", 16)
    work, out = tmp_path / "work", tmp_path / "drawer"
    small = ["--image_size", "32", "--features_dir", str(tmp_path / "features")]
    for part, config in ((autoencoder, TINY), (diffusion, {"unet": {"block_out_channels": [16, 16]}})):
        monkeypatch.setattr(part, "CONFIGURATION", [*part.CONFIGURATION, *small, "--config", json.dumps(config)])
    command = ["--work", str(work), "--epochs", "1", "--plates", "32", "--validation", "16"]
    pretrain.main(["--model", "plates-ldm", "--out", str(out), *command])

    record = json.loads((out / "training.json").read_text())
    assert record["plates"]["train"] == 32
    assert "32 of random sets" in (out / "README.md").read_text()
    monkeypatch.chdir(out.parent)  # cards name the folder
    block = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(block.replace("num_inference_steps=25", "num_inference_steps=2"), names := {})
    assert names["picture"].size == (32, 32)
    pipeline = DiffusionPipeline.from_pretrained(out)
    assert type(pipeline) is StableDiffusionPipeline
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("plate: tomato", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (32, 32, 3)
    assert np.isfinite(picture).all()

    # The first part alone, which is trained by now.
    pretrain.main(["--model", "plates-autoencoder", "--out", str(tmp_path / "plates-autoencoder"), *command])
    vae = AutoencoderKL.from_pretrained(tmp_path / "plates-autoencoder")
    assert vae.config.sample_size == 32
    card = (tmp_path / "plates-autoencoder" / "README.md").read_text()
    assert "pictures of 32 x 32 pixels into latents of 4 x 4 x 4" in card
