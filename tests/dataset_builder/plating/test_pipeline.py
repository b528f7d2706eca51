"""The plating pipeline: called as a diffusers pipeline is, repeatable, with masks that say exactly what is drawn."""

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_builder.catalogue.ingredients import catalogue_dishes, find_ingredients, ingredient_id, visible_ingredients
from dataset_builder.catalogue.serving import hidden_liquids, vessel_for
from dataset_builder.columns import BACKGROUND, UNKNOWN
from dataset_builder.plating.pipeline import Plate, PlatingPipeline, liquid_colour

SALAD = "Village salad: cucumber, tomato, red onion, feta, black olive, oregano"
CURRY = "Prawn curry: rice, curry sauce, prawn, coriander"
PROMPTS = [SALAD, CURRY, "Mushroom toast: bread, mushroom, parsley", "Lemonade: lemon, mint"]


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(scope="module")
def pipeline() -> PlatingPipeline:
    return PlatingPipeline()


@pytest.fixture(scope="module")
def four(pipeline):
    return pipeline(PROMPTS, generator=seeded(1, 2, 3, 4), output_type="np")


def test_the_same_generators_draw_the_same_pictures(pipeline, four):
    again = pipeline(PROMPTS, generator=seeded(1, 2, 3, 4), output_type="np")
    np.testing.assert_array_equal(again.images, four.images)
    np.testing.assert_array_equal(np.stack(again.masks), np.stack(four.masks))
    assert again.plates == four.plates


def test_a_picture_does_not_depend_on_its_batch(pipeline, four):
    for index, prompt in enumerate(PROMPTS):
        alone = pipeline(prompt, generator=seeded(index + 1), output_type="np")
        np.testing.assert_array_equal(alone.images[0], four.images[index])
        np.testing.assert_array_equal(alone.masks[0], four.masks[index])


def test_other_generators_draw_other_plates(pipeline):
    pictures = pipeline([SALAD] * 3, generator=seeded(5, 6, 7), output_type="np").images
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(pictures[one] - pictures[other]).mean() > 0.03


def test_without_a_generator_torch_decides(pipeline):
    pictures = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        pictures.append(pipeline(SALAD, output_type="np").images[0])
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_one_generator_serves_a_batch_in_turn(pipeline):
    generator = torch.Generator().manual_seed(0)
    output = pipeline(SALAD, num_images_per_prompt=2, generator=generator, output_type="np")
    assert len(output.images) == 2
    assert not np.array_equal(output.images[0], output.images[1])


@pytest.mark.parametrize("hidden", ["salt", "sugar", "olive oil, vinegar"])
def test_what_one_cannot_see_changes_nothing(pipeline, hidden):
    plain = pipeline(SALAD, generator=seeded(8), output_type="np")
    seasoned = pipeline(f"{SALAD}, {hidden}", generator=seeded(8), output_type="np")
    np.testing.assert_array_equal(plain.images, seasoned.images)
    np.testing.assert_array_equal(plain.masks[0], seasoned.masks[0])


def test_masks_and_plates_name_only_what_the_prompt_names(pipeline):
    dishes = catalogue_dishes()[::60]
    prompts = [f"{dish.title}: {', '.join(dish.ingredients)}" for dish in dishes]
    output = pipeline(prompts, generator=seeded(*range(len(prompts))))
    catalogue = visible_ingredients()
    for prompt, mask, plate in zip(prompts, output.masks, output.plates, strict=True):
        asked = {ingredient_id(item.name) for item in find_ingredients(prompt) if item.visible}
        shown = set(np.unique(mask).tolist()) - {BACKGROUND}
        assert shown <= asked
        assert UNKNOWN not in shown
        assert {item.name for item in plate.items} == {catalogue[number - 1] for number in shown}


def test_plates_measure_their_masks(four):
    for mask, plate in zip(four.masks, four.plates, strict=True):
        assert mask.dtype == np.uint8
        assert [item.area for item in plate.items] == sorted((item.area for item in plate.items), reverse=True)
        for item in plate.items:
            rows, columns = np.nonzero(mask == ingredient_id(item.name))
            assert item.area == pytest.approx(len(rows) / mask.size)
            assert item.x == pytest.approx((columns.mean() + 0.5) / mask.shape[1])
            assert item.y == pytest.approx((rows.mean() + 0.5) / mask.shape[0])
            assert item.pieces >= 1


