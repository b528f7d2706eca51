"""Recipe tables in the shapes in which people publish them: each gives the recipes that a person would read."""

import json

import pytest

from dataset_builder.errors import BadInputError
from dataset_builder.recipes.ingredient_lists import has_ingredients, lines_of, parse_ingredients
from dataset_builder.recipes.recipes import EQUAL_TITLE, NO_INGREDIENTS, NO_TITLE, read_recipes
from dataset_builder.recipes.text import plain_title, readable

CAKE = {"title": "Honey Cake", "ingredients": ["honey", "sugar"]}
SOUP = {"title": "Miso Soup", "ingredients": ["miso", "soy sauce"]}
BOTH = [("Honey Cake", ("honey", "sugar")), ("Miso Soup", ("miso", "soy sauce"))]
CSV = 'title,ingredients\nHoney Cake,"honey; sugar"\nMiso Soup,"miso; soy sauce"\n'


def read(path, **how):
    return [(dish.title, dish.ingredients) for dish in read_recipes(path, **how).dishes]


def schema_org(recipe, **more):
    return {
        "@context": "https://schema.org",
        "@type": "Recipe",
        "name": recipe["title"],
        "recipeIngredient": recipe["ingredients"],
        **more,
    }


DOCUMENTS = {
    "array": [CAKE, SOUP],
    "wrapped": {"recipes": [CAKE, SOUP]},
    "wrapped beside other lists": {"version": "2", "tags": [{"name": "sweet"}], "recipes": [CAKE, SOUP]},
    "wrapped twice": {"hits": [{"recipe": CAKE}, {"recipe": SOUP}]},
    "keyed by id": {"a1": CAKE, "b2": SOUP},
    "pandas columns": {
        "title": {"0": CAKE["title"], "1": SOUP["title"]},
        "ingredients": {"0": CAKE["ingredients"], "1": SOUP["ingredients"]},
    },
    "pandas index": {"0": CAKE, "1": SOUP},
    "pandas list": {name: [CAKE[name], SOUP[name]] for name in ("title", "ingredients")},
    "pandas split": {
        "columns": ["title", "ingredients"],
        "index": [0, 1],
        "data": [list(CAKE.values()), list(SOUP.values())],
    },
    "pandas table": {"schema": {"fields": [{"name": "title", "type": "string"}]}, "data": [CAKE, SOUP]},
    "schema.org": [schema_org(CAKE), schema_org(SOUP)],
    "schema.org graph": {
        "@context": "https://schema.org",
        "@graph": [{"@type": "WebSite", "name": "A site"}, schema_org(CAKE), {**schema_org(SOUP), "@type": ["Recipe"]}],
    },
    "schema.org page": [{"@type": "WebPage", "name": "A page", "mainEntity": schema_org(one)} for one in (CAKE, SOUP)],
    "item list": {"@type": "ItemList", "itemListElement": [{"position": 1, "item": one} for one in (CAKE, SOUP)]},
    "wordpress": [{**one, "title": {"rendered": one["title"]}} for one in (CAKE, SOUP)],
    "numbered": {
        "meals": [
            {
                "strMeal": one["title"],
                **{f"strIngredient{n}": text for n, text in enumerate(one["ingredients"], 1)},
                "strIngredient3": "",
                "strMeasure1": None,
            }
            for one in (CAKE, SOUP)
        ]
    },
    "in steps": [
        {"name": one["title"], "steps": [{"instruction": "Mix.", "ingredients": [{"food": {"name": text}}]}
                                         for text in one["ingredients"]]}
        for one in (CAKE, SOUP)
    ],
    "sections": [
        {"name": one["title"],
         "sections": [{"name": None, "components": [{"raw_text": text} for text in one["ingredients"]]}]}
        for one in (CAKE, SOUP)
    ],
}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_json_documents_hold_their_recipes(tmp_path, document, indent):
    path = tmp_path / "recipes.json"
    path.write_text(json.dumps(document, indent=indent))
    assert read(path) == BOTH


def test_objects_keyed_by_id_keep_the_id(tmp_path):
    path = tmp_path / "recipes.json"
    path.write_text(json.dumps({"a1": CAKE, "b2": SOUP}))
    assert [dish.dish_id for dish in read_recipes(path).dishes] == ["a1", "b2"]


def test_documents_one_after_another_and_a_folder_of_them(tmp_path):
    path = tmp_path / "recipes.json"
    path.write_text(f"{json.dumps(CAKE, indent=1)}\n{json.dumps(SOUP, indent=1)}\n")
    assert read(path) == BOTH
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "cake.json").write_text(json.dumps(CAKE, indent=1))
    (folder / "soup.json").write_text(json.dumps({**SOUP, "yield": 4}, indent=1))
    assert read(folder) == BOTH


