"""The segmenter: the contract, DeepLab against torchvision's, losses, starting from a single task, label shapes."""

import json

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import DeepLabHead as TorchvisionHead
from transformers import AutoModel, AutoModelForSemanticSegmentation, BertConfig, TimmWrapperConfig, pipeline

from modeling_flavour.configuration_flavour_segmentation import FlavourSegmentationConfig
from modeling_flavour.modeling_flavour_segmentation import FlavourForSegmentation, FlavourSegmenterOutput
from modeling_flavour.processing_flavour import FlavourProcessor
from modeling_flavour.segmentation_heads_flavour import DeepLabHead, PooledNorm
from modeling_flavour.segmentation_losses_flavour import segmentation_loss
from modeling_flavour.segmentation_pipeline_flavour import IngredientPipeline, SegmentationPipeline
from tests.modeling_flavour.contract import ModelContract, randomise
from tests.modeling_flavour.tiny import MASK_CLASSES, MASK_NAMES, mask_batch, tiny_resnet, tiny_segmenter, tiny_vit


class FixedStatistics(FlavourForSegmentation):
    """A segmenter whose normalisation keeps its statistics, which otherwise differ with the size of a batch."""

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        return self


class SegmenterContract(ModelContract):
    head_weight = "head.classifier.weight"
    fields: dict = {}
    ingredients = False
    overfit_steps = 60
    model_class = FlavourForSegmentation

    def build(self, **overrides):
        return tiny_segmenter(self.model_class, **{**self.fields, **overrides})

    def batch(self, size=4, seed=0):
        return mask_batch(size, seed, ingredients=self.ingredients)

    def test_accumulated_steps_equal_one_large_step(self, tmp_path):
        self.model_class = FixedStatistics
        super().test_accumulated_steps_equal_one_large_step(tmp_path)


class TestSegmenter(SegmenterContract):
    wrong_fields = (
        ("head", "unet"),
        ("aspp_channels", 0),
        ("aspp_rates", [0]),
        ("loss", "hinge"),
        ("dropout", 1.0),
        ("class_weights", [1.0]),
        ("ignore_index", 2),
        ("ingredient_loss_weight", 0),
        ("trainable_image_layers", 1),
        ("loss_weighting", "uncertainty"),
        ("ingredients_from", "masks"),
        ("class_map", [0, 1]),
    )


class TestMultitaskSegmenter(SegmenterContract):
    fields = {
        "ingredient_head": True,
        "loss_weighting": "uncertainty",
        "auxiliary_head": True,
        "head": "deeplabv3plus",
        "ingredient_prior": [0.2, 0.3, 0.4, 0.5],
    }
    ingredients = True

    def test_one_batch_can_be_overfitted(self):
        # Learned weights let the loss fall below zero; fixed ones show what was learned.
        self.fields = {**self.fields, "loss_weighting": "fixed"}
        super().test_one_batch_can_be_overfitted()


class TestMasksThatNameIngredients(SegmenterContract):
    wrong_fields = (("ingredient_prior", [0.2, 0.3, 0.4, 0.5]), ("head", "none"))
    fields = {
        "ingredient_head": True,
        "ingredients_from": "masks",
        "head": "deeplabv3plus",
        "place_scores": True,
    }
    ingredients = True
    overfit_steps = 400


class TestFrozenSegmenterOnATransformer(SegmenterContract):
    tests_attention = True
    fields = {"vision_config": tiny_vit(), "freeze_image": True, "loss": "lovasz"}
    overfit_steps = 100


class TestIngredientClassifier(SegmenterContract):
    head_weight = "ingredient_classifier.weight"
    fields = {"head": "none", "ingredient_head": True}
    ingredients = True

    def logits(self, model, batch):
        with torch.no_grad():
            return model(**batch).ingredient_logits


def test_ingredients_read_from_masks_start_from_what_the_masks_say():
    model = tiny_segmenter(ingredient_head=True, ingredients_from="masks").eval()
    randomise(model.image_encoder)
    randomise(model.head)
    with torch.no_grad():
        model.head.classifier.weight.mul_(50)
        answer = model(mask_batch()["pixel_values"], logit_stride=8)
        coarse = model.head(model.image_encoder(mask_batch()["pixel_values"]).feature_map)
    surest = coarse.softmax(1).amax((2, 3))[:, 1:]
    assert 0 < (surest > 0.5).float().mean() < 1
    assert torch.equal(answer.ingredient_logits > 0, surest > 0.5)


