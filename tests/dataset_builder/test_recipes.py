import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder.errors import BadInputError
from dataset_builder.recipes import EQUAL_TITLE, NO_INGREDIENTS, NO_TITLE, parse_ingredients, read_recipes, slug


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["salt", " 2 eggs ", "", None], ("salt", "2 eggs")),
        ("['salt', '2 eggs, beaten']", ("salt", "2 eggs, beaten")),
        ("['salt', \"baker's chocolate\"]", ("salt", "baker's chocolate")),
        ('["salt", "2 \\u00bd eggs"]', ("salt", "2 ½ eggs")),
        ("- salt\n* 2 eggs, beaten\n\n• flour", ("salt", "2 eggs, beaten", "flour")),
        ("salt; 2 eggs, beaten", ("salt", "2 eggs, beaten")),
        ("salt, eggs", ("salt", "eggs")),
        ("[salt, eggs]", ("salt", "eggs")),
        ([{"text": "6 oz penne"}, {"name": "feta"}], ("6 oz penne", "feta")),
        ("1 - 2L (1/4 - 1/2 gal) milk", ("1 - 2L (1/4 - 1/2 gal) milk",)),
        ("['', '-']", ()),
        ("[]", ()),
        ("nan", ()),
        (float("nan"), ()),
        (None, ()),
    ],
)
def test_ingredients_are_read_in_every_notation(value, expected):
    assert parse_ingredients(value) == expected


def test_a_list_without_commas_does_not_glue_its_words():
    assert parse_ingredients("['salt' 'pepper']") == ("salt", "pepper")


TITLES = ["Soup", "Cake"]


def rows(notation):
    return [{"Title": title, "Ingredients": notation(["salt", "2 eggs"]), "other": 1} for title in TITLES]


def test_csv_json_lines_and_parquet_read_alike(tmp_path):
    (tmp_path / "folder").mkdir()
    table = pa.Table.from_pylist(rows(list))
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.slice(0, 1), tmp_path / "folder" / "a.parquet")
    pq.write_table(table.slice(1), tmp_path / "folder" / "b.parquet")
    write(tmp_path, "a.jsonl", "\n".join(json.dumps(row) for row in rows(list)))
    write(
        tmp_path, "a.csv", "\ufeffTitle,other,Ingredients\nSoup,1,\"['salt', '2 eggs']\"\n\nCake,1,\"salt\n2 eggs\"\n"
    )
    write(tmp_path, "a.tsv", "Title\tIngredients\nSoup\tsalt, 2 eggs\nCake\tsalt; 2 eggs\n")
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet", "folder"):
        table = read_recipes(tmp_path / name)
        assert [(dish.dish_id, dish.title, dish.ingredients) for dish in table.dishes] == [
            ("soup", "Soup", ("salt", "2 eggs")),
            ("cake", "Cake", ("salt", "2 eggs")),
        ]
        assert table.table.position == table.table.size


def test_cleaned_ingredients_are_preferred_and_other_columns_found(tmp_path):
    path = write(
        tmp_path,
        "recipes.csv",
        ",Title,Ingredients,Instructions,Image_Name,Cleaned_Ingredients\n"
        '0,Soup,"x","Boil, then\neat.",soup,"[\'salt\']"\n',
    )
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "soup.jpg").touch()
    table = read_recipes(path)
    dish = table.dishes[0]
    assert table.columns["ingredients"] == "Cleaned_Ingredients"
    assert dish.ingredients == ("salt",)
    assert dish.instructions == "Boil, then\neat."
    assert dish.image_path == str(tmp_path / "photos" / "soup.jpg")
    assert dish.variant == 0


def test_rows_left_out_are_counted_and_named_by_reason(tmp_path):
    lines = ["name;x,ingredients", 'Soup,"salt"', ',"salt"', "nan,salt", "Cake,[]", "Cake,sugar", "SOUP ,water", "Tea"]
    table = read_recipes(write(tmp_path, "a.csv", "\n".join(lines).replace("name;x", "Name")))
    skipped = {reason: (entry.count, entry.names) for reason, entry in table.skipped.items()}
    assert skipped == {
        NO_TITLE: (2, ["row 2", "row 3"]),
        NO_INGREDIENTS: (2, ["Cake", "Tea"]),
        EQUAL_TITLE: (1, ["SOUP"]),
    }
    assert [dish.title for dish in table.dishes] == ["Soup", "Cake"]


