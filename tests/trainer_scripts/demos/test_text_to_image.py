"""The demo of text to image: a short training around the autoencoder of this package, a sheet, a drawn data set."""

from diffusers import DiffusionPipeline
from PIL import Image

from dataset_builder.building.finished_build import read_build
from trainer_scripts.demos import all_cores
from trainer_scripts.demos import text_to_image as demo


def test_the_whole_demo_leaves_a_pipeline_a_sheet_and_a_data_set(small_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(all_cores, "process_count", lambda rows: 1)
    monkeypatch.setattr(demo, "STEPS", 1)
    monkeypatch.setattr(demo, "COLUMNS", 2)
    monkeypatch.setattr(demo, "DRAWN_RECIPES", 3)
    monkeypatch.setattr(demo, "TRAINING", ["--sample_steps", "1", "--sample_pictures", "2"])
    out = tmp_path / "demo"
    demo.run(small_dataset, out, epochs=1)
    assert DiffusionPipeline.from_pretrained(out / "drawer").unet.config.sample_size == 24
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == (2 * 96, 3 * 96)  # plates, these through latents, and what was trained here
    with Image.open(out / "drawer" / "grid.png") as grid:
        assert grid.size == (2 * 96, 96)
    assert sum(map(len, read_build(out / "drawn").shards.values())) > 0
    assert all(path.exists() for path in demo.places(small_dataset, out).values())
