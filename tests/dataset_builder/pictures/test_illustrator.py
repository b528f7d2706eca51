"""Pictures are seeded one by one, recorded in full, and drawn again when they are bad."""

import hashlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from diffusers import AutoPipelineForImage2Image
from PIL import Image

from dataset_builder.building.plan import Plan
from dataset_builder.building.settings import BuildSettings
from dataset_builder.errors import BadInputError
from dataset_builder.pictures import illustrator as generation
from dataset_builder.pictures import pipelines, prompts, revisions
from dataset_builder.pictures.illustrator import Illustrator
from dataset_builder.pictures.pipelines import load_pipeline
from dataset_builder.pictures.revisions import folder_revision, pipeline_revision
from dataset_builder.pictures.settings import GenerationSettings, PictureTask, attempt_seed, picture_seed
from tests.tiny_pipelines import tiny_stable_diffusion


def tasks(count: int, recipe: str | None = None) -> list[PictureTask]:
    return [
        PictureTask(f"dish-{n}", recipe or f"dish-{n}", "Rice", f"Rice {n}: rice, tomato", picture_seed(0, f"dish-{n}"))
        for n in range(count)
    ]


def pixels(picture) -> np.ndarray:
    return np.asarray(picture.image, np.int16)


def illustrator(pipeline: str, **settings) -> Illustrator:
    return Illustrator(GenerationSettings(pipeline=pipeline, **settings), "r1")


class Scripted:
    """A text-to-image pipeline that gives the pictures of a script: one entry per call, one picture per seed."""

    def __init__(self, script):
        self.script = script
        self.seeds: list[list[int]] = []

    def __call__(self, prompt=None, height=None, width=None, num_inference_steps=1, guidance_scale=0.0, generator=None):
        self.seeds.append([each.initial_seed() for each in generator])
        made = self.script(len(self.seeds), self.seeds[-1])
        return SimpleNamespace(images=made, nsfw_content_detected=None)

    def set_progress_bar_config(self, **_):
        pass