@pytest.fixture(scope="module")
def features():
    return torch.randn(2, 16, 9, 9, generator=torch.Generator().manual_seed(3))


def test_deeplab_head_equals_torchvisions_with_the_same_weights(features):
    theirs = randomise(TorchvisionHead(16, MASK_CLASSES, atrous_rates=(2, 3, 4)))
    ours = DeepLabHead(FlavourSegmentationConfig(num_labels=MASK_CLASSES, aspp_rates=[2, 3, 4]), inputs=16)
    assert [value.shape for value in ours.state_dict().values()] == [x.shape for x in theirs.state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(features), theirs.eval()(features), rtol=1e-4, atol=1e-5)
        for head in (ours, theirs):
            head.train()
            for module in head.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.eval()
        torch.testing.assert_close(ours(features), theirs(features), rtol=1e-4, atol=1e-5)


def test_last_batch_of_one_picture_trains():
    model = tiny_segmenter().train()
    model(**mask_batch(1, ingredients=False)).loss.backward()
    norm = PooledNorm(4).train()
    assert torch.equal(norm(torch.ones(1, 4, 1, 1)), torch.nn.BatchNorm2d(4).eval()(torch.ones(1, 4, 1, 1)))


def test_logits_have_the_size_of_the_picture_and_strides_do_what_they_say():
    model = tiny_segmenter().eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, 40, 56)).logits.shape == (2, MASK_CLASSES, 40, 56)
        for stride in (8, 16):
            config = TimmWrapperConfig(architecture="test_resnet", model_args={"output_stride": stride})
            encoder = tiny_segmenter(vision_config=config).image_encoder
            assert encoder(torch.randn(1, 3, 64, 64)).feature_map.shape[-1] == 64 // stride


def test_plus_head_reads_the_early_stage():
    model = randomise(tiny_segmenter(head="deeplabv3plus")).eval()
    assert model.low_level_stage == 1
    fine = model.image_encoder(torch.randn(1, 3, 32, 32), output_hidden_states=True)
    with torch.no_grad():
        before = model.head(fine.feature_map, fine.hidden_states[1])
        after = model.head(fine.feature_map, torch.zeros_like(fine.hidden_states[1]))
    assert before.shape[-2:] == (8, 8)
    assert (before - after).abs().max() > 1e-3


def test_scores_of_places_come_from_the_encoder_that_learned_them(tmp_path):
    randomise(tiny_segmenter(place_scores=True)).save_pretrained(tmp_path)
    model = tiny_segmenter(place_scores=True, head="deeplabv3plus").eval()
    model.load_image_encoder(str(tmp_path))
    with torch.no_grad():
        for value in model.head.classifier.parameters():
            value.zero_()
        pictures = mask_batch(2)["pixel_values"]
        seen = model.image_encoder(pictures)
        places = seen.place_logits.transpose(1, 2).unflatten(2, seen.feature_map.shape[-2:])
        found = model(pictures).logits
    for size in (seen.stages[0].shape[-2:], pictures.shape[-2:]):
        places = functional.interpolate(places, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, places)
    with pytest.raises(StrictDataclassError, match="they need a head other than 'none'"):
        FlavourSegmentationConfig(head="none", ingredient_head=True, place_scores=True)


