"""Configuration files as users write them: a base from anywhere, and words that YAML 1.1 takes for true and false."""

import pytest

from dataset_builder.errors import BadInputError
from trainer_scripts.settings.configurations import CONFIGURATIONS, parse_configuration, read_configuration

SHIPPED = read_configuration(CONFIGURATIONS / "flavour_fusion_tiny.yaml")


def written(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def parse(path, *arguments):
    return parse_configuration([str(path), "--use_cpu", "true", *arguments])


def test_a_base_may_be_a_shipped_configuration_a_neighbour_or_a_path(tmp_path):
    mine = written(tmp_path, "base: flavour_fusion_tiny\nlearning_rate: 0.5\n")
    configuration = parse(mine)
    assert (configuration.training.learning_rate, configuration.data.word_dropout) == (0.5, SHIPPED["word_dropout"])
    child = written(tmp_path, "base: mine\nseed: 3\n", "child.yaml")
    assert (parse(child).training.learning_rate, parse(child).training.seed) == (0.5, 3)
    (tmp_path / "deep").mkdir()
    assert read_configuration(written(tmp_path, "base: flavour_fusion_tiny.yaml\n", "suffix.yaml")) == SHIPPED
    for base in ("../mine", "../mine.yaml", str(mine)):
        assert parse(written(tmp_path / "deep", f"base: {base}\n")).training.learning_rate == 0.5
    # One's own file may have the name of the shipped one that it starts from.
    same = written(tmp_path, "base: flavour_fusion_tiny\nseed: 4\n", "flavour_fusion_tiny.yaml")
    assert read_configuration(same)["seed"] == 4
    assert read_configuration(same)["word_dropout"] == SHIPPED["word_dropout"] > 0


def test_a_setting_that_is_given_twice_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="sets seed twice"):
        parse(written(tmp_path, "base: flavour_fusion_tiny\nseed: 1\nflip: no\nseed: 2\n"))


def test_a_base_that_is_not_there_or_leads_back_is_named(tmp_path):
    lost = written(tmp_path, "base: flavour_fusoin_tiny\n", "lost.yaml")
    with pytest.raises(BadInputError, match="neither a file beside it nor a configuration of the package; give one of"):
        parse(lost)
    written(tmp_path, "base: two\n", "one.yaml")
    with pytest.raises(BadInputError, match="leads back to a file before it"):
        parse(written(tmp_path, "base: one\n", "two.yaml"))


@pytest.mark.parametrize(
    ("word", "expected"),
    [("no", "no"), ("off", "no"), ("No", "no"), ("FALSE", "no"), ("'no'", "no"), ("Steps", "steps")],
)
def test_strategies_mean_what_they_say(tmp_path, word, expected):
    text = f"base: flavour_fusion_tiny\neval_strategy: {word}\nsave_strategy: {word}\nload_best_model_at_end: off\n"
    text += f"early_stopping_patience: null\nreport_to: {'off' if expected == 'no' else 'none'}\n"
    training = parse(written(tmp_path, text)).training
    assert training.report_to == []
    assert training.eval_strategy == training.save_strategy == expected
    assert training.load_best_model_at_end is False


@pytest.mark.parametrize(
    ("word", "expected"), [("yes", True), ("on", True), ("On", True), ("no", False), ("off", False)]
)
def test_truth_may_be_written_in_words(tmp_path, word, expected):
    text = f"base: flavour_fusion_tiny\nfreeze_text: {word}\nconfig:\n  feature_norm: {word}\n"
    configuration = parse(written(tmp_path, text))
    assert configuration.model.freeze_text is expected
    assert configuration.model.config["feature_norm"] is expected
    assert parse(written(tmp_path, "base: flavour_fusion_tiny\n"), "--freeze_text", word).model.freeze_text is expected


def test_a_word_for_truth_is_no_strategy(tmp_path):
    with pytest.raises(BadInputError, match="on"):
        parse(written(tmp_path, "base: flavour_fusion_tiny\neval_strategy: on\n"))