def good(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def short_of_memory(monkeypatch, most: int, error: Exception, **settings) -> tuple[Illustrator, Scripted]:
    """Return what draws with a pipeline whose memory takes so many pictures."""

    def script(call, seeds):
        if len(seeds) > most:
            raise error
        return [good(seed % 1000) for seed in seeds]

    return scripted(monkeypatch, script, **settings)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_where_memory_is_short_fewer_pictures_are_drawn_at_once_and_the_pictures_stay(monkeypatch, capsys, error):
    wanted = list(scripted(monkeypatch, lambda call, seeds: [good(s % 1000) for s in seeds])[0].draw(tasks(11)))
    drawer, pipeline = short_of_memory(monkeypatch, 2, error, batch_size=8)
    drawn = list(drawer.draw(tasks(11)))
    assert [picture.generation for picture in drawn] == [picture.generation for picture in wanted]
    assert all(np.array_equal(pixels(one), pixels(other)) for one, other in zip(drawn, wanted, strict=True))
    # What was too much is not tried again.
    assert [len(seeds) for seeds in pipeline.seeds] == [8, 4, 2, 2, 2, 2, 2, 1]
    said = capsys.readouterr().err
    assert "out of memory with 8 pictures per call: going on with 4; --batch-size 4 does so from the start" in said


def test_memory_for_less_than_a_picture_is_one_error_that_says_what_to_lower(monkeypatch):
    drawer, pipeline = short_of_memory(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory."), batch_size=2)
    with pytest.raises(BadInputError, match=r"memory does not suffice for one picture of Scripted; lower --size, load"):
        list(drawer.draw(tasks(2)))
    assert len(pipeline.seeds) == 2


def test_other_errors_of_a_device_are_no_lack_of_memory(monkeypatch):
    drawer, _ = short_of_memory(monkeypatch, 0, RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        list(drawer.draw(tasks(2)))


def test_masks_and_pictures_of_a_split_batch_are_those_of_a_whole_one(tiny_sd, monkeypatch):
    drawer = illustrator(tiny_sd, steps=1, size=64, masks="attention", batch_size=4)
    whole = list(drawer.draw(tasks(3)))
    call = drawer.pipeline.__class__.__call__

    def limited(self, *given, **named):
        if len(named["prompt"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return call(self, *given, **named)

    limited.__signature__ = inspect.signature(call)
    monkeypatch.setattr(drawer.pipeline.__class__, "__call__", limited)
    for one, other in zip(whole, drawer.draw(tasks(3)), strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1
        assert (one.mask == other.mask).mean() > 0.99
        assert one.captions == other.captions


BLACK = Image.new("RGB", (32, 32))


def scripted(monkeypatch, script, **settings) -> tuple[Illustrator, Scripted]:
    pipeline = Scripted(script)
    monkeypatch.setattr(generation, "load_pipeline", lambda *_: pipeline)
    return illustrator("scripted", **settings), pipeline


def test_the_libraries_are_quiet_while_they_draw_and_then_as_loud_as_before(monkeypatch):
    levels = []

    def script(call, seeds):
        levels.append(transformers.utils.logging.get_verbosity())
        return [good(seed) for seed in seeds]

    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_info()
    try:
        list(illustrator("plating").draw(tasks(1)))
        list(scripted(monkeypatch, script)[0].draw(tasks(1)))
        assert transformers.utils.logging.get_verbosity() == transformers.utils.logging.INFO
    finally:
        transformers.utils.logging.set_verbosity(before)
    assert levels == [transformers.utils.logging.ERROR]


def test_seeds_follow_the_contract():
    expected = int.from_bytes(hashlib.sha256(b"5|soup-00-01").digest()[:8], "big") >> 1
    assert picture_seed(5, "soup-00-01") == expected < 2**63
    assert attempt_seed(expected, 1) == expected
    assert len({attempt_seed(expected, attempt) for attempt in range(1, 6)}) == 5


@pytest.mark.parametrize("name", ["tiny_sd", "tiny_sdxl", "tiny_dit"])
def test_a_picture_does_not_depend_on_batch_or_order(name, request):
    folder = request.getfixturevalue(name)
    four = list(illustrator(folder, steps=2, size=64, batch_size=4).draw(tasks(4)))
    drawer = illustrator(folder, steps=2, size=64, batch_size=1)
    for task, together in zip(reversed(tasks(4)), reversed(four), strict=True):
        (alone,) = drawer.draw([task])
        assert np.abs(pixels(alone) - pixels(together)).max() <= 1
    assert np.abs(pixels(four[0]) - pixels(four[1])).mean() > 5


def test_a_turbo_kind_draws_in_one_step_without_guidance(tiny_sdxl):
    turbo = illustrator(tiny_sdxl, steps=1, guidance=0.0, size=64, masks="attention")
    (picture,) = turbo.draw(tasks(1))
    assert picture.image.size == (64, 64)
    assert picture.mask.shape == (64, 64)
    assert (picture.generation["steps"], picture.generation["guidance"]) == (1, 0.0)
    assert picture.generation["scheduler"] == "EulerDiscreteScheduler"


def test_off_prompt_pictures_are_drawn_again_and_the_clip_model_is_pinned(monkeypatch, clip_folder, recipe_file):
    monkeypatch.setattr(
        "dataset_builder.pictures.quality.OffPrompt.scores", lambda self, images, prompts: [next(scores)]
    )
    scores = iter((0.1, 0.3))
    drawer = illustrator("plating", size=64, clip=clip_folder)
    (picture,) = drawer.draw(tasks(1))
    seed = picture_seed(0, "dish-0")
    assert picture.generation["rejected"] == [f"off prompt (CLIP score 0.100, at least 0.2 asked) (seed {seed})"]
    assert picture.generation["attempts"] == 2
    plan = Plan(BuildSettings(recipe_file, generation=GenerationSettings(size=64, clip=clip_folder)))
    assert plan.fingerprint["clip"] == f"{clip_folder}@{folder_revision(Path(clip_folder))}"


def test_plates_are_equal_to_the_byte_whatever_the_batch():
    five = list(illustrator("plating", size=64, batch_size=5).draw(tasks(5)))
    pairs = list(illustrator("plating", size=64, batch_size=2).draw(tasks(5)))
    for one, other in zip(five, pairs, strict=True):
        assert np.array_equal(pixels(one), pixels(other))
        assert np.array_equal(one.mask, other.mask)
        assert one.captions == other.captions


def test_global_random_state_neither_matters_nor_changes(tiny_sd):
    drawer = illustrator(tiny_sd, steps=1, size=64)
    torch.manual_seed(1)
    first = pixels(next(iter(drawer.draw(tasks(1)))))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = pixels(next(iter(drawer.draw(tasks(1)))))
    assert np.array_equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_everything_is_recorded(tiny_sd):
    drawer = illustrator(
        tiny_sd, steps=2, guidance=3.0, size=64, scheduler="EulerDiscreteScheduler", negative_prompt="a fork"
    )
    (picture,) = drawer.draw(tasks(1))
    assert picture.generation == {
        "prompt": "Rice 0: rice, tomato",
        "prompt_read": None,
        "negative_prompt": "a fork",
        "pipeline": tiny_sd,
        "revision": "r1",
        "scheduler": "EulerDiscreteScheduler",
        "lora": None,
        "dtype": "float32",
        "steps": 2,
        "guidance": 3.0,
        "seed": picture_seed(0, "dish-0"),
        "height": 64,
        "width": 64,
        "attempts": 1,
        "rejected": [],
    }
    assert picture.captions


@pytest.mark.parametrize("pipeline", ["tiny_sd", "tiny_dit", "tiny_sdxl"])
def test_what_a_text_encoder_cuts_off_is_recorded_and_no_caption_claims_it(pipeline, request):
    drawer = illustrator(request.getfixturevalue(pipeline), steps=2, size=64)
    many = ", ".join(["oats", "cherry tomato", "brussels sprout", "kale"] * 6)  # letter by letter, more than any reads
    prompt = f"Breakfast bowl: {many}, cucumber"
    (picture,) = drawer.draw([PictureTask("dish-0", "dish-0", "Bowl", prompt, 1)])
    said = picture.generation["prompt_read"]
    assert picture.generation["prompt"] == prompt
    assert prompt.startswith(said)
    assert "Breakfast bowl: oats, cherry tomato, brussels sprout, kale" in said
    assert said.split()[-1] in prompt.replace(",", "").split()  # no half words
    assert "kale" in picture.captions[0]
    assert "cucumber" not in " ".join(picture.captions)


def test_defaults_of_the_pipeline_are_recorded_as_numbers():
    (picture,) = illustrator("plating").draw(tasks(1))
    assert (picture.generation["steps"], picture.generation["guidance"]) == (1, 0.0)
    assert (picture.generation["height"], picture.generation["width"]) == (128, 128)


@pytest.mark.parametrize(
    "change", [{"negative_prompt": "rice"}, {"guidance": 1.0}, {"scheduler": "DDPMScheduler"}, {"steps": 3}]
)
def test_settings_change_the_picture(tiny_sd, change):
    (plain,) = illustrator(tiny_sd, steps=2, size=64).draw(tasks(1))
    (changed,) = illustrator(tiny_sd, size=64, **{"steps": 2, **change}).draw(tasks(1))
    assert not np.array_equal(pixels(plain), pixels(changed))


def test_a_black_picture_is_drawn_again_with_another_seed_and_the_reason_kept(monkeypatch):
    drawer, pipeline = scripted(
        monkeypatch, lambda call, seeds: [BLACK if call < 3 and n == 0 else good(s) for n, s in enumerate(seeds)]
    )
    first, second = drawer.draw(tasks(2))
    seed = picture_seed(0, "dish-0")
    assert pipeline.seeds == [[seed, picture_seed(0, "dish-1")], [attempt_seed(seed, 2)], [attempt_seed(seed, 3)]]
    assert first.generation["attempts"] == 3
    assert first.generation["seed"] == attempt_seed(seed, 3)
    assert first.generation["rejected"] == [f"black (seed {seed})", f"black (seed {attempt_seed(seed, 2)})"]
    assert second.generation["attempts"] == 1


def test_a_picture_is_given_up_at_the_limit_with_all_reasons(monkeypatch):
    drawer, pipeline = scripted(monkeypatch, lambda call, seeds: [BLACK] * len(seeds), attempts=3)
    (picture,) = drawer.draw(tasks(1))
    assert picture.image is None
    assert len(pipeline.seeds) == 3
    assert [reason.split(" (")[0] for reason in picture.generation["rejected"]] == ["black"] * 3


def test_a_repeated_picture_of_one_recipe_is_drawn_again(monkeypatch):
    drawer, _ = scripted(
        monkeypatch, lambda call, seeds: [good(1)] * len(seeds) if call == 1 else [good(s % 1000) for s in seeds]
    )
    pictures = list(drawer.draw(tasks(2, recipe="dish")))
    assert [picture.generation["attempts"] for picture in pictures] == [1, 2]
    assert pictures[1].generation["rejected"][0].startswith("near-duplicate of dish-0 (seed ")


def test_equal_pictures_of_different_recipes_are_kept(monkeypatch):
    drawer, _ = scripted(monkeypatch, lambda call, seeds: [good(1)] * len(seeds))
    assert [picture.generation["attempts"] for picture in drawer.draw(tasks(2))] == [1, 1]


def test_what_the_safety_checker_blanked_is_drawn_again(monkeypatch):
    drawer, pipeline = scripted(monkeypatch, lambda call, seeds: [good(s % 1000) for s in seeds])
    call = pipeline.__class__.__call__
    monkeypatch.setattr(
        pipeline.__class__,
        "__call__",
        lambda self, prompt=None, height=None, width=None, num_inference_steps=1, guidance_scale=0.0, generator=None: (
            SimpleNamespace(
                images=call(self, prompt, generator=generator).images, nsfw_content_detected=[len(self.seeds) == 1]
            )
        ),
    )
    (picture,) = drawer.draw(tasks(1))
    assert picture.generation["rejected"] == [f"replaced by the safety checker (seed {picture_seed(0, 'dish-0')})"]


def test_attention_masks_leave_the_picture_as_it_is(tiny_sd):
    (plain,) = illustrator(tiny_sd, steps=2, size=64).draw(tasks(1))
    (masked,) = illustrator(tiny_sd, steps=2, size=64, masks="attention").draw(tasks(1))
    assert np.array_equal(pixels(plain), pixels(masked))
    assert plain.mask is None
    assert plain.ingredient_labels == []
    assert masked.mask.shape == (64, 64)
    assert masked.ingredient_labels == sorted(set(np.unique(masked.mask).tolist()) - {0, 255})


def test_the_revision_of_a_folder_follows_its_content(tiny_sd, tmp_path):
    before = pipeline_revision(tiny_sd, None)
    assert before == folder_revision(revisions.locate(tiny_sd, None))
    (tmp_path / "weights").write_text("a")
    first = folder_revision(tmp_path)
    (tmp_path / "weights").write_text("b")
    assert folder_revision(tmp_path) != first


def test_the_revision_of_a_snapshot_is_its_commit(tmp_path):
    folder = tmp_path / "snapshots" / ("ab" * 20)
    folder.mkdir(parents=True)
    assert folder_revision(folder) == "ab" * 20


def test_the_revision_of_plating_covers_every_module_that_draws():
    shared = {"columns", "errors", "recipes.recipes"}  # constants, an exception and a data class: nothing that draws
    files = revisions.plating_files()
    root = Path(pipelines.__file__).parents[1]
    covered = {".".join(path.relative_to(root).with_suffix("").parts) for path in files}
    assert {"plating.pipeline", "catalogue.ingredients", "data.ingredients"} <= covered
    covered.add("plating")  # a package, all modules of which are covered
    for path in files:
        imported = re.findall(r"^from dataset_builder\.([\w.]+) import", path.read_text(), re.MULTILINE)
        assert set(imported) <= covered | shared, path.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pipeline": "plating", "scheduler": "DDIMScheduler"}, "plating pipeline has no scheduler"),
        ({"pipeline": "plating", "negative_prompt": "x", "steps": 0}, "steps is 0; give a whole number"),
        ({"pipeline": "plating", "guidance": 3.0}, "plating pipeline has no guidance; leave --guidance 3.0 out"),
        ({"pipeline": "plating", "dtype": "float16"}, "draws in float32 alone; leave --dtype float16 out"),
        ({"pipeline": "tiny_sd", "guidance": float("nan")}, "guidance is nan; give a finite number"),
        ({"pipeline": "tiny_sd", "scheduler": "SchedulerMixin"}, "'SchedulerMixin' is no diffusers scheduler class"),
        (
            {"pipeline": "tiny_sd", "scheduler": "DPMSolverSDEScheduler"},
            "torchsde, which is not all installed",
        ),
        ({"pipeline": "no/such-pipeline"}, "'no/such-pipeline' is neither a folder here nor"),
        ({"pipeline": "tiny_sd", "scheduler": "NoScheduler"}, "'NoScheduler' is no diffusers scheduler class"),
        ({"pipeline": "tiny_sd", "scheduler": "UNet2DModel"}, "'UNet2DModel' is no diffusers scheduler class"),
        ({"pipeline": "tiny_sd", "variant": "fp16"}, "check that it has fp16 weights, or leave --variant out"),
        ({"pipeline": "plating", "variant": "fp16"}, "plating pipeline has no variant; leave --variant fp16 out"),
        ({"pipeline": "plating", "lora": ["a:0.5", "b"]}, "plating pipeline has no lora; leave --lora a:0.5 b out"),
        (
            {"pipeline": "tiny_sd", "pipeline_config": "x/y"},
            "has its own configuration; leave --pipeline-config x/y out",
        ),
        ({"pipeline": "model.ckpt"}, "may hold code that runs when it is read; give a .safetensors file"),
        (
            {"pipeline": "no.safetensors"},
            "there is no file 'no.safetensors'; name a .safetensors file, or ORG/NAME/FILE",
        ),
        ({"pipeline": "/no/way/there.safetensors"}, "there is no file '/no/way/there.safetensors'"),
        ({"pipeline": "no/such/one.safetensors"}, "neither a file here nor one that the Hub gives"),
        ({"pipeline": "tiny_sd", "revision": "main"}, "is a folder and has no revision 'main'"),
        ({"pipeline": "tiny_sd", "lora": "/no/where"}, "LoRA '/no/where' is neither a file nor a folder"),
        ({"dtype": "float8"}, "dtype is 'float8'; choose one of float32, float16, bfloat16"),
        ({"masks": "guess"}, "masks is 'guess'; choose one of pipeline, attention"),
        ({"template": "poem"}, "prompt template 'poem' is unknown; choose one of ingredients, photo, title"),
    ],
)
def test_bad_settings_are_named(settings, message, request):
    if settings.get("pipeline") == "tiny_sd":
        settings = {**settings, "pipeline": request.getfixturevalue("tiny_sd")}
    with pytest.raises(BadInputError, match=message):
        Illustrator(GenerationSettings(**settings), "r1")


@pytest.mark.parametrize(
    ("pipeline", "change", "reason"),
    [
        ("tiny_sd", {"size": 65}, "divisible by 8 but are 65 and 65"),
        ("tiny_sd", {"scheduler": "FlowMatchEulerDiscreteScheduler"}, ""),
        ("tiny_sd", {"scheduler": "ScoreSdeVeScheduler"}, ""),
        ("plating", {"size": 63, "steps": None}, "between 64 and 512 but are 63 and 63"),
        ("plating", {"steps": 3}, "has to be 1, a plate is drawn in one, but is 3"),
    ],
)
def test_what_a_pipeline_does_not_draw_with_is_one_error(pipeline, change, reason, request):
    name = pipeline if pipeline == "plating" else request.getfixturevalue(pipeline)
    drawer = illustrator(name, **{"steps": 2, "size": 64, **change})
    with pytest.raises(BadInputError, match=f"Pipeline does not draw with these settings .*{reason}"):
        list(drawer.draw(tasks(1)))


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path):
    with pytest.raises(BadInputError, match=r"has no model_index\.json"):
        load_pipeline(str(tmp_path))


def test_a_pipeline_that_needs_a_picture_is_refused(tmp_path):
    AutoPipelineForImage2Image.from_pipe(tiny_stable_diffusion()).save_pretrained(tmp_path)
    with pytest.raises(BadInputError, match="does not make pictures from text alone"):
        load_pipeline(str(tmp_path))


def test_weights_that_are_no_safetensors_are_refused(tmp_path):
    tiny_stable_diffusion().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(BadInputError, match="cannot be loaded"):
        load_pipeline(str(tmp_path))


def test_templates():
    lines = ["2 tomatoes, chopped", "a pinch of salt", "rice"]
    assert prompts.render("title", "Soup", lines) == "Soup"
    assert prompts.render("ingredients", "Soup", lines) == "Soup: tomato, rice"
    assert "Soup with tomato, rice" in prompts.render("photo", "Soup", lines)
    assert prompts.render("ingredients", "Soup", ["salt"]) == "Soup"
