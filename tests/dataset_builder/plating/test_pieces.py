"""Canvas and brushes: every form draws, lies where it was put, and is lit from one side."""

import numpy as np
import pytest

from dataset_builder.catalogue.ingredients import FORMS as CATALOGUE_FORMS
from dataset_builder.catalogue.ingredients import ingredients
from dataset_builder.catalogue.serving import VESSELS
from dataset_builder.plating.beds import FORMS, melt, pool, soup
from dataset_builder.plating.canvas import Canvas, Placement, ink, mix, noise_tile
from dataset_builder.plating.pieces import blob
from dataset_builder.plating.vessels import draw_cutlery, draw_table, draw_vessel

SIDE = 128
RED, GREEN = np.array([[0.8], [0.1], [0.1]]), np.array([[0.1], [0.7], [0.2]])


def canvas(seed: int = 0) -> Canvas:
    return Canvas(SIDE, np.random.default_rng(seed))


def at(x: float, y: float, length: float = 50, width: float = 40, angle: float = 0.0) -> Placement:
    return Placement(*(np.array([value], np.float32) for value in (x, y, angle, length, width)))


def test_every_form_of_the_catalogue_has_a_brush():
    assert set(FORMS) == set(CATALOGUE_FORMS) - {"none"}


@pytest.mark.parametrize("second", [GREEN, None])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_form_draws_its_colour_where_it_was_put(form, second):
    drawn = canvas()
    subject = next(item for item in ingredients() if item.form == form)
    [sticker] = drawn.paint(FORMS[form], at(70, 60), (RED, second), owner=7, subject=subject)
    assert np.isfinite(sticker.colour).all()
    assert sticker.colour.dtype == sticker.alpha.dtype == sticker.shadow.dtype == np.float32
    drawn.lay(sticker)
    mask = np.array(drawn.owners)[drawn.pieces]
    assert set(np.unique(mask)) == {0, 7}
    rows, columns = np.nonzero(mask)
    assert abs(columns.mean() - 70) < 14
    assert abs(rows.mean() - 60) < 14
    assert 0.05 < len(rows) / (50 * 40) < 1.5
    red, green, _ = drawn.pixels[:, rows, columns].mean(axis=1)
    assert red > green or second is not None


@pytest.mark.parametrize("brush", [pool, soup, melt])
def test_pieces_at_the_edge_are_cut_off_by_the_frame(brush):
    drawn = canvas()
    for x, y in ((0, 0), (127, 3), (60, 140), (-90, 50)):
        drawn.lay(drawn.paint(brush, at(x, y, 60, 60), (RED, GREEN), owner=1)[0])
    assert np.isfinite(drawn.pixels).all()
    assert (drawn.pieces > 0).any()


def test_the_mask_shows_what_was_laid_last():
    drawn = canvas()
    for owner in (1, 2):
        drawn.lay(drawn.paint(blob, at(64, 64), (RED, None), owner=owner)[0])
    assert drawn.owners == [0, 1, 2]
    assert drawn.owners[drawn.pieces[64, 64]] == 2
    assert drawn.drawn_areas[1] == pytest.approx(np.pi / 4 * 50 * 40, rel=0.15)


def test_things_that_are_no_food_cover_the_mask_with_background():
    drawn = canvas()
    drawn.lay(drawn.paint(blob, at(64, 64, 40, 40), (RED, None), owner=3)[0])
    drawn.lay(drawn.paint(blob, at(64, 64, 60, 60), (GREEN, None))[0])
    assert not np.array(drawn.owners)[drawn.pieces].any()


def test_a_ball_is_brighter_on_the_side_of_the_lamp():
    drawn = canvas()
    drawn.light = np.array([-0.6, 0.0, 0.8], np.float32)
    [sticker] = drawn.paint(blob, at(64, 64, 60, 60), (RED, None), owner=1)
    middle = sticker.alpha.shape[1] // 2
    left, right = sticker.colour[0, middle, middle - 20], sticker.colour[0, middle, middle + 20]
    assert left > 1.2 * right


def test_noise_is_standardised_and_repeats():
    tile = noise_tile(SIDE, 12)
    assert tile.shape == (224, 224)
    assert abs(tile.mean()) < 1e-4
    assert tile.std() == pytest.approx(1, abs=1e-3)
    assert noise_tile(SIDE, 12) is tile


def test_mix_blends_by_share():
    np.testing.assert_allclose(mix(ink(0, 0, 0), ink(1, 0.5, 0), np.float32(0.5)).ravel(), [0.5, 0.25, 0])


@pytest.mark.parametrize("kind", VESSELS)
def test_every_vessel_leaves_most_of_the_picture_to_food(kind):
    for seed in range(4):
        drawn = canvas(seed)
        draw_table(drawn)
        table = drawn.pixels.copy()
        vessel = draw_vessel(drawn, kind, np.array([0.5, 0.3, 0.1], np.float32))
        assert vessel.kind == kind
        assert 0.33 * SIDE < vessel.room < 0.52 * SIDE
        assert not np.array_equal(table, drawn.pixels)
        assert np.isfinite(drawn.pixels).all()
        draw_cutlery(drawn, vessel)
        assert set(drawn.owners) == {0}
