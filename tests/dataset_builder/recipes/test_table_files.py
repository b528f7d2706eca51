"""Recipe tables as files: line ends, encodings, archives, spreadsheets, Parquet of any type, and what is no table."""

import bz2
import gzip
import json
import lzma
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder.errors import BadInputError
from dataset_builder.recipes.recipes import OVERSIZED, read_recipes
from tests.dataset_builder.recipes.test_shapes import BOTH, CAKE, CSV, SOUP, read


@pytest.mark.parametrize(
    "text",
    [
        CSV.replace("\n", "\r"),
        CSV.replace("\n", "\r\n"),
        "\n\n\n" + CSV,
        "sep=;\n" + CSV.replace(",", ";", 1).replace('Cake,"', 'Cake;"').replace('Soup,"', 'Soup;"'),
        CSV.replace(",", "\t"),
        CSV.replace(",", "|"),
        CSV.replace(",", ";", 1).replace('Cake,"', 'Cake;"').replace('Soup,"', 'Soup;"'),
        json.dumps([CAKE, SOUP]),
        "title,ingredient,amount\nHoney Cake,honey,\nHoney Cake,sugar,\nMiso Soup,miso,\n,soy sauce,\n",
        "title,ingredient1,ingredient2,ingredient3\nHoney Cake,honey,sugar,\nMiso Soup,miso,soy sauce,\n",
        "title,ingredient,ingredient\nHoney Cake,honey,sugar\nMiso Soup,miso,soy sauce\n",
        'Name,RecipeIngredientParts\nHoney Cake,"c(""honey"", ""sugar"")"\nMiso Soup,"c(""miso"", ""soy sauce"")"\n',
    ],
    ids=["CR", "CRLF", "blank lines first", "sep=", "tabs", "bars", "semicolons", "JSON", "one ingredient per row",
         "numbered ingredients", "repeated ingredient column", "Food.com"],
)  # fmt: skip
def test_a_csv_may_have_any_line_end_delimiter_and_layout(tmp_path, text):
    path = tmp_path / "recipes.csv"
    path.write_bytes(text.encode())
    assert read(path) == BOTH


def test_amounts_beside_numbered_and_single_ingredients_are_kept(tmp_path):
    path = tmp_path / "recipes.csv"
    path.write_text("recipe_id,title,quantity,unit,ingredient\n1,Cake,2,cups,sugar\n1,Cake,1,,egg\n2,Soup,1,tsp,salt\n")
    assert read(path) == [("Cake", ("2 cups sugar", "1 egg")), ("Soup", ("1 tsp salt",))]
    path.write_text("title,ingredient_1,measure_1,ingredient_2,measure_2\nCake,sugar,2 cups,egg,1\n")
    assert read(path) == [("Cake", ("2 cups sugar", "1 egg"))]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_tables_are_read(tmp_path, pack):
    suffix = {gzip.compress: ".gz", bz2.compress: ".bz2", lzma.compress: ".xz"}[pack]
    for name, content in ((f"a.csv{suffix}", CSV), (f"a.jsonl{suffix}", f"{json.dumps(CAKE)}\n{json.dumps(SOUP)}\n")):
        path = tmp_path / name
        path.write_bytes(pack(content.encode()))
        assert read(path) == BOTH
        path.write_bytes(pack(content.encode() * 200)[:-9])
        with pytest.raises(BadInputError, match="cannot be unpacked"):
            read(path)


def test_archives_are_read_as_folders(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._a.csv", b"\x00")
        archive.writestr("data/a.csv", CSV)
        archive.writestr("data/readme.txt", "no table")
    assert read(path) == BOTH
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", json.dumps(CAKE))
        archive.writestr("b.json", json.dumps(SOUP))
    assert read(path) == BOTH
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BadInputError, match="cannot be unpacked"):
        read(path)


SHEET = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="xml" ContentType="application/xml"/>'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets>'
    '<sheet name="Recipes" sheetId="1" r:id="r1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" '
    'Target="worksheets/sheet1.xml"/></Relationships>',
}


def write_sheet(path, rows):
    cell = '<c t="inlineStr"><is><t>{}</t></is></c>'.format
    cells = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    sheet = f'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{cells}'
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**SHEET, "xl/worksheets/sheet1.xml": f"{sheet}</sheetData></worksheet>"}.items():
            archive.writestr(name, content)


def test_spreadsheets_are_read(tmp_path):
    pytest.importorskip("python_calamine")
    path = tmp_path / "a.xlsx"
    write_sheet(path, [["title", "ingredients"], ["Honey Cake", "honey; sugar"], ["Miso Soup", "miso; soy sauce"]])
    assert read(path) == BOTH
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadInputError, match="is no spreadsheet"):
        read(path)


