"""What lies at each place of a picture: the head, the vector made of it, its loss, its way to other models."""

import pytest
import torch
from torch.nn import functional

from modeling_flavour.losses_flavour import place_loss

from .tiny import MASK_CLASSES, tiny_batch, tiny_classifier, tiny_resnet


def model_of_places(**fields):
    return tiny_classifier(
        **{"vision_config": tiny_resnet(), "image_pooling": "places", "num_place_labels": MASK_CLASSES, **fields}
    )


def test_the_vector_is_mean_and_maximum_of_the_shares():
    encoder = model_of_places().image_encoder.eval()
    seen = encoder(tiny_batch(3, 0)["pixel_values"])
    shares = functional.linear(seen.tokens, encoder.place_head.weight, encoder.place_head.bias).softmax(-1)
    torch.testing.assert_close(seen.pooled, torch.cat([shares.mean(1), shares.amax(1)], dim=1))
    assert encoder.pooled_size == 2 * MASK_CLASSES == seen.pooled.shape[1]


def test_the_loss_is_that_of_the_four_samples_of_each_place():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, MASK_CLASSES)
    mask = torch.randint(0, MASK_CLASSES, (2, 4, 4))
    mask[0, 0, 0] = -100
    by_hand = [
        -logits[row, 2 * (y // 2) + x // 2].log_softmax(-1)[mask[row, y, x]]
        for row in range(2)
        for y in range(4)
        for x in range(4)
        if mask[row, y, x] >= 0
    ]
    torch.testing.assert_close(place_loss(logits, mask), torch.stack(by_hand).mean())


def test_the_head_travels_with_the_encoder(tmp_path):
    donor, heir = model_of_places(), model_of_places(problem_type="multi_label_classification")
    assert not torch.equal(donor.image_encoder.place_head.weight, heir.image_encoder.place_head.weight)
    donor.save_pretrained(tmp_path)
    heir.load_image_encoder(str(tmp_path))
    for name, value in donor.image_encoder.state_dict().items():
        assert torch.equal(value, heir.image_encoder.state_dict()[name]), name


def test_a_head_of_other_labels_is_refused(tmp_path):
    model_of_places().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"of another shape: weight"):
        model_of_places(num_place_labels=3).load_image_encoder(str(tmp_path))


def test_masks_without_a_head_are_refused():
    batch = tiny_batch(2, 0)
    masks = torch.zeros(2, *batch["pixel_values"].shape[-2:], dtype=torch.long)
    with pytest.raises(ValueError, match="place_masks need a picture and a config with num_place_labels"):
        tiny_classifier()(**batch, place_masks=masks)


def test_masks_that_nobody_knows_teach_nothing():
    logits = torch.randn(2, 9, 4, requires_grad=True)
    loss = place_loss(logits, torch.full((2, 12, 12), -100))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
