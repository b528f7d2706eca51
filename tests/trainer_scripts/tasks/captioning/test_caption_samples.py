"""Samples of captioners: flips, turns, crops, masks, padding, and the target that must stay hidden."""

import torch

from modeling_flavour.modeling_flavour_captioning import FlavourForTransformerCaptioning
from tests.modeling_flavour.test_captioning import tiny_captioner, tiny_processor
from tests.modeling_flavour.tiny import tiny_resnet
from tests.trainer_scripts.conftest import ROWS, make_row, write_dataset
from tests.trainer_scripts.tasks.captioning.conftest import tiny_arguments, tiny_processor_of
from trainer_scripts.data.pictures import augmentation, evaluation_picture
from trainer_scripts.settings.arguments import DataArguments
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.captioning.comparing import target_is_hidden
from trainer_scripts.tasks.captioning.samples import CaptionCollator, CaptionSamples
from trainer_scripts.tasks.captioning.text import names_no_side
from trainer_scripts.tasks.captioning.training import (
    build,
    collator,
    evaluation_samples,
    training_samples,
)
from trainer_scripts.training.data import load_training_data


def test_a_target_that_could_be_copied_is_found(table):
    model = tiny_captioner(FlavourForTransformerCaptioning, vision_config=tiny_resnet()).eval()
    samples = evaluation_samples(tiny_processor(), table)
    assert target_is_hidden(model, samples)
    model.read_inputs_ = model.read_inputs

    def unshifted(pixels, words, embeds, encoded, labels, features=None, **wanted):
        return model.read_inputs_(pixels, labels.clamp(min=0), embeds, encoded, None, features, **wanted)

    model.read_inputs = unshifted
    assert not target_is_hidden(model, samples)


def test_flip_mirrors_picture_and_caption_together(table):
    processor = tiny_processor_of(table)
    prepare = evaluation_picture(processor.image_processor)
    plain = CaptionSamples(table, processor, prepare, seed=3)
    flipped = CaptionSamples(table, processor, prepare, flip=True, seed=3)
    changed = 0
    for epoch in range(4):
        plain.epoch = flipped.epoch = epoch
        for row in range(10):
            one, other = plain[row], flipped[row]
            words = [processor.tokenizer.decode(each["labels"]) for each in (one, other)]
            if torch.equal(one["picture"], other["picture"]):
                assert words[0] == words[1]
                continue
            changed += 1
            assert torch.equal(one["picture"].flip(-1), other["picture"])
            assert words[0].replace("left", "right") == words[1]
    assert 10 < changed < 30


def test_pictures_are_turned_only_where_the_caption_names_no_side(table):
    processor = tiny_processor_of(table)
    prepare = evaluation_picture(processor.image_processor)
    plain = CaptionSamples(table, processor, prepare, seed=3)
    turned = CaptionSamples(table, processor, prepare, turn=True, seed=3)
    quarters = set()
    for epoch in range(4):
        plain.epoch = turned.epoch = epoch
        for row in range(10):
            one, other = plain[row], turned[row]
            assert one["labels"] == other["labels"]
            ways = [k for k in range(4) if torch.equal(one["picture"].rot90(k, (-2, -1)), other["picture"])]
            assert ways
            if "left" in processor.tokenizer.decode(one["labels"]):
                assert 0 in ways
            else:
                quarters.update(ways)
    assert quarters == {0, 1, 2, 3}
    for caption in ("The feta is above the rice.", "Peas on the left.", "Olives at the top.", "A cat over a dog."):
        assert not names_no_side(caption)
    for caption in ("Mostly rice in a bowl.", "The rice is all over the plate.", "The peas are in the centre."):
        assert names_no_side(caption)


def test_masks_are_varied_like_their_pictures(table):
    processor = tiny_processor_of(table)
    augment = augmentation(DataArguments(crop_scale=0.3), 32)
    samples = CaptionSamples(
        table, processor, evaluation_picture(processor.image_processor), augment, flip=True, masks=True
    )
    # Picture and mask show the same pattern, so that they must stay equal under any crop and flip.
    pixels = torch.arange(32).repeat(32, 1).to(torch.uint8)[None].expand(3, -1, -1) * 7
    samples.pictures = [pixels] * len(table)
    samples.masks = [pixels[0]] * len(table)
    for row in range(8):
        sample = samples[row]
        inner = (slice(4, -4), slice(4, -4))
        gap = (sample["picture"][0][inner].int() - sample["mask"][inner].int()).abs().float().mean()
        assert gap < 8
    assert samples[0]["mask"].shape == (32, 32)
    batch = CaptionCollator((0.5,) * 3, (0.5,) * 3)([{**samples[0], "mask": torch.full((4, 4), 255)}])
    assert (batch["place_masks"] == -100).all()


def test_masks_of_large_pictures_shrink_with_them(tmp_path):
    rows = {split: [make_row(split, index, size=96) for index in range(6)] for split in ROWS}
    more = ("--config", '{"hidden_size": 32, "num_attention_heads": 2, "place_loss_weight": 1.0}')
    configuration = parse_configuration(
        tiny_arguments("merge", write_dataset(tmp_path / "large", rows), tmp_path / "run", *more)
    )
    data = load_training_data(configuration)
    _, processor = build(configuration, data)
    batch = collator(processor)([training_samples(configuration, data, processor)[row] for row in range(6)])
    assert batch["pixel_values"].shape[-2:] == batch["place_masks"].shape[-2:] == (32, 32)


def test_one_random_caption_per_epoch_or_all_of_them(table):
    processor = tiny_processor_of(table)
    prepare = evaluation_picture(processor.image_processor)
    samples = CaptionSamples(table, processor, prepare)
    assert len(samples) == len(table)
    seen = set()
    for epoch in range(8):
        samples.epoch = epoch
        seen.add(tuple(samples[0]["labels"]))
        assert samples[0]["labels"] == samples[0]["labels"]
    assert len(seen) == 2
    every = CaptionSamples(table, processor, prepare, every_caption=True)
    assert len(every) == 2 * len(table)
    first = CaptionSamples(table, processor, prepare, first_share=1.0)
    assert all(first[row]["labels"] == samples.tokens[row][0] for row in range(10))


def test_validation_pictures_are_never_varied(table):
    samples = evaluation_samples(tiny_processor_of(table), table)
    once = [samples[row]["picture"].clone() for row in range(5)]
    samples.epoch = 7
    assert all(torch.equal(picture, samples[row]["picture"]) for row, picture in enumerate(once))


def test_padding_is_no_target(table):
    collator = CaptionCollator((0.5,) * 3, (0.5,) * 3)
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    batch = collator([{"picture": picture, "labels": [5, 6, 3]}, {"picture": picture, "labels": [7, 3]}])
    assert batch["labels"].tolist() == [[5, 6, 3], [7, 3, -100]]
