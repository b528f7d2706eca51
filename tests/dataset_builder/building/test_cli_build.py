"""`flavour-sd build`: safe to kill and repeat, the same over several processes, one line for bad input."""

import json
import multiprocessing
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from dataset_builder import cli
from dataset_builder.building import shards
from dataset_builder.building.build import build
from dataset_builder.building.plan import Plan
from dataset_builder.building.settings import BuildSettings
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from dataset_builder.pictures.settings import GenerationSettings

PLATING = GenerationSettings(size=64, batch_size=2)


def settings_of(recipes: str, pipeline: str, **content) -> BuildSettings:
    if pipeline == "plating":
        return BuildSettings(recipes, recipes_per_shard=2, generation=PLATING, **content)
    generation = GenerationSettings(pipeline, steps=2, size=64, batch_size=2, attempts=2)
    return BuildSettings(recipes, recipes_per_shard=2, generation=generation, **content)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a finished build, hidden ones included."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", *map(str, arguments)])
    return int(ended.value.code or 0)


# Children are forked from a clean server that has the imports done, so that a kill costs no second start.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["dataset_builder.building.build", "dataset_builder.plating.pipeline", "tests.tiny_pipelines"]
)


def kill_and_repeat(settings: BuildSettings, out: Path, kills: int, processes: int, seed: int) -> int:
    """Start the build and kill it, again and again; return how many kills hit it while it drew."""
    draw = random.Random(seed)
    hits = 0
    for _ in range(kills):
        before = len(list(out.rglob("*.parquet")))
        child = SERVER.Process(target=build, args=(settings, out, processes))
        child.start()
        # It is at work from its next shard on; what it does before that is short.
        deadline = time.monotonic() + 60
        while child.is_alive() and len(list(out.rglob("*.parquet"))) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(draw.random() * 0.3)
        hits += child.is_alive()
        child.kill()
        child.join()
    return hits


@pytest.mark.parametrize(("pipeline", "processes"), [("plating", 2), ("tiny_sd", 1)])
def test_a_build_killed_at_any_moment_and_repeated_equals_an_uninterrupted_one(
    pipeline, processes, recipe_file, tmp_path, request
):
    name = pipeline if pipeline == "plating" else request.getfixturevalue(pipeline)
    settings = settings_of(recipe_file, name)
    build(settings, tmp_path / "whole", processes=1)
    assert kill_and_repeat(settings, tmp_path / "killed", 2, processes, seed=1) > 0
    assert not (tmp_path / "killed" / "manifest.json").exists()
    build(settings, tmp_path / "killed", processes=processes)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("pipeline", "processes"), [("plating", 2), ("tiny_sd", 1)])
