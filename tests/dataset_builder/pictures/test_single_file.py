"""A pipeline may be one file of weights, or have weights of another variant."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from diffusers.loaders import single_file_utils
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from dataset_builder.building.plan import Plan
from dataset_builder.building.settings import BuildSettings
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.illustrator import Illustrator
from dataset_builder.pictures.revisions import pipeline_revision
from dataset_builder.pictures.settings import GenerationSettings, PictureTask
from tests.tiny_pipelines import ldm_weights, tiny_stable_diffusion


def drawn(pipeline: str, **settings) -> np.ndarray:
    drawer = Illustrator(GenerationSettings(pipeline=pipeline, steps=1, size=64, **settings), "r1")
    (picture,) = drawer.draw([PictureTask("a-00-00", "a", "Rice", "Rice: rice, tomato", 1)])
    return np.asarray(picture.image, np.int16)


@pytest.fixture(scope="module")
def one_file(tmp_path_factory):
    """The weights of the tiny Stable Diffusion in one file, as other programs write them."""
    path = tmp_path_factory.mktemp("one") / "model.safetensors"
    save_file(ldm_weights(tiny_stable_diffusion()), path)
    return path


@pytest.fixture(scope="module")
def configuration(tiny_sd, tmp_path_factory):
    """The folder of that pipeline without its weights."""
    folder = tmp_path_factory.mktemp("configuration") / "sd"
    shutil.copytree(tiny_sd, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return str(folder)


def test_a_single_file_with_its_configuration_draws_like_the_folder(tiny_sd, one_file, configuration, recipe_file):
    assert np.abs(drawn(str(one_file), pipeline_config=configuration) - drawn(tiny_sd)).max() <= 1
    settings = GenerationSettings(pipeline=str(one_file), pipeline_config=configuration, steps=1, size=64)
    known = Plan(BuildSettings(recipe_file, generation=settings)).fingerprint
    assert re.fullmatch(r"\w{40}", known["revision"])
    assert re.fullmatch(r"\w{40}", known["pipeline_config"])
    plain = Plan(BuildSettings(recipe_file, generation=GenerationSettings(pipeline=tiny_sd))).fingerprint
    assert not {"variant", "pipeline_config"} & plain.keys()  # builds from before there was such a choice go on


def test_a_single_file_of_a_hub_finds_the_configuration_that_diffusers_knows(
    tiny_sd, one_file, configuration, connected_hub, monkeypatch
):
    api = HfApi()
    for repo in ("org/weights", "org/usual"):
        api.create_repo(repo, exist_ok=True)
    commit = api.upload_file(path_or_fileobj=one_file, path_in_repo="sub/model.safetensors", repo_id="org/weights")
    api.upload_folder(folder_path=configuration, repo_id="org/usual")
    usual = {"pretrained_model_name_or_path": "org/usual"}
    monkeypatch.setitem(single_file_utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS, "v1", usual)
    name = "org/weights/sub/model.safetensors"
    assert np.abs(drawn(name) - drawn(tiny_sd)).max() <= 1
    assert pipeline_revision(name, None) == commit.oid
    assert pipeline_revision(name, commit.oid) == commit.oid


def test_what_a_single_file_lacks_is_named(one_file, configuration, tmp_path):
    with pytest.raises(BadInputError, match=r"neither a folder here nor does the Hub give it.*--pipeline-config"):
        drawn(str(one_file))
    with pytest.raises(BadInputError, match=r"has no model_index\.json; give the folder of a pipeline as --pipe"):
        drawn(str(one_file), pipeline_config=str(tmp_path))
    with pytest.raises(BadInputError, match="is a file and has no revision 'v1'"):
        drawn(str(one_file), pipeline_config=configuration, revision="v1")
    with pytest.raises(BadInputError, match="leave --variant fp16 out"):
        drawn(str(one_file), pipeline_config=configuration, variant="fp16")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(one_file.read_bytes()[:1000])
    for given in ({}, {"pipeline_config": configuration}):
        with pytest.raises(BadInputError, match=r"cannot be (read|loaded)"):
            drawn(str(broken), **given)
    part = tmp_path / "part.safetensors"  # the denoiser alone
    save_file({name: value for name, value in load_file(one_file).items() if "cond_stage" not in name}, part)
    with pytest.raises(BadInputError, match=r"cannot be loaded: .*CLIPTextModel"):
        drawn(str(part), pipeline_config=configuration)


def test_a_variant_loads_and_is_part_of_the_settings(tmp_path, recipe_file):
    tiny_stable_diffusion().save_pretrained(tmp_path, variant="fp16")
    assert list(Path(tmp_path, "unet").glob("*.fp16.safetensors"))
    settings = GenerationSettings(pipeline=str(tmp_path), variant="fp16", steps=1, size=64)
    assert Plan(BuildSettings(recipe_file, generation=settings)).fingerprint["variant"] == "fp16"
    assert drawn(str(tmp_path), variant="fp16").std() > 0
