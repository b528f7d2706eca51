"""Unusable pictures are recognised, usable ones are not."""

import numpy as np
import pytest
from PIL import Image

from dataset_builder.errors import BadInputError
from dataset_builder.pictures.quality import NearDuplicates, OffPrompt, picture_fault
from dataset_builder.plating.pipeline import PlatingPipeline


def plates(*prompts: str) -> list[Image.Image]:
    import torch

    generators = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    return PlatingPipeline()(list(prompts), height=64, width=64, generator=generators).images


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def test_a_black_picture_is_refused():
    assert picture_fault(Image.new("RGB", (64, 64))) == "black"
    assert picture_fault(Image.new("RGB", (64, 64), (9, 9, 9))) == "black"


def test_a_flat_picture_is_refused():
    assert picture_fault(Image.new("RGB", (64, 64), (200, 90, 40))) == "flat"


def test_what_the_safety_checker_replaced_is_refused_under_its_own_name():
    assert picture_fault(Image.new("RGB", (64, 64)), flagged=True) == "replaced by the safety checker"


def test_an_empty_plate_is_refused_where_the_mask_is_known():
    mask = np.zeros((64, 64), np.uint8)
    assert picture_fault(noise(0), mask=mask) == "empty plate"
    assert picture_fault(noise(0), mask=mask, liquid=True) is None
    mask[3, 3] = 7
    assert picture_fault(noise(0), mask=mask) is None


def test_plates_are_accepted():
    assert [picture_fault(image) for image in plates("Rice: rice", "Cream soup: cream", "Salad: lettuce, tomato")] == [
        None,
        None,
        None,
    ]


def test_near_duplicates_are_found_within_a_recipe_only():
    picture = plates("Greek salad: cucumber, tomato, feta")[0]
    softened = Image.fromarray((np.asarray(picture, np.int16) + 1).clip(0, 255).astype(np.uint8))
    duplicates = NearDuplicates()
    assert duplicates.fault(picture, "salad", "salad-00") is None
    assert duplicates.fault(softened, "salad", "salad-01") == "near-duplicate of salad-00"
    assert duplicates.fault(softened, "soup", "soup-00") is None


def test_two_plates_of_one_recipe_are_no_duplicates():
    duplicates = NearDuplicates()
    pictures = plates(*["Tomato soup: tomato, basil"] * 4)
    assert [duplicates.fault(image, "soup", str(n)) for n, image in enumerate(pictures)] == [None] * 4


def test_off_prompt_pictures_are_those_below_the_minimum(clip_folder):
    images, prompts = [noise(0), noise(1)], ["rice", "a salad of tomato"]
    low, high = sorted(OffPrompt(clip_folder).scores(images, prompts))
    faults = OffPrompt(clip_folder, minimum=(low + high) / 2).faults(images, prompts)
    assert sorted(fault is None for fault in faults) == [False, True]
    assert next(fault for fault in faults if fault).startswith("off prompt (CLIP score ")


def test_the_clip_score_of_a_picture_does_not_depend_on_its_batch(clip_folder):
    scorer = OffPrompt(clip_folder)
    images, prompts = [noise(0), noise(1)], ["rice", "a salad of tomato and basil"]
    alone = [scorer.scores([image], [prompt])[0] for image, prompt in zip(images, prompts, strict=True)]
    assert scorer.scores(images, prompts) == pytest.approx(alone, abs=1e-5)


def test_a_missing_clip_model_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"CLIP model '.*nowhere' cannot be loaded"):
        OffPrompt(str(tmp_path / "nowhere"))


def test_a_glance_at_a_part_decides_as_the_whole_picture_does():
    draw, found = np.random.default_rng(0), set()
    for number in range(300):
        height, width = draw.integers(1, 40, 2)
        level = draw.integers(0, 30) if number % 2 else 120
        values = level + draw.normal(0, draw.uniform(0, 14), (height, width))
        if number % 3 == 0:  # the part that is looked at first differs from the rest
            values[height // 2 : height // 2 + height // 8 + 1] += draw.normal(0, 30)
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
        grey = np.asarray(image.convert("L"), dtype=float)
        expected = "black" if grey.max() <= 16 else "flat" if grey.std() < 3 else None
        assert picture_fault(image) == expected
        found.add(expected)
    assert found == {None, "black", "flat"}