def test_the_real_recipes_killed_ten_times_come_out_equal(pipeline, processes, shared_data, tmp_path, request):
    recipes = str(shared_data / "recipes_public_domain" / "recipes.csv")
    name = pipeline if pipeline == "plating" else request.getfixturevalue(pipeline)
    generation = GenerationSettings(name, size=64, steps=None if name == "plating" else 2, attempts=2)
    settings = BuildSettings(recipes, recipes_per_shard=16, generation=generation)
    build(settings, tmp_path / "whole", processes=1)
    assert kill_and_repeat(settings, tmp_path / "killed", 10, processes, seed=2) >= 5
    build(settings, tmp_path / "killed", processes=processes)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_what_is_unfinished_is_taken_for_nothing(recipe_file, tmp_path, monkeypatch):
    settings = settings_of(recipe_file, "plating")
    monkeypatch.setattr(
        "dataset_builder.building.build.make_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        build(settings, tmp_path / "out", processes=1)
    assert list((tmp_path / "out").rglob("*.parquet"))
    with pytest.raises(FileNotFoundError):
        load_dataset(str(tmp_path / "out"))


@pytest.mark.parametrize("moment", ["before the manifest", "after the manifest"])
def test_a_kill_in_the_last_step_is_mended(moment, recipe_file, tmp_path, monkeypatch):
    settings, out = settings_of(recipe_file, "plating"), tmp_path / "out"
    build(settings, tmp_path / "whole", processes=1)
    with monkeypatch.context() as patched:
        if moment == "before the manifest":
            write = write_json

            def stop(path, content):
                if path.name == "manifest.json":
                    raise KeyboardInterrupt
                write(path, content)

            patched.setattr(shards, "write_json", stop)
        else:
            patched.setattr(shards.BuildFolder, "close", lambda self: None)
        try:
            build(settings, out, processes=1)
        except KeyboardInterrupt:
            assert not (out / "manifest.json").exists()
    build(settings, out, processes=1)
    assert contents(out) == contents(tmp_path / "whole")


def test_leftovers_of_a_killed_write_are_removed(recipe_file, tmp_path):
    settings, out = settings_of(recipe_file, "plating"), tmp_path / "out"
    build(settings, tmp_path / "whole", processes=1)
    (out / ".unfinished" / "data").mkdir(parents=True)
    (out / ".unfinished" / "data" / "train-00000-of-00007.parquet.123.tmp").write_bytes(b"half")
    build(settings, out, processes=1)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("pipeline", ["plating", pytest.param("tiny_sd", marks=pytest.mark.slow)])
def test_two_processes_give_the_bytes_of_one(pipeline, recipe_file, tmp_path, request):
    settings = settings_of(recipe_file, pipeline if pipeline == "plating" else request.getfixturevalue(pipeline))
    build(settings, tmp_path / "one", processes=1)
    build(settings, tmp_path / "two", processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def launch(recipes: str, out: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m"]
    command += ["dataset_builder.cli", "build", recipes, "--size", "64", "--out", str(out), *arguments]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("pipeline", ["plating", pytest.param("tiny_sd", marks=pytest.mark.slow)])
def test_accelerate_launch_gives_the_bytes_of_one_process(pipeline, recipe_file, tmp_path, request):
    flags = () if pipeline == "plating" else ("--pipeline", request.getfixturevalue(pipeline), "--steps", "2")
    assert run(recipe_file, "--out", tmp_path / "one", "--size", 64, *flags) == 0
    done = launch(recipe_file, tmp_path / "two", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("18 rows in") == 1
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_prompts_that_the_text_encoder_cut_are_counted_in_the_summary(recipe_file, tmp_path, tiny_sd, capsys):
    flags = ("--pipeline", tiny_sd, "--steps", 1, "--size", 64, "--prompt", "photo", "--out", tmp_path)
    assert run(recipe_file, *flags) == 0
    rows = [row for path in (tmp_path / "data").iterdir() for row in pq.read_table(path).to_pylist()]
    cut = sum(row["generation"]["prompt_read"] is not None for row in rows)
    assert 0 < cut < len(rows)  # the tiny encoder reads letter by letter
    assert json.loads((tmp_path / "manifest.json").read_text())["prompts_cut"] == cut
    assert f"the prompts of {cut} pictures" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["plating", "tiny_sd"])
def test_one_row_drawn_alone_equals_that_of_the_build(name, recipe_file, tmp_path, request, capsys):
    pipeline = name if name == "plating" else request.getfixturevalue(name)
    out = tmp_path / "out"
    flags = ["--pipeline", pipeline, "--size", 64, "--images-per-dish", 3, "--out", out]
    flags += [] if name == "plating" else ["--steps", 2]
    assert run(recipe_file, *flags) == 0
    row_id = "tuna-with-mushrooms-00-02"
    before = contents(out)
    assert run(recipe_file, *flags, "--only", row_id) == 0
    assert f"{row_id} drawn again" in capsys.readouterr().out
    (row,) = pq.read_table(out / "only" / f"{row_id}.parquet").to_pylist()
    whole = [row for path in (out / "data").iterdir() for row in pq.read_table(path).to_pylist()]
    assert row == next(each for each in whole if each["id"] == row_id)
    assert contents(out).items() > before.items()
    assert sum(map(len, load_dataset(str(out)).values())) == len(whole)


def test_only_an_unknown_id_is_named(recipe_file, tmp_path, capsys):
    assert run(recipe_file, "--out", tmp_path / "out", "--only", "pizza") == 2
    assert "this build has no row 'pizza'; an id looks like" in capsys.readouterr().err


def test_a_changed_setting_is_refused_with_the_difference_and_fresh_starts_over(recipe_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(recipe_file, "--size", 64, "--out", out) == 0
    assert run(recipe_file, "--size", 64, "--seed", 1, "--out", out) == 2
    error = capsys.readouterr().err
    assert error.count("\n") >= 1
    assert "seed was 0 and is 1" in error
    assert "--fresh" in error
    assert run(recipe_file, "--size", 64, "--seed", 1, "--out", out, "--fresh") == 0
    assert json.loads((out / "manifest.json").read_text())["seeds"] == {"build": 1}
    assert run(recipe_file, "--size", 96, "--seed", 1, "--out", out, "--only", "beef-with-soy-sauce-00-00") == 2
    assert "size was 64 and is 96" in capsys.readouterr().err


@pytest.mark.parametrize("processes", [1, 2])
def test_settings_that_draw_nothing_are_one_line_and_bind_nobody(processes, recipe_file, tmp_path, tiny_sd, capsys):
    flags = ("--pipeline", tiny_sd, "--steps", 1, "--out", tmp_path)
    assert run(recipe_file, *flags, "--size", 65, "--processes", processes) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert "does not draw with these settings" in errors[0]
    assert run(recipe_file, *flags, "--size", 64, "--processes", 1) == 0


def test_where_a_table_lies_is_no_part_of_a_build(tmp_path, monkeypatch):
    (tmp_path / "table").mkdir()
    table = tmp_path / "table" / "recipes.csv"
    (tmp_path / "table" / "cake.jpg").write_bytes(b"a photograph")
    table.write_text("Title,Ingredients,Image_Name\nHoney cake,\"['honey', 'sugar', 'flour']\",cake\n")
    whole = Plan(BuildSettings(str(table), generation=PLATING))
    monkeypatch.chdir(tmp_path)
    assert Plan(BuildSettings("table/recipes.csv", generation=PLATING)).digest == whole.digest
    assert whole.recipes["train"][0].dish.image_path is not None


def test_a_build_reads_columns_and_labels_by_the_rule_that_it_is_told(tmp_path, capsys):
    table = tmp_path / "rezepte.csv"
    table.write_text("Gericht,Zutaten\nUnsalted salad,\"['cucumber', 'tomato']\"\nHoney cake,\"['honey', 'sugar']\"\n")
    flags = (table, "--size", 64, "--out", tmp_path / "out")
    assert run(*flags) == 2
    assert "none of them is the title" in capsys.readouterr().err
    told = (*flags, "--columns", "title=Gericht", "ingredients=Zutaten")
    assert run(*told, "--match", "substring") == 0
    rows = [row for path in (tmp_path / "out" / "data").iterdir() for row in pq.read_table(path).to_pylist()]
    assert {row["title"]: FLAVOURS[row["flavour"]] for row in rows}["Unsalted salad"] == "salty"  # as system 0 had it
    assert run(*told) == 2
    assert "match was 'substring' and is 'word'" in capsys.readouterr().err


def test_a_fresh_build_leaves_no_lexicon_of_the_one_before(recipe_file, tmp_path):
    lexicon, out = tmp_path / "words.csv", tmp_path / "out"
    lexicon.write_text("flavour,source,phrase\nsweet,ingredient,tomato\nsweet,title,cake\nsalty,ingredient,salt\n")
    words = ("--lexicon", lexicon, "--min-ingredient-votes", 1)
    assert run(recipe_file, "--size", 64, "--out", out, *words) == 0
    assert (out / "lexicon.csv").is_file()
    assert run(recipe_file, "--size", 64, "--out", out, "--fresh") == 0
    assert not (out / "lexicon.csv").exists()


def content_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "wrong",
    [("--pipeline", "no/such/pipeline"), ("--pipeline", "TINY", "--size", 65), ("--lexicon", "no-such.csv")],
    ids=["pipeline", "size", "lexicon"],
)
def test_a_fresh_build_that_draws_nothing_leaves_the_one_before(wrong, recipe_file, tmp_path, tiny_sd):
    out = tmp_path / "out"
    assert run(recipe_file, "--size", 64, "--out", out) == 0
    before = content_of(out)
    wrong = [tiny_sd if word == "TINY" else word for word in wrong]
    assert run(recipe_file, "--out", out, "--steps", 1, *wrong, "--fresh") == 2
    assert content_of(out) == before
    assert not (out / ".unfinished").exists()
    assert not (out / ".replaced").exists()


def test_an_interrupted_build_survives_a_fresh_one_that_draws_nothing(recipe_file, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        draw, drawn = Plan.draw_shard, []

        def stop_after_two(self, *given):
            if len(drawn) == 2:
                raise BadInputError("enough")
            drawn.append(1)
            return draw(self, *given)

        patch.setattr(Plan, "draw_shard", stop_after_two)
        assert run(recipe_file, "--size", 64, "--out", out, "--processes", 1) == 2
    before = content_of(out)
    assert len([name for name in before if name.match("data/*.parquet")]) == 2
    assert run(recipe_file, "--size", 64, "--out", out, "--pipeline", "no/such/pipeline", "--fresh") == 2
    assert content_of(out) == before


@pytest.mark.parametrize("moved", ["manifest.json", "data"])
def test_a_build_that_was_killed_while_it_was_replaced_is_whole_again(moved, recipe_file, tmp_path):
    out = tmp_path / "out"
    assert run(recipe_file, "--size", 64, "--out", out) == 0
    before = content_of(out)
    for name in ("manifest.json", "data")[: 1 if moved == "manifest.json" else 2]:
        (out / ".replaced").mkdir(exist_ok=True)
        (out / name).rename(out / ".replaced" / name)
    assert run(recipe_file, "--size", 64, "--out", out) == 0
    assert content_of(out) == before


def test_a_changed_recipe_table_is_noticed(recipe_file, tmp_path, capsys):
    table, out = tmp_path / "recipes.csv", tmp_path / "out"
    text = Path(recipe_file).read_text()
    table.write_text(text)
    assert run(table, "--size", 64, "--out", out) == 0
    table.write_text(text.replace("maple syrup", "sugar"))
    assert run(table, "--size", 64, "--out", out) == 2
    assert "the recipes, their labels or their splits changed" in capsys.readouterr().err


def test_a_finished_build_is_not_drawn_again(recipe_file, tmp_path, monkeypatch, capsys):
    flags = (recipe_file, "--size", 64, "--out", tmp_path / "out")
    assert run(*flags) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr("dataset_builder.building.plan.Plan.illustrator", None)
    assert run(*flags) == 0
    assert capsys.readouterr().out == first


def test_a_folder_with_data_of_no_build_is_left_alone(recipe_file, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    for flag in ((), ("--fresh",)):
        assert run(recipe_file, "--out", tmp_path, *flag) == 2
        assert "has a data folder that no build wrote" in capsys.readouterr().err
    assert (tmp_path / "data" / "mine.txt").read_text() == "mine"


def test_a_broken_manifest_is_named_and_fresh_mends_it(recipe_file, tmp_path, capsys):
    flags = (recipe_file, "--size", 64, "--out", tmp_path / "out")
    assert run(*flags) == 0
    (tmp_path / "out" / "manifest.json").write_text("{")
    assert run(*flags) == 2
    assert "manifest.json is not JSON" in capsys.readouterr().err
    assert run(*flags, "--fresh") == 0


def test_a_second_build_in_the_same_folder_is_refused(recipe_file, tmp_path):
    folder = shards.BuildFolder(tmp_path)
    folder.open({})
    try:
        command = [sys.executable, "-c", "from dataset_builder.building import shards; import sys, pathlib\n"
                   "shards.BuildFolder(pathlib.Path(sys.argv[1])).open({})", str(tmp_path)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        folder.close()
    assert "another build is running in" in done.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(processes, recipe_file, tmp_path, capsys):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, unlimited[1]))  # a plan fits, a shard does not
    try:
        assert run(recipe_file, "--size", 64, "--out", tmp_path / "out", "--processes", processes) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"File too large: '.*-00000-of-00001\.parquet'; make room there", error)
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(name for name in left if not name.startswith(("plan", "t", "v"))) == ["lock", "settings.json"]
    assert not [name for name in left if "-of-" in name]
    assert run(recipe_file, "--size", 64, "--out", tmp_path / "out") == 0


def test_a_shard_that_was_damaged_afterwards_is_named_and_can_be_drawn_again(recipe_file, tmp_path, capsys):
    arguments = (recipe_file, "--size", 64, "--out", tmp_path)
    assert run(*arguments) == 0
    whole = contents(tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / ".unfinished").mkdir()
    settings = json.loads(whole["manifest.json"])["settings"]
    write_json(tmp_path / ".unfinished" / "settings.json", settings)  # as a build that was killed leaves it
    shard = next((tmp_path / "data").iterdir())
    shard.write_bytes(b"")
    assert run(*arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{shard} is damaged" in error
    assert "remove it and repeat" in error
    shard.unlink()
    assert run(*arguments) == 0
    assert contents(tmp_path) == whole


def test_a_build_whose_every_picture_is_given_up_says_why_and_leaves_nothing_that_looks_like_data(tmp_path, capsys):
    table, lexicon = tmp_path / "rezepte.csv", tmp_path / "lexikon.csv"
    table.write_text("title,ingredients\nZwetschgenmus,Zwetschgen;Zucker\nSalzhering,Hering;Salz\n")
    lexicon.write_text("flavour,source,phrase\nsweet,ingredient,Zucker\nsalty,ingredient,Salz\n")
    out = tmp_path / "out"
    assert run(table, "--lexicon", lexicon, "--min-ingredient-votes", 1, "--size", 64, "--out", out) == 2
    assert "was given up (rejected: 8 empty plate); change the pipeline or the recipes" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [".unfinished"]


def test_bad_input_is_one_line_and_status_2(recipe_file, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    cases = [
        ((recipe_file, "--out", tmp_path / "file" / "out"), "Not a directory"),
        ((tmp_path / "none.csv", "--out", tmp_path / "o"), "none.csv"),
        ((recipe_file, "--out", tmp_path / "o", "--processes", "0"), "--processes is 0"),
        ((recipe_file, "--out", tmp_path / "o", "--pipeline", "no/where"), "'no/where' is neither a folder here nor"),
        ((recipe_file, "--out", tmp_path / "o", "--masks", "attention"), "PlatingPipeline has no cross-attention"),
        ((recipe_file, "--out", tmp_path / "o", "--lexicon", tmp_path / "no.csv"), "no.csv is not a file"),
    ]
    for arguments, message in cases:
        assert run(*arguments) == 2
        error = capsys.readouterr().err.splitlines()
        assert error[-1].startswith("flavour-sd build: error: ")
        assert message in error[-1]
        assert "Traceback" not in "".join(error)


def test_a_worker_that_dies_is_reported(recipe_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dataset_builder.building.plan.Plan.draw_shard", lambda *_: os._exit(7))
    assert run(recipe_file, "--size", 64, "--out", tmp_path / "out", "--processes", 2) == 2
    assert "a worker process ended with status 7" in capsys.readouterr().err


def test_workers_leave_ctrl_c_to_the_main_process(recipe_file, tmp_path, monkeypatch, capsys):
    def tell(*_):
        raise BadInputError(f"Ctrl-C is {signal.getsignal(signal.SIGINT).name}")

    monkeypatch.setattr("dataset_builder.building.plan.Plan.draw_shard", tell)
    assert run(recipe_file, "--size", 64, "--out", tmp_path / "out", "--processes", 2) == 2
    assert "Ctrl-C is SIG_IGN" in capsys.readouterr().err