def test_a_list_longer_than_what_is_read_at_once_comes_out_whole(tmp_path):
    path = tmp_path / "recipes.json"
    recipes = [{"title": f"Dish {n}", "ingredients": ["salt"] * (n % 50 + 1)} for n in range(3000)]
    path.write_text(json.dumps(recipes, indent=1))
    table = read_recipes(path)
    assert [dish.title for dish in table.dishes] == [one["title"] for one in recipes]
    assert table.table.position == table.table.size


@pytest.mark.parametrize(
    "title", [{"en": "Cake"}, ["Cake"], 7, True, None, {"0": "Cake", "1": "Soup"}], ids=lambda title: str(title)
)
def test_a_title_that_is_no_text_is_none(tmp_path, title):
    path = tmp_path / "recipes.jsonl"
    path.write_text(f"{json.dumps({**CAKE, 'title': title})}\n{json.dumps(SOUP)}\n")
    table = read_recipes(path)
    assert [dish.title for dish in table.dishes] == ["Miso Soup"]
    assert table.skipped[NO_TITLE].names == ["row 1"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # Groups under headings: the headings are no ingredients.
        (
            [
                {"name": "For the dough", "ingredients": ["200 g sugar", "flour"]},
                {"name": "For the glaze", "ingredients": ["lemon juice"]},
            ],
            ("200 g sugar", "flour", "lemon juice"),
        ),
        ([{"title": "Icing", "items": [{"text": "1 egg"}]}], ("1 egg",)),
        ("Dough:\n200 g flour\n\nFor the icing:\nsugar", ("200 g flour", "sugar")),
        (["For the icing", "sugar", "**Dough**", "flour", "== Top ==", "nuts"], ("sugar", "flour", "nuts")),
        ("<h3>Dough</h3><ul><li>flour</li></ul>", ("flour",)),
        (["Für den Teig", "Mehl", "Pour la crème :", "lait"], ("Mehl", "lait")),
        (["For serving: lemon wedges"], ("lemon wedges",)),
        (["Salt:"], ("Salt:",)),
        # Objects: what a person wrote, or its parts.
        ([{"id": 19335, "original": "2 cups sugar", "amount": 2, "unit": "cups"}], ("2 cups sugar",)),
        ([{"name": "sugar", "amount": 2.0, "unit": "cups"}], ("2 cups sugar",)),
        ([{"quantity": "1/2", "unit": "tsp", "name": "salt"}], ("1/2 tsp salt",)),
        (
            [{"quantity": 1, "unit": {"name": "cup"}, "food": {"name": "onion"}, "note": "chopped"}],
            ("1 cup onion, chopped",),
        ),
        ([{"note": "2 eggs, beaten", "unit": None, "food": None, "quantity": 0}], ("2 eggs, beaten",)),
        ([{"name": "sugar", "amount": {"value": 200, "unit": "g"}}], ("200 g sugar",)),
        ([{"ingredient": "flour", "quantity": 0}], ("flour",)),
        # Text as a person reads it.
        ("cream, sugar &amp; vanilla, egg yolks", ("cream", "sugar & vanilla", "egg yolks")),
        ("<li>2 cups sugar</li><li>1 cup cocoa</li>", ("2 cups sugar", "1 cup cocoa")),
        ("sugar<br/>1 cup <b>cocoa</b>", ("sugar", "1 cup cocoa")),
        ("sugar\\ncocoa\\nbutter", ("sugar", "cocoa", "butter")),
        ("1,5 kg Mehl, Zucker", ("1,5 kg Mehl", "Zucker")),
        ("1 can (14 oz, drained) beans, salt", ("1 can (14 oz, drained) beans", "salt")),
        ("butter (soft, salt", ("butter (soft", "salt")),
        ("sugar | cocoa | butter", ("sugar", "cocoa", "butter")),
        ("• sugar • cocoa, dark", ("sugar", "cocoa, dark")),
        ("嫩豆腐、酱油、盐", ("嫩豆腐", "酱油", "盐")),
        ("豆腐，盐", ("豆腐", "盐")),
        ("豆腐；盐（细，白）", ("豆腐", "盐（细，白）")),
        ("سكر، ملح", ("سكر", "ملح")),
        ("salt (coarse; grey), pepper", ("salt (coarse; grey)", "pepper")),
        ("☐ 2 eggs\n☐ salt", ("2 eggs", "salt")),
    ],
)
def test_ingredients_come_out_as_a_person_reads_them(value, expected):
    assert parse_ingredients(value) == expected
    assert has_ingredients(value)
    assert has_ingredients(json.dumps(value) if not isinstance(value, str) else value)


def test_no_nesting_exhausts_the_interpreter():
    deep = "salt"
    for _ in range(500):
        deep = [deep]
    assert parse_ingredients(deep) == ()
    for levels in (500, 5000):  # as text, whatever comes out, in every release of Python
        assert parse_ingredients("[" * levels + '"salt"' + "]" * levels)


