"""LoRA weights: several at once, by file, folder or Hub id, pinned, and refused where they do not fit."""

import re

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from huggingface_hub import HfApi
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from dataset_builder.errors import BadInputError
from dataset_builder.pictures.revisions import lora_revision
from dataset_builder.pictures.settings import GenerationSettings, parse_lora
from tests.dataset_builder.pictures.test_illustrator import illustrator, pixels, tasks
from tests.tiny_pipelines import tiny_stable_diffusion


@pytest.fixture(scope="module")
def lora_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    pipeline = tiny_stable_diffusion()
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(pipeline.unet)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder / "pytorch_lora_weights.safetensors"


def test_lora_weights_load_by_file_and_by_folder_and_are_pinned(tiny_sd, lora_file):
    (plain,) = illustrator(tiny_sd, steps=1, size=64).draw(tasks(1))
    (by_file,) = illustrator(tiny_sd, steps=1, size=64, lora=str(lora_file)).draw(tasks(1))
    (by_folder,) = illustrator(tiny_sd, steps=1, size=64, lora=str(lora_file.parent)).draw(tasks(1))
    assert not np.array_equal(pixels(plain), pixels(by_file))
    assert np.array_equal(pixels(by_folder), pixels(by_file))
    assert lora_revision(str(lora_file)).startswith(f"{lora_file}@")


def test_several_lora_weights_act_together_by_their_scales(tiny_sd, lora_file, tmp_path):
    def drawn(*loras):
        return pixels(next(illustrator(tiny_sd, steps=1, size=64, lora=loras).draw(tasks(1))))

    negated = {name: -value if "lora_B" in name else value for name, value in load_file(lora_file).items()}
    save_file(negated, tmp_path / "negated.safetensors")
    one, other = str(lora_file), str(tmp_path / "negated.safetensors")
    plain, alone, half = drawn(), drawn(one), drawn(f"{one}:0.5")
    assert np.abs(drawn(f"{one}:0") - plain).max() <= 1
    assert np.abs(drawn(one, other) - plain).max() <= 1  # they cancel out
    assert np.abs(drawn(one, f"{other}:0.5") - half).max() <= 1
    assert np.abs(half - alone).max() > 1
    assert np.abs(half - plain).max() > 1
    assert re.fullmatch(
        rf"{re.escape(one)}@\w{{40}} \+ {re.escape(other)}@\w{{40}}:0.5", lora_revision(one, f"{other}:0.5")
    )


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("org/lora", ("org/lora", 1.0)),
        ("org/lora:0.8", ("org/lora", 0.8)),
        ("org/lora@v1:-1", ("org/lora@v1", -1.0)),
        ("look.safetensors:1e-1", ("look.safetensors", 0.1)),
        (r"C:\lora\a.safetensors", (r"C:\lora\a.safetensors", 1.0)),
        (r"C:\lora\a.safetensors:0.5", (r"C:\lora\a.safetensors", 0.5)),
        ("a:b", ("a:b", 1.0)),
    ],
)
def test_the_scale_of_a_lora_stands_behind_its_last_colon(text, parsed):
    assert parse_lora(text) == parsed


def test_a_lora_file_whose_name_ends_in_a_number_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v:2").mkdir()
    assert parse_lora("v:2") == ("v:2", 1.0)
    assert parse_lora("v:2:0.5") == ("v:2", 0.5)
    for text in (":0.5", "a:nan", "a:inf"):
        with pytest.raises(BadInputError, match=r"no name with a finite scale; write NAME, or NAME:0\.8"):
            GenerationSettings(pipeline="x", lora=["b", text])


@pytest.mark.parametrize("name", ["tiny_sdxl", "tiny_dit"])
def test_lora_weights_of_another_model_are_refused_in_one_line(name, request, lora_file):
    with pytest.raises(BadInputError, match=r"LoRA .*(give weights made for it|leave --lora .* out)$") as caught:
        illustrator(request.getfixturevalue(name), steps=1, size=64, lora=str(lora_file))
    assert "\n" not in str(caught.value)


def test_lora_weights_for_another_kind_of_model_are_refused(tiny_sd, lora_file, tmp_path):
    weights = {name.replace("unet.", "transformer."): value for name, value in load_file(lora_file).items()}
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(BadInputError, match="holds nothing for a StableDiffusionPipeline"):
        illustrator(tiny_sd, steps=1, size=64, lora=str(tmp_path / "other.safetensors"))


def test_lora_weights_load_by_hub_id_and_are_pinned_by_commit(tiny_sd, lora_file, connected_hub):
    api = HfApi()
    api.create_repo("org/look", exist_ok=True)
    commit = api.upload_file(path_or_fileobj=lora_file, path_in_repo=lora_file.name, repo_id="org/look")
    (by_file,) = illustrator(tiny_sd, steps=1, size=64, lora=str(lora_file)).draw(tasks(1))
    (by_name,) = illustrator(tiny_sd, steps=1, size=64, lora="org/look").draw(tasks(1))
    assert np.array_equal(pixels(by_name), pixels(by_file))
    assert lora_revision("org/look") == f"org/look@{commit.oid}"
    api.upload_file(path_or_fileobj=b"text", path_in_repo="README.md", repo_id="org/look")  # the main branch moves on
    assert lora_revision("org/look") != f"org/look@{commit.oid}"
    assert lora_revision(f"org/look@{commit.oid}") == f"org/look@{commit.oid}"
    (pinned,) = illustrator(tiny_sd, steps=1, size=64, lora=f"org/look@{commit.oid}").draw(tasks(1))
    assert np.array_equal(pixels(pinned), pixels(by_file))
