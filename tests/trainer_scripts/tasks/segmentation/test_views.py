"""Views at test time: what is averaged, that windows cover a picture, and that nothing is shifted or mirrored by it."""

from types import SimpleNamespace

import pytest
import torch

from dataset_builder.errors import BadInputError
from trainer_scripts.tasks.segmentation.views import LOGIT_STRIDE, Views, predict_views, starts


class Brightness(torch.nn.Module):
    """Answers each pixel by itself: class 1 in the measure of its first channel."""

    def __init__(self, ingredients=True):
        super().__init__()
        self.config = SimpleNamespace(head="deeplabv3", ingredient_head=ingredients)
        self.sizes = []

    def forward(self, pixels, logit_stride=1):
        self.sizes.append(tuple(pixels.shape[-2:]))
        logits = torch.stack([torch.zeros_like(pixels[:, 0]), pixels[:, 0]], dim=1)
        named = pixels[:, 0].mean(dim=(1, 2))[:, None] if self.config.ingredient_head else None
        return SimpleNamespace(logits=logits, ingredient_logits=named)


@pytest.fixture
def picture():
    return torch.randn(1, 3, 20, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "testing",
    [Views(), Views(flip=True), Views(window=8), Views(window=8, stride=3, flip=True), Views(window=64)],
)
def test_views_of_a_model_without_context_change_nothing(picture, testing):
    model = Brightness()
    masks, named = predict_views(model, picture, testing)
    plain, _ = predict_views(Brightness(), picture, Views())
    torch.testing.assert_close(masks, plain)
    assert masks.shape == (1, 2, 20 // LOGIT_STRIDE, 28 // LOGIT_STRIDE)
    assert 0 < float(named) < 1
    if testing.window:
        assert set(model.sizes) == {(testing.window, testing.window)}


def test_scales_show_the_picture_larger_and_smaller(picture):
    model = Brightness()
    masks, _ = predict_views(model, picture, Views(scales=(0.5, 1.0, 1.5)))
    assert model.sizes == [(10, 14), (20, 28), (30, 42)]
    torch.testing.assert_close(masks.exp().sum(1), torch.ones(1, 5, 7))


def test_a_mirrored_view_is_mirrored_back(picture):
    class LeftHalf(Brightness):
        def forward(self, pixels, logit_stride=1):
            output = super().forward(pixels)
            output.logits[..., : pixels.shape[-1] // 2] = torch.tensor([0.0, 9.0]).view(1, 2, 1, 1)
            return output

    masks, _ = predict_views(LeftHalf(), torch.full_like(picture, -9.0), Views(flip=True))
    assert masks[0, 1].exp().round(decimals=1).unique().tolist() == [0.5]


def test_windows_reach_every_edge():
    for length, side, step in ((20, 8, 5), (21, 8, 8), (8, 8, 3), (5, 8, 3)):
        covered = [pixel for start in starts(length, side, step) for pixel in range(start, start + side)]
        assert set(range(length)) <= set(covered)
        assert max(covered) < max(length, side)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": (0.0,)}, "scales must be positive"),
        ({"stride": 4}, "a stride needs a window"),
        ({"window": 8, "stride": 9}, "leave gaps"),
    ],
)
def test_views_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(BadInputError, match=message):
        Views(**settings)


def test_views_are_told_in_the_result():
    assert Views().describe() == "the whole picture once"
    told = Views(scales=(0.75, 1.0), flip=True, window=96).describe()
    assert told == "windows of 96 px every 64 px, scales 0.75, 1, mirrored too, probabilities averaged"
