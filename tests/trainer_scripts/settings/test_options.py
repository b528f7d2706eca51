"""A new option is one new field: every check, the parser, the help and the saved file follow from its definition."""

import re
from dataclasses import dataclass

import pytest
import yaml

from dataset_builder.errors import BadInputError
from trainer_scripts.settings.arguments import DataArguments, ModelArguments
from trainer_scripts.settings.checks import refuse_idle_options, refuse_options_of_other_tasks
from trainer_scripts.settings.command_line import ArgumentParser
from trainer_scripts.settings.configurations import ARGUMENT_CLASSES, parse_configuration
from trainer_scripts.settings.options import COUNT, REQUIRED, SHARE, option, options_of
from trainer_scripts.settings.train_help import help_page
from trainer_scripts.settings.training_arguments import TrainingArguments
from trainer_scripts.training.folder import inspect_run, start_run


@dataclass
class SpicedArguments(DataArguments):
    """Data arguments with three further options."""

    pepper: float | None = option(None, "Share of peppered rows.", group="spices", allowed=SHARE, tasks=("captioning",))
    salt: bool = option(False, "Salt the pictures.", modalities=("image",))
    grinder: str = option("mill", "Machine that grinds.", choices=("mill", "mortar"), resumable=True)


def parse(*arguments):
    return parse_configuration(arguments, (ModelArguments, SpicedArguments, TrainingArguments))


def test_a_new_option_is_parsed_by_type_from_command_lines_and_files(tmp_path):
    assert parse("--pepper", "0.5", "--salt", "true").values["pepper"] == 0.5
    path = tmp_path / "mine.yaml"
    path.write_text("pepper: 0.5\ngrinder: mortar\n")
    assert parse(str(path)).values["grinder"] == "mortar"
    assert parse(str(path), "--pepper", "none").values["pepper"] is None
    for words, message in (
        (["--pepper", "hot"], "invalid float value"),
        (["--grinder", "fist"], "invalid choice: 'fist'"),
        (["--peper", "0.5"], "unknown argument 'peper' in the command line; did you mean pepper"),
    ):
        with pytest.raises(BadInputError, match=message):
            parse(*words)


def test_a_new_option_is_checked_against_its_range():
    with pytest.raises(BadInputError, match=r"pepper is 1\.5; it must lie in \[0, 1\]"):
        parse("--pepper", "1.5")


def test_a_new_option_is_refused_where_nothing_reads_it():
    peppered, salted = parse("--pepper", "0.5"), parse("--salt", "true")
    refuse_options_of_other_tasks(parse("captioner_resnet18_transformer_tiny", "--pepper", "0.5"), "captioning")
    with pytest.raises(BadInputError, match=r"pepper 0\.5 does nothing in multilabel, it is for captioning; leave"):
        refuse_options_of_other_tasks(peppered, "multilabel")
    refuse_idle_options(parse("--salt", "true", "--modality", "image"))
    with pytest.raises(BadInputError, match="salt True does nothing in modality fusion, it is for image; leave it out"):
        refuse_idle_options(salted)


def test_a_new_option_may_differ_in_a_resumed_run_only_where_it_says_so(tmp_path):
    folder = ("--output_dir", str(tmp_path))
    start_run(parse(*folder, "--pepper", "0.5"))
    assert not inspect_run(parse(*folder, "--pepper", "0.5", "--grinder", "mortar")).finished
    with pytest.raises(BadInputError, match=r"holds a run by another configuration \(pepper differ\)"):
        inspect_run(parse(*folder, "--pepper", "0.25"))


def test_a_new_option_is_in_the_saved_configuration_and_in_the_help_of_its_group(tmp_path, capsys):
    configuration = parse("--pepper", "0.5", "--output_dir", str(tmp_path))
    start_run(configuration)
    saved = tmp_path / "configuration.yaml"
    assert yaml.safe_load(saved.read_text())["pepper"] == 0.5
    assert parse(str(saved)).as_mapping() == configuration.as_mapping()
    with pytest.raises(SystemExit):
        parse("--help")
    groups = capsys.readouterr().out.split("\n\n")
    spices, data = (next(text for text in groups if text.startswith(f"{name}:")) for name in ("spices", "data"))
    assert "Share of peppered rows." in spices
    assert "{mill,mortar}" in data
    assert "--pepper" not in data


def test_help_groups_our_options_by_concern_apart_from_those_of_the_trainer(capsys):
    with pytest.raises(SystemExit):
        parse_configuration(["--help"])
    groups = {text.split(":\n")[0]: text for text in capsys.readouterr().out.split("\n\n")}
    for group, name in {
        "model": "--freeze_text",
        "data": "--train_split",
        "variation of training samples": "--flip",
        "outputs of frozen encoders": "--feature_views",
        "training": "--ema_decay",
        "further arguments of the Trainer of transformers": "--learning_rate",
    }.items():
        # Python 3.13 writes all names of an option before its value: `--flip, --no_flip`.
        assert [title for title, text in groups.items() if re.search(rf"\n  {name}[ ,]", text)] == [group]


def test_help_lists_every_argument_that_is_parsed_and_no_other():
    parsed = {name for name in options_of(*ARGUMENT_CLASSES) if not name.startswith("_")}
    listed = set(re.findall(r"^  --([a-z0-9_]+)", help_page(), re.MULTILINE))
    assert listed == parsed


def test_help_shows_text_and_default_of_the_trainers_arguments():
    text = " ".join(help_page().split())
    assert "--gradient_accumulation_steps" in text
    assert "The initial learning rate for the optimizer. (default: 5e-05)" in text.replace("5e-5", "5e-05")


@dataclass
class CookArguments:
    """Command line of a verb with every kind of value."""

    dish: str = option(REQUIRED, "name of the dish", metavar="DISH")
    hot_plates: int = option(2, "plates in use (%(default)s)", allowed=COUNT)
    weights: list[float] | None = option(None, "grams", group="scales", allowed=SHARE)
    cold: bool = option(False, "do not heat")
    columns: dict[str, str] | None = option(None, "names")


def test_the_command_line_of_a_verb_is_made_from_the_same_definitions(capsys):
    parser = ArgumentParser(CookArguments, "cook.py", spelling="-")
    given = vars(parser.parse_args(["soup", "--hot_plates", "3", "--weights", "0.5", "1", "--cold"]))
    expected = {"dish": "soup", "hot_plates": 3, "weights": [0.5, 1.0], "cold": True, "columns": None}
    expected["verbose"] = False
    assert given == expected
    assert vars(parser.parse_args(["soup", "--hot-plates", "4"]))["hot_plates"] == 4
    for words, message in (
        (["--hot-plates", "0"], "argument --hot-plates/--hot_plates: '0' is no whole number from 1 on"),
        (["--weights", "nan"], "'nan' is no number from 0 to 1"),
        (["--columns", "[]"], "is no mapping of columns"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(["soup", *words])
        assert message in capsys.readouterr().err
    assert "scales:\n  --weights" in parser.format_help()
