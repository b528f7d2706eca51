"""The demo of segmentation: its plan is a fair one, and the whole of it runs."""

import json

import pytest

from trainer_scripts import demo_segmentation
from trainer_scripts.arguments import parse_recipe
from trainer_scripts.demo_segmentation import COMPARED, RUNS, START, summary


def planned(name, folder):
    recipe, start, argument, epochs = RUNS[name]
    given = [argument, str(folder / start)] if start else []
    given += ["--num_train_epochs", str(epochs)] if epochs else []
    return parse_recipe([recipe, "--output_dir", str(folder / name), *given])


def test_what_is_compared_differs_in_what_is_learned_alone(tmp_path):
    plans = {name: planned(name, tmp_path) for name in RUNS}
    order = list(RUNS)
    for name, (_, start, _, _) in RUNS.items():
        assert start is None or order.index(start) < order.index(name)
    assert all(RUNS[name][1] == START for name in COMPARED)
    assert len({plans[name].training.num_train_epochs for name in COMPARED}) == 1
    assert len({plans[name].training.learning_rate for name in COMPARED}) == 1
    assert {plans[name].data.label_level for name in COMPARED} == {"group"}
    assert plans["ingredient-level"].data.label_level == "ingredient"
    assert plans["multi-task"].model.init_segmenter == str(tmp_path / START)


def test_the_summary_names_what_was_never_found():
    entry = {"value": 0.5, "low": 0.4, "high": 0.6}
    scored = {
        "one": {
            "label_names": ["background", "egg", "nut"],
            "metrics": {"miou_food": entry},
            "per_class": {"egg": {"iou": 0.4}, "nut": {"iou": 0.0}},
        },
        "two": {"label_names": ["background", "egg"], "metrics": {}, "per_class": {"egg": {"iou": None}}},
    }
    first, second = summary(scored).splitlines()
    assert first == "one               2 classes: miou_food 0.500 [0.400, 0.600]; never found: nut"
    assert second.endswith("every food group is found")


@pytest.mark.slow
def test_the_whole_demo_leaves_models_scores_and_a_verdict(small_dataset, tmp_path, capsys):
    demo_segmentation.run(small_dataset, tmp_path, epochs=1)
    verdict = json.loads((tmp_path / "verdict" / "comparison.json").read_text())
    assert any("masks: " in text and "single-task" in text for text in verdict["verdicts"])
    for name in ("multi-task", "single-task", "ingredient-level"):
        assert (tmp_path / name / "scores" / "test" / "flavour_map.png").is_file()
    assert "classes: miou_food" in capsys.readouterr().out
