"""Pipelines of this package, by name."""

import pytest

from dataset_builder.pictures import shipped
from dataset_builder.pictures.illustrator import Illustrator
from dataset_builder.pictures.revisions import locate, pipeline_revision
from dataset_builder.pictures.settings import GenerationSettings
from dataset_builder.pictures.shipped import DrawingDefaults, drawing_defaults, shipped_folder
from tests import tiny_pipelines


@pytest.fixture
def named(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "pipelines")
    monkeypatch.setattr(shipped, "_DEFAULTS", {"tiny": DrawingDefaults(steps=3, guidance=1.5)})
    tiny_pipelines.save(tiny_pipelines.tiny_stable_diffusion(), tmp_path / "pipelines" / "tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pipelines" / "tiny"


def test_a_name_is_found_and_brings_its_defaults(named):
    assert locate("tiny", None) == named
    drawer = Illustrator(GenerationSettings("tiny", size=64), pipeline_revision("tiny", None))
    assert (drawer._arguments.steps, drawer._arguments.guidance) == (3, 1.5)
    given = Illustrator(GenerationSettings("tiny", size=64, steps=2, guidance=0.0), "any")
    assert (given._arguments.steps, given._arguments.guidance) == (2, 0.0)


def test_a_folder_here_comes_first_and_other_names_are_none(named, tmp_path):
    tiny_pipelines.save(tiny_pipelines.tiny_stable_diffusion(), tmp_path / "tiny")
    assert shipped_folder("tiny") is None
    assert locate("tiny", None).resolve() == tmp_path / "tiny"
    assert drawing_defaults("tiny") == DrawingDefaults()
    assert shipped_folder("nothing") is None
    assert shipped_folder("../pipelines/tiny") is None
    assert shipped_folder("") is None