def test_the_mask_changes_exactly_where_an_ingredient_is_drawn(pipeline):
    with_egg = pipeline("Plate: fried egg", generator=seeded(2), output_type="np")
    without = pipeline("Plate", generator=seeded(2), output_type="np")
    inside = with_egg.masks[0] == ingredient_id("fried egg")
    difference = np.abs(with_egg.images[0] - without.images[0]).max(axis=-1)
    assert (difference[inside] > 0.02).mean() > 0.6
    assert not without.masks[0].any()
    # The egg's own pixels are white or yellow; the plate around it is another colour.
    assert with_egg.plates[0].items[0].name == "fried egg"


def test_every_visible_ingredient_can_be_drawn_and_is_large_enough_to_find(pipeline):
    names = list(visible_ingredients())
    output = pipeline([f"Plate: {name}" for name in names], height=64, generator=seeded(*range(len(names))))
    for name, plate in zip(names, output.plates, strict=True):
        assert [item.name for item in plate.items] == [name]
        assert plate.items[0].area > 0.01, name


@pytest.mark.parametrize("name", ["boiled egg", "walnut", "caper", "gherkin", "black olive"])
def test_eggs_nuts_and_pickles_stay_readable_among_others(pipeline, name):
    prompt = f"Salad: lettuce, tomato, {name}, cucumber, chicken"
    plates = pipeline([prompt] * 8, generator=seeded(*range(8))).plates
    areas = [item.area for plate in plates for item in plate.items if item.name == name]
    assert len(areas) == 8
    assert np.median(areas) > 0.015


def test_a_plate_without_known_ingredients_is_empty(pipeline):
    output = pipeline(["", "Salt: salt, vinegar"], generator=seeded(1, 2))
    for mask, plate in zip(output.masks, output.plates, strict=True):
        assert plate.items == ()
        assert not mask.any()


def test_negative_prompts_keep_ingredients_off_the_plate(pipeline):
    plate = pipeline(SALAD, negative_prompt="feta, blurry", generator=seeded(1)).plates[0]
    names = {item.name for item in plate.items}
    assert "feta" not in names
    assert "cucumber" in names


def test_output_types_hold_the_same_picture(pipeline):
    as_array = pipeline(SALAD, generator=seeded(1), output_type="np").images
    as_tensor = pipeline(SALAD, generator=seeded(1), output_type="pt").images
    as_image = pipeline(SALAD, generator=seeded(1)).images
    assert as_array.shape == (1, 128, 128, 3)
    assert as_tensor.shape == (1, 3, 128, 128)
    np.testing.assert_array_equal(as_tensor.numpy().transpose(0, 2, 3, 1), as_array)
    assert isinstance(as_image[0], Image.Image)
    np.testing.assert_allclose(np.asarray(as_image[0]) / 255, as_array[0], atol=0.5 / 255 + 1e-6)
    images, masks, plates = pipeline(SALAD, generator=seeded(1), return_dict=False)
    assert len(images) == len(masks) == len(plates) == 1


@pytest.mark.parametrize("size", [64, 96, 300, 512])
def test_other_sizes(pipeline, size):
    output = pipeline(SALAD, height=size, width=size, generator=seeded(1))
    assert output.images[0].size == (size, size)
    assert output.masks[0].shape == (size, size)
    assert len(output.plates[0].items) == 5


def test_save_and_load_draw_the_same(pipeline, tmp_path, four):
    pipeline.save_pretrained(tmp_path / "plating")
    loaded = PlatingPipeline.from_pretrained(tmp_path / "plating")
    again = loaded(PROMPTS, generator=seeded(1, 2, 3, 4), output_type="np")
    np.testing.assert_array_equal(again.images, four.images)