def test_instructions_of_sections_and_steps_are_lines():
    section = {"@type": "HowToSection", "name": "Dough", "itemListElement": [{"@type": "HowToStep", "text": "Mix."}]}
    assert lines_of([section, {"@type": "HowToStep", "name": "Bake."}]) == "Mix.\nBake."
    assert lines_of([{"name": "", "steps": [{"number": 1, "step": "Mix."}]}]) == "Mix."
    assert lines_of("<p>Mix.</p><p>Bake &amp; eat.</p>").split() == ["Mix.", "Bake", "&", "eat."]


def test_titles_lose_their_html_and_names_with_signs_keep_them(tmp_path):
    path = tmp_path / "recipes.csv"
    path.write_text('title,ingredients\n"Cr&egrave;me <b>Br&ucirc;l&eacute;e</b>",egg\nMac & cheese < 3,egg\n')
    assert [title for title, _ in read(path)] == ["Crème Brûlée", "Mac & cheese < 3"]
    assert readable("AT&T &nosuchthing; &#0;") == "AT&T &nosuchthing; \ufffd"


def test_equal_titles_are_one_whatever_their_accents_and_marks(tmp_path):
    path = tmp_path / "recipes.csv"
    titles = [
        "Crème Brûlée",
        "Cre\u0300me Bru\u0302le\u0301e",
        "Creme Brulee!",
        "CRÈME BRÛLÉE.",
        "Süße Äpfel",
        "SÜSSE ÄPFEL",
    ]
    path.write_text("title,ingredients\n" + "".join(f"{title},sugar\n" for title in titles))
    table = read_recipes(path)
    assert [dish.title for dish in table.dishes] == [titles[0], titles[4]]
    assert table.skipped[EQUAL_TITLE].count == 4
    kept = read_recipes(path, keep_equal_titles=True).dishes
    assert [(dish.dish_id, dish.variant) for dish in kept] == [
        *(("creme-brulee", variant) for variant in range(4)), ("sue-apfel", 0), ("sue-apfel", 1)
    ]  # fmt: skip
    assert plain_title("がく") != plain_title("かく")
    assert plain_title("खीर") != plain_title("खीरा")


def test_rows_of_one_dish_id_and_title_are_variants_and_copies_are_not(tmp_path):
    path = tmp_path / "recipes.csv"
    path.write_text("dish_id,title,ingredients\n7,Chili,beef\n7,Chili,pork\n7,Chili,beef\n8,Chili,beef\n,Chili,beef\n")
    table = read_recipes(path)
    assert [(dish.dish_id, dish.variant, dish.ingredients) for dish in table.dishes] == [
        ("7", 0, ("beef",)), ("7", 1, ("pork",))
    ]  # fmt: skip
    assert table.skipped[EQUAL_TITLE].count == 3


@pytest.mark.parametrize("depth", [70, 500, 5000])
@pytest.mark.parametrize("indent", ["", "\n"])
def test_deep_json_is_one_line(tmp_path, depth, indent):
    path = tmp_path / "a.json"
    path.write_text('{"title": "Soup",' + indent + '"ingredients": ' + "[" * depth + '"salt"' + "]" * depth + "}")
    with pytest.raises(BadInputError, match="is nested more than 64 levels deep; flatten it"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"title": "Soup"}, {"title": ', r"line 1 is not JSON: "),
        ('[\n{"title": "Soup", "ingredients": ["salt"]},\n{"title" "Tea"}\n]', r"line 3 is not JSON: "),
        ('[{"title": "Soup", "ingredients": ["salt"]},', "its list is not closed"),
        ('[1, 2]', "line 1 is no object"),
        ("Soup", "line 1 is not JSON"),
    ],
)  # fmt: skip
def test_broken_json_names_its_line(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        read(path)


def test_messages_hold_no_control_characters_and_are_short(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\x1b[31mred," + "x" * 9000 + "\n1,2\n")
    with pytest.raises(BadInputError) as error:
        read(path)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_names_that_no_path_can_have_are_one_line():
    for name in ("x" * 5000, "a\0b", "~nobody-here/x", "::", ""):
        with pytest.raises(BadInputError):
            read_recipes(name)


def test_recipes_without_ingredients_in_a_document_are_counted(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([CAKE, {"title": "Tea", "ingredients": []}, {"title": "Note"}]))
    assert read_recipes(path).skipped[NO_INGREDIENTS].names == ["Tea", "Note"]


@pytest.mark.parametrize(
    ("cell", "parsed"),
    [
        ("flour\tsugar\tsalt", ("flour", "sugar", "salt")),
        ("flour · sugar · salt", ("flour", "sugar", "salt")),
        ("col·liflor, sal", ("col·liflor", "sal")),
        ("1. flour\n2. sugar\n3) salt", ("flour", "sugar", "salt")),
        ("1 cup flour\n2 cups sugar", ("1 cup flour", "2 cups sugar")),
        ("1. flour\n3. sugar", ("1. flour", "3. sugar")),
        ('["1. flour", "2. sugar"]', ("flour", "sugar")),
    ],
)
def test_lists_with_tabs_dots_and_numbers(cell, parsed):
    assert parse_ingredients(cell) == parsed
