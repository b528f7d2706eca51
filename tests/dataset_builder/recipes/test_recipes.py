import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder.errors import BadInputError
from dataset_builder.recipes.ingredient_lists import has_ingredients, parse_ingredients
from dataset_builder.recipes.recipes import EQUAL_TITLE, NO_INGREDIENTS, NO_TITLE, SURPLUS, Skipped, read_recipes, slug


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
        ("['sugar', nan]", ("sugar",)),
        ("['sugar', None, \"baker's nan, warm\"]", ("sugar", "baker's nan, warm")),
        ('["sugar", NaN, null]', ("sugar",)),
        ("{'sugar', 'egg'}", ("sugar", "egg")),
        (["Nan", "NA", "nan"], ("Nan", "NA", "nan")),
        ("None", ("None",)),
        (
            {"sugar": "1 cup", "egg": 2, "vanilla": "", "salt": None, "milk": True, "rum": False},
            ("1 cup sugar", "2 egg", "vanilla", "milk"),
        ),
        ('{"sugar": "1 cup", "flour": {"quantity": 2, "unit": "cups"}}', ("1 cup sugar", "2 cups flour")),
        ("{'sugar': '1 cup'}", ("1 cup sugar",)),
        ({"name": ["sugar", "egg"], "amount": ["1 cup", "2"]}, ("sugar", "egg")),
        ('{"dough": ["flour", "egg"], "sauce": [{"name": "tomato"}]}', ("flour", "egg", "tomato")),
        ([["salt", "egg"], [{"ingredient": "flour", "amount": "1 cup"}]], ("salt", "egg", "1 cup flour")),
        ('c("salt", "milk, whole", NA)', ("salt", "milk, whole")),
        ("character(0)", ()),
        ("[nan, nan]", ()),
        ('[{"text": null}]', ()),
        ("nan", ()),
        (float("nan"), ()),
        (None, ()),
    ],
)
def test_ingredients_are_read_in_every_notation(value, expected):
    assert parse_ingredients(value) == expected


def test_instructions_may_be_text_a_list_of_texts_or_of_objects(tmp_path):
    recipe = {"title": "Soup", "ingredients": [{"text": "salt"}]}  # as Recipe1M writes both
    for given in ("Stir.\nServe.", ["Stir.", "Serve."], [{"text": "Stir."}, {"text": "Serve."}]):
        table = write(tmp_path, "a.jsonl", json.dumps({**recipe, "instructions": given}))
        assert read_recipes(table).dishes[0].instructions == "Stir.\nServe."


def test_only_what_gives_an_ingredient_counts_as_having_some():
    for hollow in ("[nan]", "[None, null]", "[]", "{}", '[{"text": null}]', "nan", "", None, [None], {"salt": None}):
        assert not has_ingredients(hollow)
    for filled in ("['nan']", "None", "[nan, salt]", "{salt}", '{"salt": 1}', ["Nan"], "salt"):
        assert has_ingredients(filled)
        assert parse_ingredients(filled)


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
    write(tmp_path, "b.csv", 'Title;Ingredients\nSoup;salt, 2 eggs\nCake;"salt; 2 eggs"\n')
    for name in ("a.csv", "b.csv", "a.tsv", "a.jsonl", "a.parquet", "folder"):
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


def test_an_empty_cell_of_the_better_column_gives_way_to_the_other_one(tmp_path):
    lines = ["Title,Ingredients,Cleaned_Ingredients", "Soup,\"['1 pinch salt']\",[]", "Cake,\"['1 egg']\",\"['egg']\""]
    path = write(tmp_path, "a.csv", "\n".join(lines))
    assert [dish.ingredients for dish in read_recipes(path).dishes] == [("1 pinch salt",), ("egg",)]
    given = read_recipes(path, {"ingredients": "Cleaned_Ingredients"})
    assert [dish.title for dish in given.dishes] == ["Cake"]


