import dataclasses

import pytest
import yaml

from dataset_builder.errors import BadInputError
from trainer_scripts import train
from trainer_scripts.settings import training_arguments
from trainer_scripts.settings.checks import refuse_idle_options, refuse_options_of_other_tasks
from trainer_scripts.settings.configurations import (
    ARGUMENT_CLASSES,
    CONFIGURATIONS,
    configuration_names,
    parse_configuration,
)
from trainer_scripts.settings.options import options_of
from trainer_scripts.settings.training_arguments import TrainingArguments, bf16_gains
from trainer_scripts.training.data import load_training_data


@pytest.mark.parametrize("name", configuration_names())
def test_every_configuration_parses_and_reads_back_as_printed(name, tmp_path):
    configuration = parse_configuration([name])
    printed = tmp_path / f"{name}.yaml"
    printed.write_text(configuration.as_yaml())
    assert parse_configuration([str(printed)]).as_mapping() == configuration.as_mapping()


def test_no_argument_is_the_default_configuration_which_is_the_tiny_fusion():
    default, tiny = parse_configuration([]).as_mapping(), parse_configuration(["flavour_fusion_tiny"]).as_mapping()
    assert default.pop("output_dir") == "outputs/default"
    assert tiny.pop("output_dir") == "outputs/flavour_fusion_tiny"
    assert default == tiny


def test_another_start_on_the_command_line_takes_the_place_of_the_packaged_encoder():
    def model(*words):
        return parse_configuration(["flavour_fusion_tiny", *words]).model

    assert (model().init_image_encoder, model().freeze_image) == ("package:plates-resnet18", True)
    fresh = model("--vision_config", '{"model_type": "resnet"}')
    assert (fresh.init_image_encoder, fresh.freeze_image) == (None, False)  # fresh weights must be trained
    pretrained = model("--image_encoder", "org/backbone")
    assert (pretrained.init_image_encoder, pretrained.freeze_image) == (None, True)
    assert model("--model_name_or_path", "org/model").init_image_encoder is None
    both = model("--vision_config", '{"model_type": "resnet"}', "--init_image_encoder", "org/start")
    assert both.init_image_encoder == "org/start"


def test_command_line_overrides_the_configuration(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("learning_rate: 1e-4\nconfig: {dropout: 0.1}\nflip: true\n")
    configuration = parse_configuration(
        [str(path), "--learning_rate", "0.02", "--flip", "false", "--config", '{"dropout": 0.3}']
    )
    assert configuration.training.learning_rate == 0.02
    assert configuration.data.flip is False
    assert configuration.model.config == {"dropout": 0.3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rates: 1\n", r"unknown argument 'learning_rates' in .*; did you mean learning_rate or"),
        ("modality: smell\n", "modality: 'smell' is none of fusion, text, image"),
        ("- a\n", "must hold `name: value` lines"),
        ("a: [\n", "is not YAML"),
        ("per_device_train_batch_size: many\n", "per-device-train-batch-size: invalid int value"),
    ],
)
def test_faulty_configurations_are_refused(tmp_path, text, message):
    path = tmp_path / "faulty.yaml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        parse_configuration([str(path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["flavour_fusion_tyny"],
            "no configuration 'flavour_fusion_tyny'; give a YAML file or one of flavour_fusion_tiny",
        ),
        (["--freeze_tex", "true"], "unknown argument 'freeze_tex' in the command line; did you mean freeze_text"),
        (["default", "stray"], "do not know what 'stray' means"),
        (["--seeds", "x"], "invalid int value"),
        (["--config", "{"], "invalid JsonMapping value"),
    ],
)
def test_faulty_command_lines_are_refused(arguments, message):
    with pytest.raises(BadInputError, match=message):
        parse_configuration(arguments)


def test_none_takes_back_what_a_configuration_chose():
    assert parse_configuration(["flavour_fusion_tiny"]).model.tokenizer == "words"
    configuration = parse_configuration(
        ["flavour_fusion_tiny", "--tokenizer", "none", "--early_stopping_patience=none"]
    )
    assert (configuration.model.tokenizer, configuration.training.early_stopping_patience) == (None, None)


