"""The captioning demo on a table of one-coloured pictures: both captioners, their scores, and both compared."""

import json

from tests.trainer_scripts.tasks.captioning.conftest import without_java  # noqa: F401
from trainer_scripts.demos import all_cores
from trainer_scripts.demos.run import caption


def test_the_whole_demo_leaves_captioners_scores_and_a_comparison(small_dataset, tmp_path, monkeypatch):
    # Processes take longer to start than this little to learn.
    monkeypatch.setattr(all_cores, "process_count", lambda rows: 1)
    out = tmp_path / "captioning"
    caption(small_dataset, out, epochs=25)
    for name in ("transformer", "merge"):
        content = json.loads((out / "scores" / name / "metrics.json").read_text())
        assert content["faults"] == []
        shuffled = content["ablations"]["image shuffled"]["ingredient_f1"]
        assert content["metrics"]["ingredient_f1"]["value"] > shuffled["value"]
        assert (out / "scores" / name / "contact_sheet.png").is_file()
    compared = json.loads((out / "comparison" / "comparison.json").read_text())
    assert compared["verdicts"]
    assert "ingredient_f1" in (out / "comparison" / "comparison.md").read_text()