def test_dishes_called_nan_and_none_are_dishes_and_missing_values_are_not(tmp_path):
    lines = ["title,ingredients", "Nan,flour", "None,water", "NA,salt", "nan,salt", "NaN,salt", ",salt", "Tea,nan"]
    table = read_recipes(write(tmp_path, "a.csv", "\n".join(lines)))
    assert [dish.title for dish in table.dishes] == ["Nan", "None", "NA"]
    assert table.skipped[NO_TITLE].count == 3
    pq.write_table(pa.table({"title": ["Nan", None], "ingredients": [{"salt": "1 g"}] * 2}), tmp_path / "a.parquet")
    assert [dish.title for dish in read_recipes(tmp_path / "a.parquet").dishes] == ["Nan"]


def test_rows_with_more_cells_than_the_header_are_left_out_and_named(tmp_path):
    lines = ["Title,Ingredients", "Pie,sugar, honey, apple", "Cake,sugar,,", "Tea,water", "Pie,flour"]
    table = read_recipes(write(tmp_path, "a.csv", "\n".join(lines)))
    assert [(dish.title, dish.ingredients) for dish in table.dishes] == [
        ("Cake", ("sugar",)),
        ("Tea", ("water",)),
        ("Pie", ("flour",)),
    ]
    assert (table.skipped[SURPLUS].count, table.skipped[SURPLUS].names) == (1, ["Pie"])
    with pytest.raises(BadInputError, match="has no recipe: 1 with surplus cells"):
        _ = read_recipes(write(tmp_path, "b.csv", "Title,Ingredients\nPie,sugar, honey\n")).dishes


@pytest.mark.parametrize(("row", "line"), [(20, 42), (25, 28)], ids=["to the end of the file", "to the next quote"])
def test_a_quote_that_is_never_closed_is_an_error_that_names_the_line(tmp_path, row, line):
    lines = ["title,ingredients", *[f"Dish {number},salt" for number in range(40)]]
    lines[row] = f'"{lines[row]}'
    if row == 25:
        lines[27] = 'Dish 27,"salt, egg"'
    path = write(tmp_path, "a.csv", "\n".join(lines) + "\n")
    last = 41 if row == 20 else line
    message = rf"a\.csv, line {row + 1}: the record that begins there breaks off in line {last} .*close its quotes"
    with pytest.raises(BadInputError, match=message):
        _ = read_recipes(path).dishes


def test_names_of_rows_left_out_are_cut():
    skipped = Skipped()
    skipped.add("word\n" * 100)
    assert skipped.names == ["word " * 11 + "wo..."]


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
    path = write(tmp_path, "a.csv", "title,ingredients\nPie ø,salt\nPie,salt\nCrème brûlée,salt\n麻婆豆腐,salt\n")
    ids = [dish.dish_id for dish in read_recipes(path).dishes]
    assert ids[:3] == ["pie", "pie-2", "creme-brulee"]
    assert ids[3].startswith("dish-")
    assert slug("麻婆豆腐") != slug("宫保鸡丁")


def test_an_id_column_is_kept(tmp_path):
    path = write(tmp_path, "a.csv", "id,title,ingredients\nA 7,Soup,salt\n,Cake,sugar\n")
    assert [dish.dish_id for dish in read_recipes(path).dishes] == ["a-7", "cake"]


def test_rows_of_one_given_id_are_one_dish_and_equal_slugs_of_titles_are_not(tmp_path):
    lines = ["dish_id,title,ingredients", "lasagne,Lasagne,salt", "lasagne,Vegan lasagne,salt", ",Lasagne ø,salt"]
    lines += ["Lasagne,Lasagne verde,salt", "lasagne?,Other,salt", "lasagne?,Another,salt", ",Lasagne æ,salt"]
    dishes = read_recipes(write(tmp_path, "a.csv", "\n".join(lines))).dishes
    assert [(dish.dish_id, dish.variant) for dish in dishes] == [
        ("lasagne", 0),
        ("lasagne", 1),
        ("lasagne-2", 0),
        ("lasagne", 2),
        ("lasagne-3", 0),
        ("lasagne-3", 1),
        ("lasagne-4", 0),
    ]


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
        ("a.doc", "x", "is no table by its name; give a CSV, TSV, JSON or JSON lines, Parquet or Excel file"),
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
    path.write_bytes("title,ingredients\nPâté à la crème,sel\n".encode() + b"Th\xe9,eau\n")
    with pytest.raises(BadInputError, match=r"a\.csv, line 3 is not a table in UTF-8: .*; mend it, or state its enc"):
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