@pytest.mark.parametrize("name", ["recipes.csv", "recipes.json", "recipes.parquet", "recipes.xlsx", "recipes.csv.gz"])
def test_what_downloads_leave_in_place_of_a_table_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(BadInputError, match=r"is a pointer of Git LFS, not the file itself; fetch .* `git lfs pull`"):
        read(path)
    path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    with pytest.raises(BadInputError, match="is a web page"):
        read(path)


BORSCHT = "title,ingredients\nБорщ украинский,свёкла; капуста; соль\nСырники,творог; сахар; мука\n"


CREAM = "title,ingredients\nCrème brûlée,crème; œufs; sucre – 50 g\nGâteau,farine\n"


@pytest.mark.parametrize(
    ("text", "encoding", "guess"),
    [
        (CREAM, "utf-16", None),
        (CREAM, "utf-16-le", "utf-16-le"),
        (CREAM, "utf-8-sig", None),
        (CREAM, "cp1252", "cp1252"),
        (CREAM.replace("œ", "oe").replace("–", "-"), "latin-1", "cp1252"),
        (BORSCHT, "cp1251", "cp1251"),
    ],
)
def test_encodings_are_recognised_and_a_guess_is_said(tmp_path, text, encoding, guess):
    path = tmp_path / "recipes.csv"
    path.write_bytes(text.encode(encoding))
    table = read_recipes(path)
    expected = [line.split(",")[0] for line in text.splitlines()[1:]]
    assert [dish.title for dish in table.dishes] == expected
    said = "".join(table.table.notes)
    assert (f"was read as {guess}, a guess; --encoding states it" in said) if guess else not said


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ('title,ingredients\n酸辣土豆丝,"土豆、醋、盐"\n', "gb18030"),
        ('title,ingredients\n味噌汁,"味噌、豆腐、ねぎ"\n', "euc_jp"),
        ('title,ingredients\nБорщ,"свёкла, капуста, соль"\n', "koi8_r"),
    ],
)
def test_other_encodings_are_not_taken_for_half_width_kana(tmp_path, text, encoding):
    path = tmp_path / "recipes.csv"
    path.write_bytes(text.encode(encoding))
    table = read_recipes(path)
    (dish,) = table.dishes
    assert dish.title == text.split("\n")[1].split(",")[0]
    assert len(dish.ingredients) == 3
    assert f"read as {encoding}, a guess" in "".join(table.table.notes)


def test_the_stated_encoding_is_taken(tmp_path):
    path = tmp_path / "recipes.csv"
    path.write_bytes("title,ingredients\nKołacz,mąka\n".encode("cp1250"))
    assert read(path, encoding="cp1250") == [("Kołacz", ("mąka",))]
    with pytest.raises(BadInputError, match="--encoding klingon is no encoding; give one such as"):
        read(path, encoding="klingon")


def test_parquet_with_a_name_twice_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([["a"], ["b"], ["c"]], names=["title", "title", "ingredients"]), path)
    with pytest.raises(BadInputError, match="has the column title 2 times; rename or drop one of them"):
        read(path)


INVALID = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([2**62], pa.timestamp("ms")), None),
        (pa.array([0], pa.timestamp("us", tz="Nowhere/City")), None),
        (INVALID, "not"),
        (pa.array([b"salt"], pa.binary(4)), None),
        (pa.array(["salt"], pa.string()).dictionary_encode(), None),
        (pa.array([[None, "salt"]]), None),
        (pa.array([None], pa.null()), None),
    ],
    ids=["out of range", "unknown zone", "invalid UTF-8", "fixed bytes", "dictionary", "null in a list", "nulls"],
)  # fmt: skip
def test_parquet_columns_of_any_type_are_read_or_named(tmp_path, column, message):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"title": ["Soup"], "ingredients": column, "Ingredient_List": ["salt"]}), path)
    if message is None:
        assert [title for title, _ in read(path)] == ["Soup"]
    else:
        with pytest.raises(BadInputError, match=r"a\.parquet .*"):
            read(path)


def test_a_short_parquet_file_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"title": ["Soup"], "ingredients": ["x" * (40 << 20)]}), path, compression="zstd")
    with pytest.raises(BadInputError, match="2 cells of it take 40 MB, and one is larger than 16 MB"):
        read(path)
    # Among many other cells it is found when it was read, in a list too.
    others = {f"other {number}": ["y"] for number in range(9)}
    for ingredients in (["x" * (20 << 20)], [["salt", "x" * (20 << 20)]]):
        pq.write_table(pa.table({"title": ["Soup"], "ingredients": ingredients, **others}), path, compression="zstd")
        with pytest.raises(BadInputError, match="a cell of the column ingredients is larger than 16 MB"):
            read(path)
    # A text that repeats stands once in the file; a row with it is left out, and named.
    pq.write_table(pa.table({"title": ["Soup", "Tea"], "ingredients": ["x" * (2 << 20), "water"]}), path)
    table = read_recipes(path)
    assert [dish.title for dish in table.dishes] == ["Tea"]
    assert table.skipped[OVERSIZED].names == ["Soup"]
