"""The classification pipeline and the explanation, from a saved folder."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling_flavour import FlavourProcessor
from modeling_flavour.pipelines_flavour import FlavourClassificationPipeline

from .contract import randomise
from .family import FAMILY
from .tiny import tiny_classifier, tiny_resnet, tiny_tokenizer, tiny_vit


@pytest.fixture(scope="module")
def processor():
    return FlavourProcessor.from_parts(text=tiny_tokenizer(), image=tiny_resnet(), size=32)


@pytest.fixture(scope="module")
def model():
    return randomise(tiny_classifier(vision_config=tiny_resnet(), modality_dropout=0.3)).eval()


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model, processor, picture):
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    picture.save(folder / "picture.png")
    return folder


@pytest.fixture(scope="module")
def pipe(saved):
    return pipeline("flavour-classification", model=str(saved), trust_remote_code=True)


def test_scores_are_the_models_probabilities(pipe, model, processor, picture):
    answer = pipe(image=picture, text="greek salad")
    with torch.no_grad():
        expected = model(**processor(images=picture, text="greek salad")).logits.softmax(-1)[0]
    assert {entry["label"] for entry in answer} == set(model.config.label2id)
    for entry in answer:
        assert entry["score"] == pytest.approx(expected[model.config.label2id[entry["label"]]].item(), abs=1e-5)
    assert [entry["score"] for entry in answer] == sorted((entry["score"] for entry in answer), reverse=True)


def test_batches_may_mix_samples_of_any_kind(pipe, saved, picture):
    samples = [
        {"image": str(saved / "picture.png"), "text": "greek salad"},
        {"image": np.asarray(picture)},
        {"text": "tart lemon soup"},
        {"image": (saved / "picture.png").as_uri().replace("file://", ""), "text": "soup"},
    ]
    singles = [pipe(sample) for sample in samples]
    for size in (1, 3):
        together = pipe(samples, batch_size=size)
        for one, other in zip(singles, together, strict=True):
            assert [entry["label"] for entry in one] == [entry["label"] for entry in other]
            assert [e["score"] for e in one] == pytest.approx([e["score"] for e in other], abs=1e-5)
    assert singles[0] == pipe({"image": picture, "text": "greek salad"})
    assert [len(entry) for entry in pipe(samples, top_k=2)] == [2] * 4
    assert next(iter(pipe(sample for sample in samples))) == singles[0]


def test_bad_samples_are_refused(pipe, picture):
    for sample, message in (
        ({}, "neither a picture nor a text"),
        ({"image": picture, "titel": "soup"}, "got also: titel"),
        ("greek salad", "picture or a text"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe([sample])
    with pytest.raises(ValueError, match="top_k"):
        pipe(image=picture, top_k=0)
    with pytest.raises(ValueError, match="not both"):
        pipe([picture], image=picture)


def test_a_call_may_take_back_what_the_pipeline_was_made_with(saved, picture):
    pipe = pipeline("flavour-classification", model=str(saved), trust_remote_code=True, top_k=2)
    assert [len(pipe(image=picture, **given)) for given in ({}, {"top_k": 1}, {"top_k": None}, {})] == [2, 1, 5, 2]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("fusion-early", "flavour-classification"),
        ("captioner-merge", "flavour-captioning"),
        ("segmenter", "flavour-segmentation"),
    ],
)
def test_a_saved_pipeline_is_whole(name, task, picture, tmp_path):
    FAMILY[name].build().save_pretrained(tmp_path / "model")
    FAMILY[name].processor().save_pretrained(tmp_path / "model")
    pipe = pipeline(task, model=str(tmp_path / "model"), trust_remote_code=True)
    pipe.save_pretrained(tmp_path / "pipe")
    again = pipeline(task, model=str(tmp_path / "pipe"), trust_remote_code=True)
    assert again.processor.max_length == pipe.processor.max_length
    given = {"image": picture, "text": "greek salad"} if name == "fusion-early" else picture
    one, other = pipe(given), again(given)
    assert one
    for entry, same in zip(one, other, strict=True):
        assert entry["score"] == pytest.approx(same["score"], abs=1e-4)


def test_text_model_takes_plain_texts_and_several_labels_stand_for_themselves():
    model = randomise(tiny_classifier(vision_config=None, problem_type="multi_label_classification"))
    pipe = FlavourClassificationPipeline(model, processor=FlavourProcessor(tokenizer=tiny_tokenizer()))
    answer = pipe(["greek salad", "soup"])
    assert len(answer) == 2
    assert sum(entry["score"] for entry in answer[0]) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("fusion", ["early", "cross_attention"])
@pytest.mark.parametrize("vision", [tiny_resnet, tiny_vit])
def test_explanation_accounts_for_the_prediction(processor, picture, fusion, vision):
    model = randomise(tiny_classifier(vision_config=vision(), fusion=fusion, freeze_image=True))
    text = "greek salad with feta"
    reasons = model.explain(processor, picture, text, label="bitter")
    with torch.no_grad():
        inputs = processor(images=picture, text=text)
        bitter = model.config.label2id["bitter"]
        probability = model(**inputs).logits.softmax(-1)[0, bitter].item()
        nothing = torch.tensor([False])
        absent = {**inputs, "text_present": nothing, "image_present": nothing}
        neither = model(**absent).logits.softmax(-1)[0, bitter].item()
        without = model(**processor(images=picture, text="greek salad feta")).logits.log_softmax(-1)[0, bitter].item()
    assert reasons.label == "bitter"
    assert reasons.probability == pytest.approx(probability, abs=1e-5)
    assert sum(reasons.shares.values()) == pytest.approx(probability - neither, abs=1e-5)
    assert [word for word, _ in reasons.words] == text.split()
    assert reasons.words[2][1] == pytest.approx(np.log(probability) - without, abs=1e-4)
    assert reasons.heatmap.shape == (32, 32)
    assert reasons.heatmap.min() >= 0
    assert reasons.heatmap.max() == 0 or reasons.heatmap.max() == pytest.approx(1)  # 0: nothing speaks for it
    assert all(value.grad is None for value in model.parameters())


def test_heat_map_lies_where_the_evidence_is(processor):
    """A network that answers to red in one corner is explained by that corner."""
    model = randomise(tiny_classifier(text_config=None, vision_config=tiny_resnet(), image_dense_sizes=[]))
    scene = np.zeros((32, 32, 3), np.uint8)
    scene[:16, :16, 0] = 255

    class RedDetector(torch.nn.Module):
        channels = model.image_encoder.token_size

        def forward(self, pixel_values, return_dict=True, do_pooling=True):
            states = torch.nn.functional.avg_pool2d(pixel_values[:, :1], 8).relu().repeat(1, self.channels, 1, 1)
            return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=states.mean((2, 3)))

    with torch.no_grad():
        for value in model.parameters():
            value.abs_()
        model.classifier.weight[1:] *= -1
    detector = RedDetector()
    detector.timm_model = None
    model.image_encoder.model = detector
    heatmap = model.explain(FlavourProcessor(processor.image_processor), scene, label="sweet").heatmap
    assert heatmap[:12, :12].mean() > 10 * heatmap[20:, 20:].mean() + 0.1


def test_heat_map_equals_that_of_an_independent_library(processor, picture):
    hires_cam = pytest.importorskip("pytorch_grad_cam").HiResCAM
    model = randomise(tiny_classifier(text_config=None, vision_config=tiny_resnet())).eval()
    processor = FlavourProcessor.from_parts(image=tiny_resnet(), size=128)

    class LogProbabilities(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pixel_values):
            return self.model(pixel_values=pixel_values).logits.log_softmax(-1)

    pixel_values = processor(images=picture)["pixel_values"]
    for label, number in model.config.label2id.items():
        ours = model.explain(processor, picture, label=label).heatmap
        with hires_cam(LogProbabilities(), [model.image_encoder.model.timm_model.layer4]) as cam:
            theirs = cam(pixel_values, targets=[lambda scores, n=number: scores[n]])[0]
        assert ours.shape == theirs.shape == (128, 128)
        if theirs.max() > 0:
            theirs = theirs / theirs.max()
            assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99, label


@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
def test_explanation_needs_no_gradients_around_it(model, processor, picture, switch):
    expected = model.explain(processor, picture, "greek salad")
    with switch():
        reasons = model.explain(processor, picture, "greek salad")
    np.testing.assert_allclose(reasons.heatmap, expected.heatmap, atol=1e-5)
    assert reasons.shares == pytest.approx(expected.shares)


def test_a_blank_text_is_none_to_explain(model, processor, picture):
    reasons = model.explain(processor, picture, "  ")
    assert reasons.words is None
    assert reasons.shares is None
    with pytest.raises(ValueError, match="at least one picture or text"):
        model.explain(processor, text=" ")


def test_explanation_of_one_part_and_its_figure(model, processor, picture, tmp_path):
    text_only = model.explain(processor, text="greek salad")
    assert text_only.heatmap is None
    assert text_only.shares is None
    assert [len(model.explain(processor, picture, "soup").figure().axes), len(text_only.figure().axes)] == [3, 1]
    model.explain(processor, picture, "soup").figure().savefig(tmp_path / "figure.png")
    with pytest.raises(ValueError, match="no label 'spicy': choose one of sweet"):
        model.explain(processor, picture, label="spicy")