def test_losses_equal_plain_definitions():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 6, 6, generator=generator)
    labels = torch.randint(0, 3, (3, 6, 6), generator=generator)
    labels[0, :2], labels[2] = 255, 255
    weights = [1.0, 2.0, 0.5, 1.0]
    plain = [functional.cross_entropy(logits[i : i + 1], labels[i : i + 1], ignore_index=255) for i in (0, 1)]
    found = segmentation_loss(logits, labels, "cross_entropy", 255)
    torch.testing.assert_close(found, torch.stack(plain).sum() / 3)
    weighted = segmentation_loss(logits, labels, "cross_entropy", 255, weights)
    assert weighted != found
    sharp = 40 * functional.one_hot(labels.masked_fill(labels == 255, 0), 4).permute(0, 3, 1, 2).float()
    for kind in ("focal", "dice", "lovasz"):
        assert segmentation_loss(logits, labels, kind, 255) > 0.1
        assert segmentation_loss(sharp, labels, kind, 255) < 1e-4
    probabilities = logits[1].softmax(0)
    dice = []
    for label in labels[1].unique():
        mine, true = probabilities[label], (labels[1] == label).float()
        dice.append(1 - 2 * (mine * true).sum() / (mine.sum() + true.sum()))
    torch.testing.assert_close(segmentation_loss(logits[1:2], labels[1:2], "dice", 255), torch.stack(dice).mean())


def test_losses_of_one_picture_equal_those_of_a_library():
    smp = pytest.importorskip("segmentation_models_pytorch")
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 4, 6, 6, generator=generator)
    labels = torch.randint(0, 3, (1, 6, 6), generator=generator)
    labels[0, :2] = 255
    dice = smp.losses.DiceLoss("multiclass", ignore_index=255)(logits, labels)
    # The library counts absent classes as 0 in its mean.
    torch.testing.assert_close(segmentation_loss(logits, labels, "dice", 255) * 3 / 4, dice)
    lovasz = smp.losses.LovaszLoss("multiclass", per_image=True, ignore_index=255)(logits, labels)
    torch.testing.assert_close(segmentation_loss(logits, labels, "lovasz", 255), lovasz)


def test_class_weights_balance_both_tasks():
    batch, weights = mask_batch(), [0.2, 1.0, 2.0, 4.0, 1.0]
    plain = tiny_segmenter(ingredient_head=True).eval()
    weighted = tiny_segmenter(ingredient_head=True, class_weights=weights).eval()
    weighted.load_state_dict(plain.state_dict())
    logits = plain(batch["pixel_values"]).ingredient_logits
    terms = functional.binary_cross_entropy_with_logits(logits, batch["ingredient_targets"], reduction="none").mean(0)
    expected = (terms * torch.tensor(weights[1:]) / 2).mean()
    torch.testing.assert_close(weighted(**batch).losses["ingredients"], expected)
    torch.testing.assert_close(plain(**batch).losses["ingredients"], terms.mean())


def test_labels_on_a_coarser_grid_are_learned_on_that_grid():
    model, batch = tiny_segmenter().eval(), mask_batch(ingredients=False)
    coarse = {**batch, "labels": batch["labels"][:, 2::4, 2::4]}
    assert model(**coarse).logits.shape == (4, MASK_CLASSES, 8, 8)
    assert model(**batch).logits.shape == (4, MASK_CLASSES, 32, 32)
    with pytest.raises(ValueError, match="labels must have shape"):
        model(**{**batch, "labels": batch["labels"][:, :30, :30]})


def test_lovasz_of_a_hard_answer_is_one_minus_iou():
    answer = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])[None]
    truth = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 255]])[None]
    sharp = 200 * functional.one_hot(answer, 3).permute(0, 3, 1, 2).float()
    jaccard = [1 - 2 / 4, 1 - 3 / 5]
    found = segmentation_loss(sharp, truth, "lovasz", 255)
    torch.testing.assert_close(found, torch.tensor(jaccard).mean())


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "dice", "lovasz"])
def test_unknown_pixels_teach_nothing(kind):
    logits = torch.randn(2, 4, 6, 6, requires_grad=True)
    labels = torch.randint(0, 4, (2, 6, 6))
    labels[:, :3] = 255
    segmentation_loss(logits, labels, kind, 255).backward()
    assert logits.grad[:, :, :3].abs().max() == 0
    assert logits.grad[:, :, 3:].abs().max() > 0