def test_bad_input_ends_with_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["--learning_rat", "1"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean learning_rate" in error


def test_bf16_only_where_the_device_gains(monkeypatch, tmp_path):
    monkeypatch.setattr(training_arguments, "bf16_gains", lambda cpu_only: False)
    assert not TrainingArguments(str(tmp_path)).bf16
    monkeypatch.setattr(training_arguments, "bf16_gains", lambda cpu_only: True)
    assert TrainingArguments(str(tmp_path)).bf16
    assert not TrainingArguments(str(tmp_path), precision="fp32").bf16


def test_cpu_gains_from_bf16_by_its_flags(monkeypatch):
    for flags, gains in (({"avx2"}, False), ({"avx512_bf16"}, True), ({"amx_bf16"}, True)):
        monkeypatch.setattr(
            "trainer_scripts.settings.training_arguments._cpu_flags", lambda flags=flags: frozenset(flags)
        )
        assert bf16_gains(cpu_only=True) is gains


def test_configurations_hold_no_machine_paths():
    for path in CONFIGURATIONS.glob("*.yaml"):
        for value in yaml.safe_load(path.read_text()).values():
            assert not str(value).startswith("/"), path


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("seeds", ("0", "-1"), "it must be at least 1"),
        ("ema_decay", ("2", "1", "-1"), r"it must lie in \[0, 1\)"),
        ("word_dropout", ("5", "1"), r"it must lie in \[0, 1\)"),
        ("crop_scale", ("0", "-0.5", "1.1"), r"it must lie in \(0, 1\]"),
        ("target_share", ("3", "-0.1"), r"it must lie in \[0, 1\]"),
        ("mixup_alpha", ("-1", "nan"), "it must be at least 0"),
        ("stream_block", ("0",), "it must be at least 1"),
        ("feature_views", ("-3",), "it must be at least 0"),
        ("image_size", ("0",), "it must be at least 1"),
        ("early_stopping_patience", ("-1", "0"), "it must be at least 1"),
        ("label_smoothing_factor", ("1.5", "1"), r"it must lie in \[0, 1\)"),
        ("trainable_image_layers", ("-1",), "it must be at least 0"),
        ("max_length", ("0", "2"), "it must be at least 3"),
        ("per_device_train_batch_size", ("0",), "it must be at least 1"),
        ("num_train_epochs", ("0",), "it must be above 0"),
        ("selection_share", ("0", "1"), r"it must lie in \(0, 1\)"),
        ("mask_stride", ("0",), "it must be at least 1"),
    ],
)
def test_numbers_outside_their_range_are_refused_by_name(name, values, allowed):
    for value in values:
        with pytest.raises(BadInputError, match=f"^{name} is {float(value):g}; {allowed}"):
            parse_configuration([f"--{name}={value}"])


def test_every_range_holds_its_default_and_every_inherited_option_is_an_argument():
    for part in ARGUMENT_CLASSES:
        defaults = {item.name: item.default for item in dataclasses.fields(part)}
        assert set(getattr(part, "INHERITED_OPTIONS", {})) <= set(defaults)
        for name, properties in options_of(part).items():
            if properties.allowed is not None:
                assert defaults[name] is None or defaults[name] in properties.allowed, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--crop_scale", "0.5", "--crop_scale_most", "0.2"], r"crop_scale is 0.5, above crop_scale_most 0.2"),
        (
            ["--lr_scheduler_kwargs", '{"patienc": 1}'],
            "schedule cosine has no setting 'patienc'; it has num_cycles",
        ),
        (
            ["--lr_scheduler_type", "reduce_lr_on_plateau", "--lr_scheduler_kwargs", '{"patienc": 1}'],
            "the schedule reduce_lr_on_plateau has no setting 'patienc'; it has mode, factor, patience",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises(BadInputError, match=message):
        parse_configuration(arguments)


def settings_of(arguments):
    configuration = parse_configuration(arguments)
    return vars(configuration.model) | vars(configuration.data) | vars(configuration.training)


@pytest.mark.parametrize("word", ["none", "None", "null"])
def test_what_a_configuration_sets_is_taken_back_on_the_command_line(word):
    names = ("group_column", "image_learning_rate", "early_stopping_patience", "max_mb", "image_encoder")
    before = settings_of(["multilabel_efficientnet_b4_bilstm"])
    given = settings_of(["multilabel_efficientnet_b4_bilstm", *(f"--{name}={word}" for name in names)])
    assert None not in [before[name] for name in names]
    assert [given[name] for name in names] == [None] * len(names)


def test_a_column_that_must_be_there_is_never_none():
    assert parse_configuration(["--text_column", "none"]).data.text_column == "none"
    assert parse_configuration(["--report_to", "none"]).training.report_to == []


@pytest.mark.parametrize("name", configuration_names())
def test_no_configuration_sets_an_option_that_its_task_does_not_read(name):
    configuration = parse_configuration([name])
    refuse_idle_options(configuration)
    refuse_options_of_other_tasks(configuration, configuration.training.task or "classification")


@pytest.mark.parametrize(
    ("configuration", "options"),
    [
        ("captioner_resnet18_transformer_tiny", {"weight_column": "w", "word_dropout": 0.2, "letters_only": "true"}),
        ("segmentation_deeplabv3_tiny", {"weight_column": "w", "label_smoothing_factor": 0.1, "word_dropout": 0.2}),
        ("segmentation_deeplabv3_tiny", {"frozen_image_epochs": 1, "confidence_column": "taste"}),
        ("flavour_fusion_tiny", {"frozen_image_epochs": 1, "self_critical_draws": 3, "mask_stride": 2}),
        ("multilabel_tiny", {"generation": '{"num_beams": 2}', "label_filter": "egg", "label_level": "group"}),
    ],
)
def test_options_that_a_task_does_not_read_are_refused_by_name(configuration, options):
    for name, value in options.items():
        made = parse_configuration([configuration, f"--{name}={value}"])
        with pytest.raises(BadInputError, match=f"^{name} .* does nothing in {made.training.task or 'classification'}"):
            refuse_options_of_other_tasks(made, made.training.task or "classification")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume_from_checkpoint", "/nowhere"], "resume_from_checkpoint '/nowhere': a repeated command goes on"),
        (["--early_stopping_patience", "2", "--eval_strategy", "no", "--load_best_model_at_end", "false"],
         "eval_strategy no makes none"),
        (["multilabel_efficientnet_b4_bilstm", "--eval_strategy", "no", "--load_best_model_at_end", "false"],
         "or early_stopping_patience none"),
        (["--dataset", ".", "--dataset_revision", "v1"], "dataset_revision 'v1': . is a folder here"),
    ],
)  # fmt: skip
def test_options_without_effect_are_refused(arguments, message):
    with pytest.raises(BadInputError, match=message):
        load_training_data(parse_configuration(arguments))
