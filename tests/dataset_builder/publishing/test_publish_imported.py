"""An imported set is published as a build is: its shards, a card, a manifest."""

import json
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download
from PIL import Image

from dataset_builder.errors import BadInputError
from dataset_builder.importers import import_table
from dataset_builder.local_hub.store import card_errors
from dataset_builder.publishing.publish import publish


@pytest.fixture
def flickr(tmp_path):
    folder = tmp_path / "flickr"
    (folder / "Images").mkdir(parents=True)
    lines = ["image,caption"]
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / "Images" / f"{number}.jpg")
        lines.append(f"{number}.jpg,A dish .")
    (folder / "captions.txt").write_text("\n".join(lines))
    return folder


def test_the_folder_of_a_version_holds_shards_card_and_manifest(flickr, tmp_path):
    import_table("flickr8k", str(flickr), tmp_path / "set")
    said = publish(tmp_path / "set", "org/flickr", "1.0.0", "cc-by-4.0", tmp_path / "dry")
    assert "holds the 5 files of org/flickr 1.0.0; nothing was published" in said
    card = (tmp_path / "dry" / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert 'load_dataset("org/flickr", revision="v1.0.0")' in card
    manifest = json.loads((tmp_path / "dry" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["counts"], manifest["imported"]) == (
        20, {"test": 2, "train": 16, "validation": 2}, True,
    )  # fmt: skip


def test_the_block_of_the_card_loads_the_rows(flickr, tmp_path, connected_hub):
    import_table("flickr8k", str(flickr), tmp_path / "set")
    publish(tmp_path / "set", "org/flickr", "1.0.0", "cc-by-4.0")
    card = Path(hf_hub_download("org/flickr", "README.md", repo_type="dataset")).read_text()
    assert card_errors(card) == []
    names: dict = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    assert names["rows"].num_rows == {"train": 16, "validation": 2, "test": 2}


def test_rows_that_refer_to_files_of_this_machine_are_not_published(flickr, tmp_path):
    import_table("flickr8k", str(flickr), tmp_path / "set", embed=False)
    with pytest.raises(BadInputError, match="refers to its pictures by paths of this machine; import again without"):
        publish(tmp_path / "set", "org/flickr", "1.0.0", "cc-by-4.0", tmp_path / "dry")