def test_loss_is_the_weighted_sum_of_the_tasks():
    batch = mask_batch()
    model = tiny_segmenter(ingredient_head=True, ingredient_loss_weight=0.3, auxiliary_head=True).eval()
    output = model(**batch)
    assert set(output.losses) == {"segmentation", "auxiliary", "ingredients"}
    expected = output.losses["segmentation"] + 0.4 * output.losses["auxiliary"] + 0.3 * output.losses["ingredients"]
    torch.testing.assert_close(output.loss, expected)
    learned = tiny_segmenter(ingredient_head=True, loss_weighting="uncertainty").eval()
    with torch.no_grad():
        learned.task_weights.log_variances.copy_(torch.tensor([0.7, -0.2]))
    output = learned(**batch)
    one, two = output.losses["segmentation"], output.losses["ingredients"]
    weights = torch.exp(-torch.tensor([0.7, -0.2]))
    torch.testing.assert_close(output.loss, weights[0] * one + 0.35 + weights[1] * two - 0.1)


@pytest.fixture(scope="module")
def single_task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    randomise(tiny_segmenter()).save_pretrained(folder)
    return folder


def test_multitask_starts_from_encoder_and_head_of_a_single_task(single_task):
    donor = FlavourForSegmentation.from_pretrained(single_task)
    model = FlavourForSegmentation.from_single_task(str(single_task), loss_weighting="uncertainty", id2label=MASK_NAMES)
    own = model.state_dict()
    for name, value in donor.state_dict().items():
        assert torch.equal(value, own[name]), name
    assert {name.split(".")[0] for name in set(own) - set(donor.state_dict())} == {
        "ingredient_classifier",
        "task_weights",
    }
    pictures = mask_batch()["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(pictures).logits, donor.eval()(pictures).logits)


def changed(folder, out, change):
    """A copy of a checkpoint with other weights."""
    out.mkdir()
    weights = load_file(folder / "model.safetensors")
    change(weights)
    (out / "config.json").write_text((folder / "config.json").read_text())
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return str(out)


def test_no_weight_of_the_start_is_left_random(single_task, tmp_path):
    gap = changed(single_task, tmp_path / "gap", lambda weights: weights.pop("head.classifier.weight"))
    with pytest.raises(ValueError, match=r"missing: head.classifier.weight"):
        FlavourForSegmentation.from_single_task(gap)
    extra = changed(single_task, tmp_path / "extra", lambda weights: weights.update(stray=torch.ones(1)))
    with pytest.raises(ValueError, match="unexpected: stray"):
        FlavourForSegmentation.from_single_task(extra)
    with pytest.raises(ValueError, match=r"of another shape: .*head.pyramid.branches.0.0.weight \(8, 96, 1, 1\)"):
        FlavourForSegmentation.from_single_task(str(single_task), aspp_channels=4)
    with pytest.raises(ValueError, match="missing: auxiliary"):
        FlavourForSegmentation.from_single_task(str(single_task), auxiliary_head=True)
    with pytest.raises(ValueError, match=r"has other classes \(background, egg"):
        FlavourForSegmentation.from_single_task(str(single_task), id2label=dict(enumerate("abcde")))


def test_wrong_calls_and_parts_are_named():
    model, batch = tiny_segmenter(ingredient_head=True), mask_batch()
    with pytest.raises(ValueError, match="Give pixel_values"):
        model(labels=batch["labels"])
    with pytest.raises(ValueError, match="the background is no ingredient"):
        model(batch["pixel_values"], ingredient_targets=torch.zeros(4, MASK_CLASSES))
    with pytest.raises(ValueError, match=r"labels must have shape \(4, 32, 32\)"):
        model(batch["pixel_values"], labels=batch["labels"][:, :8])
    with pytest.raises(ValueError, match="has no ingredient head"):
        tiny_segmenter()(**batch)
    with pytest.raises(ValueError, match="stage of stride 4"):
        tiny_segmenter(vision_config=tiny_vit(), head="deeplabv3plus")
    with pytest.raises(ValueError, match="needs a backbone with stages"):
        tiny_segmenter(vision_config=tiny_vit(), auxiliary_head=True)
    with pytest.raises(ValueError, match="needs a vision_config"):
        FlavourForSegmentation(FlavourSegmentationConfig())
    with pytest.raises(ValueError, match="an encoder-decoder"):
        FlavourForSegmentation.from_parts(image=BertConfig(is_encoder_decoder=True))


def test_auto_classes_find_the_class_of_a_checkpoint(single_task):
    for auto_class in (AutoModel, AutoModelForSemanticSegmentation):
        assert type(auto_class.from_pretrained(single_task)) is FlavourForSegmentation
    saved = json.loads((single_task / "config.json").read_text())
    assert saved["auto_map"]["AutoModel"] == "modeling_flavour_segmentation.FlavourForSegmentation"
    assert saved["auto_map"]["AutoConfig"] == "configuration_flavour_segmentation.FlavourSegmentationConfig"


def test_pipeline_gives_masks_with_labels_and_areas_at_the_size_of_the_picture(tmp_path):
    randomise(tiny_segmenter(), seed=8).save_pretrained(tmp_path)
    FlavourProcessor.from_parts(image=tiny_resnet(), size=32, whole=True).save_pretrained(tmp_path)
    segmenter = pipeline("flavour-segmentation", model=str(tmp_path), trust_remote_code=True)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 72, 3), dtype=np.uint8))
    picture.save(tmp_path / "plate.png")
    found = segmenter(str(tmp_path / "plate.png"))
    assert len(found) > 1
    covered = np.zeros((48, 72), dtype=int)
    for entry in found:
        mask = np.asarray(entry["mask"]) == 255
        covered += mask
        assert entry["mask"].size == picture.size
        assert entry["area"] == pytest.approx(mask.mean())
        assert entry["label"] in set(MASK_NAMES.values()) - {"background"}
        assert 0 < entry["score"] <= 1
    assert covered.max() == 1
    assert [entry["area"] for entry in found] == sorted((entry["area"] for entry in found), reverse=True)
    many = segmenter([picture, picture], batch_size=2)
    assert [[entry["label"] for entry in each] for each in many] == [[entry["label"] for entry in found]] * 2
    assert all(entry["area"] >= 0.3 for entry in segmenter(picture, min_area=0.3))
    assert [entry["label"] for entry in segmenter(picture, top_k=1)] == [found[0]["label"]]
    for wrong, message in (({"min_area": 2}, "min_area is a share"), ({"top_k": 0}, "top_k must be at least 1")):
        with pytest.raises(ValueError, match=message):
            segmenter(picture, **wrong)


