import pytest
import yaml

from dataset_builder.errors import BadInputError
from trainer_scripts import train
from trainer_scripts.arguments import RECIPES, TrainingArguments, parse_recipe, recipe_names
from trainer_scripts.devices import bf16_gains


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_parses_and_reads_back_as_printed(name, tmp_path):
    recipe = parse_recipe([name])
    printed = tmp_path / f"{name}.yaml"
    printed.write_text(recipe.as_yaml())
    assert parse_recipe([str(printed)]).as_mapping() == recipe.as_mapping()


def test_no_argument_is_the_default_recipe_which_is_the_tiny_fusion():
    default, tiny = parse_recipe([]).as_mapping(), parse_recipe(["flavour_fusion_tiny"]).as_mapping()
    assert default.pop("output_dir") == "outputs/default"
    assert tiny.pop("output_dir") == "outputs/flavour_fusion_tiny"
    assert default == tiny


def test_command_line_overrides_the_recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("learning_rate: 1e-4\nconfig: {dropout: 0.1}\nflip: true\n")
    recipe = parse_recipe([str(path), "--learning_rate", "0.02", "--flip", "false", "--config", '{"dropout": 0.3}'])
    assert recipe.training.learning_rate == 0.02
    assert recipe.data.flip is False
    assert recipe.model.config == {"dropout": 0.3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rates: 1\n", r"unknown argument 'learning_rates' in .*; did you mean learning_rate or"),
        ("modality: smell\n", "modality: 'smell' is none of fusion, text, image"),
        ("- a\n", "must hold `name: value` lines"),
        ("a: [\n", "is no YAML file"),
        ("per_device_train_batch_size: many\n", "per-device-train-batch-size: invalid int value"),
    ],
)
def test_faulty_recipes_are_refused(tmp_path, text, message):
    path = tmp_path / "faulty.yaml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        parse_recipe([str(path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flavour_fusion_tyny"], "no recipe 'flavour_fusion_tyny'; give a YAML file or one of flavour_fusion_tiny"),
        (["--freeze_tex", "true"], "unknown argument 'freeze_tex' in the command line; did you mean freeze_text"),
        (["default", "stray"], "do not know what 'stray' means"),
        (["--seeds", "x"], "invalid int value"),
        (["--config", "{"], "invalid JsonMapping value"),
    ],
)
def test_faulty_command_lines_are_refused(arguments, message):
    with pytest.raises(BadInputError, match=message):
        parse_recipe(arguments)


def test_bad_input_ends_with_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["--learning_rat", "1"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean learning_rate" in error


def test_bf16_only_where_the_device_gains(monkeypatch, tmp_path):
    monkeypatch.setattr("trainer_scripts.arguments.bf16_gains", lambda cpu_only: False)
    assert not TrainingArguments(str(tmp_path)).bf16
    monkeypatch.setattr("trainer_scripts.arguments.bf16_gains", lambda cpu_only: True)
    assert TrainingArguments(str(tmp_path)).bf16
    assert not TrainingArguments(str(tmp_path), precision="fp32").bf16


def test_cpu_gains_from_bf16_by_its_flags(monkeypatch):
    for flags, gains in (({"avx2"}, False), ({"avx512_bf16"}, True), ({"amx_bf16"}, True)):
        monkeypatch.setattr("trainer_scripts.devices._cpu_flags", lambda flags=flags: frozenset(flags))
        assert bf16_gains(cpu_only=True) is gains


def test_recipes_hold_no_machine_paths():
    for path in RECIPES.glob("*.yaml"):
        for value in yaml.safe_load(path.read_text()).values():
            assert not str(value).startswith("/"), path
