"""The demo of segmentation: its plan is a fair one, and the whole of it runs."""

import json

from trainer_scripts.demos import all_cores
from trainer_scripts.demos import segmentation as demo_segmentation
from trainer_scripts.demos.segmentation import COMPARED, RUNS, START, summary
from trainer_scripts.settings.configurations import parse_configuration


def planned(name, folder):
    configuration, argument = RUNS[name]
    given = [argument, str(folder / START)] if argument else []
    return parse_configuration([configuration, "--output_dir", str(folder / name), *given])


def test_what_is_compared_differs_in_what_is_learned_alone(tmp_path):
    plans = {name: planned(name, tmp_path) for name in RUNS}
    assert next(iter(RUNS)) == START
    alike = ("num_train_epochs", "learning_rate", "per_device_train_batch_size", "seed")
    assert len({tuple(getattr(plans[name].training, field) for field in alike) for name in COMPARED}) == 1
    assert len({(plans[name].data.crop_size, plans[name].data.crop_scale) for name in COMPARED}) == 1
    assert len({plans[name].data.class_crops for name in COMPARED}) == 1
    assert {plan.data.label_level for plan in plans.values()} == {"ingredient"}
    starts = (plans[name].model for name in COMPARED)
    assert [model.init_segmenter or model.model_name_or_path or model.init_image_encoder for model in starts] == [
        str(tmp_path / START)
    ] * 3


def test_the_summary_names_what_was_never_found():
    entry = {"value": 0.5, "low": 0.4, "high": 0.6}
    scored = {
        "one": {
            "label_names": ["background", "egg", "nut"],
            "metrics": {"miou_food": entry},
            "details": {"per_class": {"egg": {"iou": 0.4}, "nut": {"iou": 0.0}}},
        },
        "two": {
            "label_names": ["background", "egg"],
            "metrics": {},
            "details": {"per_class": {"egg": {"iou": None}}},
        },
    }
    first, second = summary(scored).splitlines()
    assert first == "one               2 classes: miou_food 0.500 [0.400, 0.600]; never found: nut"
    assert second.endswith("every food group is found")


def test_the_whole_demo_leaves_models_scores_and_a_verdict(small_dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(all_cores, "process_count", lambda rows: 1)
    demo_segmentation.run(small_dataset, tmp_path, epochs=1)
    verdict = json.loads((tmp_path / "verdict" / "comparison.json").read_text())
    assert any("masks: " in text and "single-task" in text for text in verdict["verdicts"])
    for name in ("multi-task", "single-task"):
        assert (tmp_path / name / "scores" / "test" / "flavour_map.png").is_file()
    assert "classes: group_miou_food" in capsys.readouterr().out