def test_pipeline_shows_where_things_are_in_a_wide_picture():
    """A model that answers to red finds it at its place, also far from the middle of a wide picture."""
    model = tiny_segmenter(id2label={0: "background", 1: "red"}).eval()

    def red_is_food(pixel_values):
        red = pixel_values[:, :1] - pixel_values[:, 1:2]
        return FlavourSegmenterOutput(logits=torch.cat([torch.full_like(red, 1.0), red], dim=1))

    model.forward = red_is_food
    scene = np.zeros((60, 120, 3), dtype=np.uint8)
    scene[10:30, 90:120, 0] = 255
    processor = FlavourProcessor.from_parts(image=tiny_resnet(), size=32, whole=True)
    (found,) = SegmentationPipeline(model, processor=processor)(scene)
    mask = np.asarray(found["mask"]) == 255
    truth = scene[..., 0] == 255
    assert (mask & truth).sum() / (mask | truth).sum() > 0.7
    with pytest.raises(ValueError, match="make it with whole=True"):
        SegmentationPipeline(model, processor=FlavourProcessor.from_parts(image=tiny_resnet(), size=32))


def test_ingredients_come_from_a_pipeline_too(tmp_path):
    model = randomise(tiny_segmenter(ingredient_head=True)).eval()
    processor = FlavourProcessor.from_parts(image=tiny_resnet(), size=32, whole=True)
    picture = Image.new("RGB", (40, 30), "green")
    found = IngredientPipeline(model, processor=processor)(picture)
    with torch.no_grad():
        expected = model(**processor(images=picture)).ingredient_logits[0].sigmoid()
    assert {entry["label"] for entry in found} == set(MASK_NAMES.values()) - {"background"}
    for entry in found:
        number = model.config.label2id[entry["label"]]
        assert entry["score"] == pytest.approx(expected[number - 1].item(), abs=1e-5)
    with pytest.raises(ValueError, match="has no ingredient head"):
        IngredientPipeline(tiny_segmenter(), processor=processor)(picture)
    with pytest.raises(ValueError, match="names ingredients only"):
        SegmentationPipeline(tiny_segmenter(head="none", ingredient_head=True), processor=processor)(picture)