def test_a_table_can_be_read_twice_and_counts_once(tmp_path):
    table = read_recipes(write(tmp_path, "a.csv", "title,ingredients\nSoup,salt\nSoup,salt\n"))
    assert len(list(table.stream())) == len(list(table.stream())) == 1
    assert table.skipped[EQUAL_TITLE].count == 1


def test_ids_are_unique_slugs(tmp_path):
    path = write(tmp_path, "a.csv", "title,ingredients\nPie!,salt\nPie?,salt\nCrème brûlée,salt\n麻婆豆腐,salt\n")
    ids = [dish.dish_id for dish in read_recipes(path).dishes]
    assert ids[:3] == ["pie", "pie-2", "creme-brulee"]
    assert ids[3].startswith("dish-")
    assert slug("麻婆豆腐") != slug("宫保鸡丁")


def test_an_id_column_is_kept(tmp_path):
    path = write(tmp_path, "a.csv", "id,title,ingredients\nA 7,Soup,salt\n,Cake,sugar\n")
    assert [dish.dish_id for dish in read_recipes(path).dishes] == ["a-7", "cake"]


def test_columns_can_be_named(tmp_path):
    path = write(tmp_path, "a.csv", "Gericht,Zutaten\nSuppe,Salz\n")
    dish = read_recipes(path, {"title": "Gericht", "ingredients": "Zutaten"}).dishes[0]
    assert (dish.title, dish.ingredients) == ("Suppe", ("Salz",))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", r"a\.csv is empty; give a table with a title and an ingredients column"),
        ("a.csv", "title,ingredients\n", r"a\.csv has no recipe: no row at all"),
        ("a.csv", "title,ingredients\nTea,[]\n,salt\n", "has no recipe: 1 without title, 1 without ingredients"),
        (
            "a.csv",
            "Gericht,ingredients\nTea,water\n",
            "columns 'Gericht', 'ingredients'; none of them is the title: acc",
        ),
        (
            "a.csv",
            "title,stuff\nTea,water\n",
            "none of them is the ingredients: accepted are cleaned_ingredients, ingred",
        ),
        ("a.jsonl", '{"title": "Tea", "ingredients": []}\n{"title"', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is no object"),
        ("a.parquet", "no parquet", "is not a whole Parquet file"),
        ("a.xlsx", "x", "is no table by its name; give a CSV, TSV, JSON lines or Parquet file"),
    ],
)
def test_bad_tables_are_refused_with_their_name_and_the_way_out(tmp_path, name, text, message):
    path = write(tmp_path, name, text)
    with pytest.raises(BadInputError, match=message) as error:
        _ = read_recipes(path).dishes
    assert name in str(error.value)


def test_other_encodings_missing_files_and_wrong_column_names_are_refused(tmp_path):
    path, empty = tmp_path / "a.csv", tmp_path / "empty"
    empty.mkdir()
    path.write_bytes("title,ingredients\nPâté,sel\n".encode("latin-1"))
    with pytest.raises(BadInputError, match="is not a table in UTF-8"):
        _ = read_recipes(path).dishes
    with pytest.raises(BadInputError, match=r"none\.csv does not exist"):
        read_recipes(tmp_path / "none.csv")
    with pytest.raises(BadInputError, match="holds no table"):
        read_recipes(empty)
    good = write(tmp_path, "b.csv", "title,ingredients\nTea,water\n")
    with pytest.raises(BadInputError, match="there is no 'Name' to take as title"):
        read_recipes(good, {"title": "Name"})
    with pytest.raises(BadInputError, match="'colour' is no part of a recipe; allowed are title, ingredients"):
        read_recipes(good, {"colour": "title"})


def test_an_unknown_data_set_is_refused():
    with pytest.raises(BadInputError, match="nobody/nothing is neither a file nor a data set that the Hub gives"):
        read_recipes("nobody/nothing")


def test_the_real_recipes(shared_data):
    table = read_recipes(shared_data / "recipes_public_domain" / "recipes.csv")
    assert len(table.dishes) == 395
    assert {reason: entry.count for reason, entry in table.skipped.items()} == {
        NO_TITLE: 0,
        NO_INGREDIENTS: 14,
        EQUAL_TITLE: 1,
    }
    assert sum(dish.image_path is not None for dish in table.dishes) == 131
    assert "1 - 2L (1/4 - 1/2 gal) milk" in table.dishes[0].ingredients
