from collections import Counter

import pytest

from dataset_builder.catalogue.matching import PhraseMatcher
from dataset_builder.cli import main
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.lint import lint

# Every fault of the first system's word lists: substring traps, a forgotten comma, upper case, one word in four
# classes, a word twice, words inside words of another flavour, and a list so short that it can never win.
SYSTEM_0 = """flavour,source,phrase
salty,ingredient,salt
salty,ingredient,soy sauce
salty,ingredient,anchovy
salty,ingredient,anchovies
bitter,ingredient,gin
bitter,ingredient,tea
bitter,ingredient,coffeebeer
bitter,ingredient,coffee
bitter,ingredient,beer
sweet,ingredient,crisp
sweet,ingredient,Honey
sweet,ingredient,salted caramel
umami,ingredient,oil
sour,ingredient,cheese
umami,ingredient,cheese
salty,ingredient,cheese
sweet,ingredient,cheese
sweet,title,cake
sweet,title,pie
sweet,title,cookie
sweet,title,candy
sour,title,lime
bitter,title,ale
bitter,title,hops
umami,title,broth
umami,title,stew
umami,title,?!
"""


@pytest.fixture
def system_0(tmp_path):
    path = tmp_path / "system_0.csv"
    path.write_text(SYSTEM_0)
    return path


def test_all_faults_of_the_first_system_are_found(system_0):
    findings = {(line, check): message for line, check, message in lint(Lexicon.load(system_0))}
    expected = {
        (2, "substring trap"): ["'salt' (salty)", "'unsalted'"],
        (6, "substring trap"): ["'gin' (bitter)", "'ginger'", "'virgin'"],
        (7, "substring trap"): ["'tea' (bitter)", "'steak'"],
        (11, "substring trap"): ["'crisp' (sweet)", "'crispy'"],
        (14, "substring trap"): ["'oil' (umami)", "'boiled'"],
        (24, "substring trap"): ["'ale' (bitter)"],
        (8, "glued"): ["'coffeebeer' is 'coffee' and 'beer' without the comma", "two lines"],
        (12, "never matches"): ["'Honey' has upper case", "write 'honey'"],
        (28, "never matches"): ["'?!' has no letter or digit"],
        (15, "several flavours"): [
            "sour (line 15)",
            "umami (line 16)",
            "salty (line 17)",
            "sweet (line 18)",
            "keep the one",
        ],
        (5, "duplicate"): ["'anchovies' is already salty in line 4; remove it"],
        (2, "inside another"): ["'salt' (salty) votes wherever 'salted caramel' (sweet, line 13) does"],
        (23, "uneven lists"): ["title has 1 phrases for sour and 4 for sweet"],
        (1, "uneven lists"): ["title has 0 phrases for salty and 4 for sweet"],
    }
    for key, parts in expected.items():
        for part in parts:
            assert part in findings[key], key
    by_check = Counter(check for _, check in findings)
    assert by_check["glued"] == by_check["several flavours"] == by_check["duplicate"] == 1
    assert by_check["never matches"] == 2


def test_word_matching_is_spared_what_cannot_hurt_it(system_0):
    checks = {finding.check for finding in lint(Lexicon.load(system_0), "word")}
    assert checks == {"several flavours", "duplicate", "glued", "uneven lists", "never matches"}


@pytest.mark.parametrize("phrase", ["salt, pepper", "half/half", "salt; pepper", "cream (sour)", "cream: sour", "a. b"])
def test_phrases_over_the_end_of_a_clause_never_match_by_word(tmp_path, phrase):
    path = tmp_path / "lexicon.csv"
    path.write_text(f'flavour,source,phrase\nsalty,ingredient,"{phrase}"\nsour,ingredient,crème (fraîche).\n')
    lexicon = Lexicon.load(path)
    messages = [finding.message for finding in lint(lexicon, "word") if finding[:2] == (2, "never matches")]
    assert len(messages) == 1
    assert messages[0].startswith(f"{phrase!r} reaches over")
    assert PhraseMatcher([phrase]).find(phrase) == []
    assert "never matches" not in {finding.check for finding in lint(lexicon, "substring")}


def test_outer_blanks_are_told_where_they_matter(tmp_path):
    path = tmp_path / "lexicon.csv"
    path.write_text('flavour,source,phrase\nbitter,ingredient,"tea "\n')
    lexicon = Lexicon.load(path)
    found = {finding.check: finding.message for finding in lint(lexicon) if finding.line == 2}
    assert found["outer blank"].startswith("'tea ' begins or ends with a blank")
    assert "never matches" not in found
    assert "substring trap" not in found
    assert "outer blank" not in {finding.check for finding in lint(lexicon, "word")}


def test_whole_words_and_plurals_are_no_traps(tmp_path):
    path = tmp_path / "fine.csv"
    lines = ["sweet,ingredient,honeys", "salty,ingredient,feta", "sour,ingredient,sumac", "bitter,ingredient,espresso"]
    path.write_text("\n".join(["flavour,source,phrase", *lines, "umami,ingredient,miso", ""]))
    assert lint(Lexicon.load(path)) == []


def test_the_default_lexicon_is_clean(capsys):
    with pytest.raises(SystemExit) as status:
        main(["lint"])
    assert status.value.code == 0
    assert capsys.readouterr().out.startswith("nothing found in ")


def test_findings_are_printed_with_file_and_line_and_give_status_1(system_0, capsys):
    with pytest.raises(SystemExit) as status:
        main(["lint", "--lexicon", str(system_0)])
    assert status.value.code == 1
    assert f"{system_0}:8: glued: 'coffeebeer'" in capsys.readouterr().out


def test_a_file_that_is_no_lexicon_gives_one_line_and_status_2(tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_text("flavour,source,phrase\nspicy,title,chilli\n")
    with pytest.raises(SystemExit) as status:
        main(["lint", "--lexicon", str(path)])
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{path}, line 2: flavour is 'spicy'; allowed are sweet, salty, sour, bitter, umami" in error


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="match is 'all'; allowed are word, substring"):
        lint(Lexicon.load(), "all")
