"""The demo of the flavours; its whole road, run by a user of the wheel, is in `tests/test_wheel.py`."""

import pytest

from trainer_scripts import demo


def test_a_missing_table_is_refused_at_once(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        demo.main(["--out", str(tmp_path), "--recipes", str(tmp_path / "nowhere.csv")])
    assert stop.value.code == 2
    assert "nowhere.csv does not exist" in capsys.readouterr().err
