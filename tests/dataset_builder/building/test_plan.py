"""Plans are made as a stream, read in parts, taken again only from the same source, and equal to what they were."""

import csv
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dataset_builder.building import planning
from dataset_builder.building.plan import Plan
from dataset_builder.building.settings import BuildSettings
from dataset_builder.building.source import source_of
from dataset_builder.building.splits import find_groups, hash_of, order_keys
from dataset_builder.columns import FLAVOURS, SPLITS
from dataset_builder.engines.local import LocalEngine
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.settings import GenerationSettings
from dataset_builder.recipes.text import plain_title

SMALL = GenerationSettings(size=64)


def test_the_catalogue_is_planned_as_ever():
    """Recorded when plans were made in memory: recipes, labels, splits and their order."""
    plan = Plan(BuildSettings(number=60, recipes_per_shard=16, generation=SMALL))
    recorded = "0d028dc8180aee9119ee0c20a0940b2738fa7eca755fb5b45e4753a656c064fd"
    assert plan.fingerprint["recipes_sha256"] == recorded
    assert [shard.file_name for shard in plan.shards()] == [
        *(f"train-{n:05d}-of-00003.parquet" for n in range(3)),
        "validation-00000-of-00001.parquet",
        "test-00000-of-00001.parquet",
    ]


@pytest.fixture(scope="module")
def odd_table(tmp_path_factory):
    """Given ids, equal titles, equal slugs, a foreign recipe and one without taste."""
    path = tmp_path_factory.mktemp("odd") / "recipes.csv"
    dishes = [("Honey cake", "honey|sugar"), ("Lemon tart", "lemon|vinegar|lime"), ("Beef stew", "beef|soy sauce")]
    rows = [
        (f"d{n % 2}" if again else "", title + (" again" if again == 1 else ""), names.split("|")[again % 2 :])
        for again in range(3)
        for n, (title, names) in enumerate(dishes)
    ]
    rows += [("", "Кисель A", ["sugar", "honey"]), ("", "Борщ A", ["sugar", "honey"])]
    rows += [("", "Honey cake 2", ["sugar"]), ("", "Zopf", ["mehl wasser salat olio sel"]), ("", "Water", ["water"])]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "Title", "Ingredients"])
        writer.writerows((given, title, str(names)) for given, title, names in rows)
    return str(path)


# Of the odd table, with the rule that counts votes; recorded when plans were made in memory.
ODD = {
    False: "188127bdd34d7ea8ebe474c49167077890093c8376b346372c723ce0552491e1",
    True: "6243fd2e54643cf856d5405532f9d3847dd33548f05c24aff0a39437dddfc27d",
}


@pytest.mark.parametrize("keep", [False, True])
def test_odd_tables_are_planned_as_ever(keep, odd_table):
    settings = BuildSettings(odd_table, rule="votes", keep_equal_titles=keep, generation=SMALL)
    assert Plan(settings).fingerprint["recipes_sha256"] == ODD[keep]


def test_workers_and_small_chunks_give_the_same_plan(recipe_file, monkeypatch):
    settings = BuildSettings(recipe_file, recipes_per_shard=4, generation=SMALL)
    whole = Plan(settings, engine=LocalEngine(1))
    monkeypatch.setattr("dataset_builder.labelling.tables._CHUNK", 5)
    spread = Plan(settings, engine=LocalEngine(2))
    assert spread.fingerprint == whole.fingerprint
    for split in SPLITS:
        assert list(spread.recipes[split]) == list(whole.recipes[split])


