"""Text of foreign origin reaches neither the terminal nor a spreadsheet as anything but text."""

import io

import pytest

from dataset_builder import cli
from dataset_builder.errors import BadInputError, CommandParser, exit_on_bad_input
from dataset_builder.files import write_csv
from dataset_builder.messages import LONGEST_MESSAGE, echo, one_line, shown

ESCAPES = "\x1b[2J\x07\x9b31m\u202e\x00\udc80"


def test_no_control_character_remains_in_a_value_or_a_message():
    for text in (shown(ESCAPES), one_line(ESCAPES), str(BadInputError(f"no column {ESCAPES}"))):
        assert text.isprintable()
        assert "\\x1b[2J" in text


def test_escaping_twice_changes_nothing():
    assert one_line(one_line(ESCAPES)) == one_line(ESCAPES)


def test_letters_of_every_script_stay():
    for text in ("Käsespätzle", "می\u200cخواهم", "👨\u200d🍳", "拉麵"):
        assert one_line(text) == text


@pytest.mark.parametrize(
    "value", ["x" * 10**7, "ab " * 10**6, 10**5000, ["y" * 10**6]], ids=["word", "words", "digits", "list"]
)
def test_long_values_and_messages_are_short(value):
    assert len(shown(value)) < 200
    assert len(str(BadInputError(f"refused: {value if not isinstance(value, int) else shown(value)}"))) < 1300
    assert len(one_line(" ".join([shown(value)] * 100))) < LONGEST_MESSAGE + 100


def test_begin_and_end_of_a_long_message_stay():
    message = one_line(f"no file {'x' * 5000}; give another --out")
    assert message.startswith("no file xxx")
    assert message.endswith("; give another --out")


def test_echo_keeps_lines_and_escapes_the_rest():
    stream = io.StringIO()
    echo("one\n\ttwo\x1b[1m", stream)
    assert stream.getvalue() == "one\n\ttwo\\x1b[1m\n"


def test_echo_shows_letters_that_the_terminal_does_not_have_as_escapes():
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding="latin-1")
    echo("Käse 拉麵", terminal)
    assert raw.getvalue() == b"K\xe4se \\u62c9\\u9eb5\n"


def test_errors_of_a_command_line_are_escaped_and_short(capsys):
    with pytest.raises(SystemExit) as ended:
        CommandParser(prog="x").parse_args([f"{ESCAPES[:-1]}", "1" * 9000])
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert line.isprintable()
    assert len(line) < 1400


def test_an_error_of_the_system_is_one_escaped_line(capsys):
    with pytest.raises(SystemExit), exit_on_bad_input("x"):
        raise OSError(40, "Too many levels\nof links", "a\x1b[1mb")
    line = capsys.readouterr().err
    assert line.strip().isprintable()
    assert "remove the link" in line


def test_a_csv_file_holds_no_formula_and_the_change_is_told(tmp_path, capsys):
    write_csv(tmp_path / "a.csv", ["id", "n"], [["=1+1", "-5"], ["@a", -5], ["a-b", 0.5], ["+x", "1e-3"]])
    assert (tmp_path / "a.csv").read_text() == "id,n\n'=1+1,-5\n'@a,-5\na-b,0.5\n'+x,1e-3\n"
    assert "3 cells" in capsys.readouterr().err


def test_a_csv_file_without_formulas_is_not_mentioned(tmp_path, capsys):
    write_csv(tmp_path / "a.csv", ["id"], [["a"]])
    assert not capsys.readouterr().err


@pytest.mark.parametrize("words", [["LOOP", "--out", "OUT"], ["RECIPES", "--out", "LOOP/x.parquet"]])
def test_links_that_name_each_other_are_one_line(tmp_path, capsys, words):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "recipes.csv").write_text("title,ingredients\nSoup,salt\n")
    for name, place in {"LOOP": "loop", "RECIPES": "recipes.csv", "OUT": "out.parquet"}.items():
        words = [word.replace(name, str(tmp_path / place)) for word in words]
    with pytest.raises(SystemExit) as ended:
        cli.main(["label", *words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "loop") in said
    assert "Traceback" not in said
