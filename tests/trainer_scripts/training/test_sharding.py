"""Configurations of accelerate pass through: FSDP and DeepSpeed share weights out, and whole ones are saved."""

import json
from importlib.util import find_spec

import pytest
import torch

from dataset_builder.errors import BadInputError
from tests.modeling_flavour.family import FAMILY
from tests.trainer_scripts.tiny_runs import SMALL, make_trainer, run_on_two, weights
from trainer_scripts import train
from trainer_scripts.features import frozen as features
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.common.trainer import shared_layers

AUTO = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
NO_DEEPSPEED = find_spec("deepspeed") is None


@pytest.fixture(autouse=True)
def _no_fsdp_left(monkeypatch):
    """The libraries set the variable for the whole process; here it is as before after each test."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")


@pytest.fixture
def deepspeed(tmp_path):
    settings = tmp_path / "deepspeed.json"
    settings.write_text(json.dumps({"zero_optimization": {"stage": 2}, **dict.fromkeys(AUTO, "auto")}))
    return settings


def test_fsdp_settings_reach_the_trainer(tmp_path):
    shared = parse_configuration(
        ["default", "--output_dir", str(tmp_path), "--fsdp", "full_shard", "--fsdp_config", '{"fsdp_version": 2}']
    )
    assert shared.training.fsdp
    assert shared.training.fsdp_config["version"] == 2


@pytest.mark.skipif(not NO_DEEPSPEED, reason="deepspeed is installed")
@pytest.mark.parametrize("given", ["argument", "launcher"])
def test_deepspeed_settings_without_the_library_are_refused_in_one_line(deepspeed, monkeypatch, given):
    if given == "launcher":  # as `accelerate launch --use_deepspeed` and a configuration file of accelerate do
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    arguments = ["--deepspeed", str(deepspeed)] if given == "argument" else []
    with pytest.raises(BadInputError, match=r"deepspeed is not installed; `pip install deepspeed`"):
        parse_configuration(["default", *arguments])


def test_backbones_whose_weights_are_shared_out_are_not_read_once(small_dataset, tmp_path, monkeypatch):
    frozen = ("--freeze_text", "true", "--freeze_image", "true", "--word_dropout", "0", "--crop_scale", "1")
    frozen += ("--flip", "false", "--quarter_turns", "false", "--color_jitter", "0")
    trainer = make_trainer(small_dataset, tmp_path, *frozen)
    configuration = parse_configuration(["flavour_fusion_tiny", "--dataset", str(small_dataset), *SMALL, *frozen])
    assert features.frozen_parts(configuration, trainer.model, trainer.train_dataset).parts == ("image", "text")
    monkeypatch.setattr(features, "is_deepspeed_zero3_enabled", lambda: True)
    found = features.frozen_parts(configuration, trainer.model, trainer.train_dataset)
    assert found.parts == ()
    assert set(found.reasons.values()) == {"ZeRO-3 shares its weights out to the processes"}


@pytest.mark.parametrize("given", ["argument", "launcher"])
def test_fsdp_where_accelerate_would_ignore_it_is_refused(small_dataset, tmp_path, monkeypatch, capsys, given):
    if given == "launcher":
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    more = ("--fsdp", "full_shard") if given == "argument" else ()
    with pytest.raises(BadInputError, match="FSDP is requested, and accelerate shards weights only across"):
        make_trainer(small_dataset, tmp_path, "--modality", "text", *more)


@pytest.mark.parametrize("name", FAMILY)
def test_layers_that_fsdp_shares_out_are_there_and_hold_no_word_vectors(name):
    model = FAMILY[name].make()
    modules = [module for module in model.modules() if type(module).__name__ in shared_layers(model)]
    assert {type(module).__name__ for module in modules} == set(shared_layers(model))
    words = model.get_input_embeddings()
    assert not [module for module in modules if words in list(module.modules())]
    assert model._no_split_modules <= {type(module).__name__ for module in model.modules()}


# accelerate leaves FSDP out on CPUs; torch itself shares weights out there too.
AS_ON_GPUS = """
import sys
from accelerate.state import PartialState
from accelerate.utils import DistributedType

set_up = PartialState.__init__

def as_on_gpus(self, *args, **kwargs):
    set_up(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU

PartialState.__init__ = as_on_gpus
from trainer_scripts import train
from trainer_scripts.training import run as train_steps

describe = train_steps.describe_results

def described(configuration, data, trainer, *facts):
    kinds = {type(parameter).__name__ for parameter in trainer.model_wrapped.parameters()}
    print("parameters:", *kinds, flush=True)
    return describe(configuration, data, trainer, *facts)

train_steps.describe_results = described
train.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_what_fsdp_shares_out_is_learned_and_saved_as_without_it(small_dataset, tmp_path):
    script = tmp_path / "as_on_gpus.py"
    script.write_text(AS_ON_GPUS)
    common = ["flavour_title_tiny", "--dataset", str(small_dataset), *SMALL, "--modality", "text"]
    common += ["--num_train_epochs", "1"]
    shared = ["--fsdp", "full_shard", "--fsdp_config", '{"fsdp_version": 2}']
    for name, file, more in (("plain", train.__file__, []), ("shared", str(script), shared)):
        ended = run_on_two(file, *common, "--output_dir", str(tmp_path / name), *more)
        assert ended.returncode == 0, ended.stderr[-2000:]
    assert "parameters: DTensor\n" in ended.stdout
    plain, whole = weights(tmp_path / "plain"), weights(tmp_path / "shared")
    assert plain.keys() == whole.keys()
    for name, value in plain.items():
        assert torch.allclose(value, whole[name], atol=1e-5), name


@pytest.mark.slow
@pytest.mark.skipif(NO_DEEPSPEED, reason="deepspeed is not installed")
def test_what_deepspeed_shares_out_is_learned_and_saved_as_without_it(small_dataset, tmp_path, deepspeed, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    common = ["flavour_title_tiny", "--dataset", str(small_dataset), *SMALL, "--modality", "text"]
    common += ["--num_train_epochs", "1"]
    for name, more in {"plain": [], "shared": ["--deepspeed", str(deepspeed)]}.items():
        ended = run_on_two(train.__file__, *common, "--output_dir", str(tmp_path / name), *more)
        assert ended.returncode == 0, ended.stderr[-2000:]
    plain, shared = weights(tmp_path / "plain"), weights(tmp_path / "shared")
    assert plain.keys() == shared.keys()
    for name, value in plain.items():
        assert torch.allclose(value, shared[name], atol=1e-6), name