def test_a_worker_reads_its_part_alone(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_builder.building.plan_file.SHARDS_PER_FILE", 2)
    settings = BuildSettings(recipe_file, recipes_per_shard=3, generation=SMALL)
    plan = Plan(settings, tmp_path / "plan")
    plan.keep(tmp_path / "plan")
    shard = plan.shards("train")[-1]
    for path in (tmp_path / "plan").glob("*.parquet"):
        if path.name != f"train-{shard.index // 2:05d}.parquet":
            path.unlink()
    again = Plan(settings, tmp_path / "plan")
    assert [item for group in again.groups(shard) for item in group] == plan.recipes["train"][-len_of(shard) :]


def len_of(shard) -> int:
    return shard.last - shard.first


def test_recipes_are_a_sequence(recipe_file):
    recipes = Plan(BuildSettings(recipe_file, recipes_per_shard=3, generation=SMALL)).recipes["train"]
    everything = list(recipes)
    assert len(everything) == len(recipes) == 8
    assert recipes[-1] == everything[-1]
    assert recipes[3:7] == everything[3:7]
    assert recipes[::-2] == everything[::-2]
    with pytest.raises(IndexError, match=f"of {len(recipes)}"):
        recipes[len(recipes)]


def test_a_kept_plan_is_taken_again_from_the_same_source_only(recipe_file, tmp_path, monkeypatch):
    table = tmp_path / "recipes.csv"
    table.write_bytes(Path(recipe_file).read_bytes())
    settings = BuildSettings(str(table), generation=SMALL)
    kept = tmp_path / "plan"
    Plan(settings, kept).keep(kept)
    made = []
    monkeypatch.setattr(
        "dataset_builder.building.plan.make_plan", lambda *given: made.append(1) or planning.make_plan(*given)
    )
    first = Plan(settings, kept)
    Plan(BuildSettings(str(table), generation=GenerationSettings(size=128)), kept)
    assert made == []
    # Another seed, other words in the table and a damaged plan are planned anew.
    Plan(BuildSettings(str(table), seed=1, generation=SMALL), kept)
    table.write_text(table.read_text().replace("Peach cake", "Peach pie"))
    changed = Plan(settings, kept)
    assert len(made) == 2
    assert changed.fingerprint["recipes_sha256"] != first.fingerprint["recipes_sha256"]
    (kept / "plan.json").write_text("{")
    with pytest.raises(BadInputError, match=r"plan.json is not JSON.*plans anew"):
        Plan(settings, kept)


def test_a_hub_that_does_not_answer_gives_no_source_twice():
    settings = BuildSettings("no/such-set", generation=SMALL)
    assert source_of(settings) != source_of(settings)


def test_the_plan_is_parquet_that_anyone_reads(recipe_file, tmp_path):
    plan = Plan(BuildSettings(recipe_file, generation=SMALL), tmp_path / "plan")
    plan.keep(tmp_path / "plan")
    rows = pq.read_table(tmp_path / "plan" / "train-00000.parquet").to_pylist()
    first = plan.recipes["train"][0]
    assert rows[0]["dish_id"] == first.dish.dish_id
    assert FLAVOURS[rows[0]["flavour"]] == first.label.flavour
    assert json.loads(f"[{rows[0]['content']}]")[0]["title"] == first.dish.title
    assert sorted(os.listdir(tmp_path)) == ["plan"]


def test_planning_loads_no_torch(recipe_file, tmp_path):
    """It would take half a gigabyte, more than the plan of a million recipes."""
    code = (
        "import sys; from dataset_builder.building.plan import Plan; "
        "from dataset_builder.building.settings import BuildSettings; Plan(BuildSettings(sys.argv[1])).fingerprint; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, recipe_file], check=True)


def test_groups_join_dishes_of_equal_titles_in_chains():
    """Against the plain way, one row after the other."""
    draw = random.Random(0)
    for _ in range(50):
        rows = draw.randrange(1, 40)
        dishes = [f"d{draw.randrange(30)}" for _ in range(rows)]
        titles = [f"T {draw.randrange(40)}" for _ in range(rows)]
        expected = joined_one_by_one(dishes, titles)
        groups = find_groups(hashes(dishes), hashes(map(plain_title, titles)))
        keys = order_keys(groups, dishes, seed=3)
        for row, name in enumerate(expected):
            digest = hashlib.sha256(f"3|{name}".encode()).digest()
            assert keys[groups.of_row[row]].tolist() == np.frombuffer(digest[:16], ">u8").tolist()


def hashes(texts) -> np.ndarray:
    return np.array([hash_of(text) for text in texts], np.uint64)


def joined_one_by_one(dishes: list[str], titles: list[str]) -> list[str]:
    """The first dish id of each row's group."""
    names = list(dishes)
    for _ in names:
        for row in range(len(names)):
            linked = [n for n in range(len(names)) if dishes[n] == dishes[row] or titles[n] == titles[row]]
            least = min(names[n] for n in linked)
            for n in linked:
                names[n] = least
    return names