def test_the_callback_sees_the_one_step(pipeline):
    calls = []
    pipeline(SALAD, callback_on_step_end=lambda *arguments: calls.append(arguments))
    assert calls == [(pipeline, 0, 0, {})]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": None}, "`prompt` has to be of type"),
        ({"prompt": []}, "`prompt` has to be of type"),
        ({"prompt": [3]}, "`prompt` has to be of type"),
        ({"height": 128, "width": 64}, "have to be equal and between 64 and 512 but are 128 and 64"),
        ({"height": 32}, "have to be equal and between 64 and 512"),
        ({"width": 1024}, "have to be equal and between 64 and 512"),
        ({"num_inference_steps": 20}, "`num_inference_steps` has to be 1"),
        ({"num_images_per_prompt": 0}, "`num_images_per_prompt` has to be at least 1"),
        ({"output_type": "latent"}, "`output_type` has to be one of pil, np, pt"),
        ({"negative_prompt": ["a", "b"]}, "`negative_prompt` has 2 entries for 1 prompts"),
        ({"generator": seeded(1, 2)}, "list of generators of length 2, but requested an effective batch size of 1"),
    ],
)
def test_bad_arguments_are_refused(pipeline, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline(**{"prompt": SALAD, **arguments})


@pytest.mark.parametrize(
    ("prompt", "vessel"),
    [
        ("Barley and leek soup with toast: barley, leek", "bowl"),
        ("Grandmother's beef stew: beef, carrot", "bowl"),
        ("Garden pizza: pizza base, tomato", "board"),
        ("Mango smoothie: mango", "glass"),
        ("Iced coffee: coffee", "glass"),
        ("Coffee cake: sponge cake, coffee", "plate"),
        ("Roast cod: cod, bread", "plate"),
        ("Sunday lunch: broth, chicken", "bowl"),
        ("", "plate"),
    ],
)
def test_the_vessel_follows_the_title(prompt, vessel):
    assert vessel_for(prompt) == vessel


@pytest.mark.parametrize(
    ("prompt", "vessel"),
    [
        ("Teh tarik: black tea, condensed milk, milk", "glass"),
        ("Mate: yerba mate, water", "glass"),
        ("Horchata: rice, milk, sugar, cinnamon", "glass"),
        ("Dip: fish sauce, lime juice, sugar", "bowl"),
    ],
)
def test_a_liquid_in_which_one_sees_nothing_is_drawn_in_its_own_colour(pipeline, prompt, vessel):
    output = pipeline([prompt] * 3, generator=seeded(1, 2, 3), output_type="np")
    wanted = liquid_colour(hidden_liquids(vessel, find_ingredients(prompt)))
    for plate, mask, picture in zip(output.plates, output.masks, output.images, strict=True):
        assert plate == Plate(vessel, (), liquid=True)
        assert not mask.any()
        # Ice, foam and light change it, but the middle of the glass stays nearer to it than to the white of a plate.
        middle = np.median(picture[48:80, 48:80].reshape(-1, 3), axis=0)
        assert np.abs(middle - wanted).mean() < 0.16


@pytest.mark.parametrize("prompt", ["Dough: flour, water, yeast, salt", "Whip: egg, sugar", "Seasoning: salt"])
def test_what_sets_or_is_no_liquid_stays_an_empty_plate(pipeline, prompt):
    plate = pipeline(prompt, generator=seeded(1)).plates[0]
    assert not plate.items
    assert not plate.liquid


@pytest.mark.parametrize(
    ("prompt", "drawn"),
    [
        ("Bacon and eggs: fried egg, bacon", {"bacon", "fried egg"}),
        ("Feta with olives: feta, black olive", {"feta", "black olive"}),
        ("Feta with green olives: feta, black olive", {"feta", "green olive", "black olive"}),
        ("Feta with olives", {"feta", "green olive"}),
    ],
)
def test_a_general_word_of_the_title_adds_nothing_to_the_ingredient_that_makes_it_precise(pipeline, prompt, drawn):
    (plate,) = pipeline(prompt, generator=torch.Generator().manual_seed(0)).plates
    assert {item.name for item in plate.items} == drawn
