"""Features of frozen backbones: the same training, computed once, reused, resumed, refused where they cannot be."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig

from modeling_flavour.modeling_flavour import FlavourForClassification
from trainer_scripts import score, train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.features import engines
from trainer_scripts.features import frozen as features
from trainer_scripts.features.engines import Backbone, ImageEngine, onnx_session
from trainer_scripts.features.storage import FINISHED
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training import run as training_run

VISION = (
    '{"model_type": "timm_wrapper", "architecture": "resnet10t", "model_args": {"stem_width": 8, '
    '"channels": [8, 8, 8, 8]}}'
)
TEXT = '{"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, '
TEXT += '"intermediate_size": 16}'
HEADS = {"text_dense_sizes": [16], "image_dense_sizes": [16], "head_dense_sizes": [8], "dropout": 0.1}
FROZEN = ("--freeze_image", "true", "--freeze_text", "true", "--image_size", "32", "--use_cpu", "true")
FROZEN += ("--num_train_epochs", "2", "--per_device_train_batch_size", "15", "--crop_scale", "1", "--flip", "false")
FROZEN += ("--color_jitter", "0", "--quarter_turns", "false", "--word_dropout", "0", "--precision", "fp32")
FROZEN += ("--text_config", TEXT, "--vision_config", VISION)
VARIED = ("--crop_scale", "0.5", "--flip", "true")


def arguments(folder, dataset, *more, **config):
    fields = {"text_pooling": "lstm", "lstm_hidden_size": 8, "lstm_layers": 1, **HEADS, **config}
    where = ("--dataset", str(dataset), "--output_dir", str(folder), "--features_dir", str(folder.parent / "features"))
    return ["flavour_fusion_tiny", *where, *FROZEN, "--config", json.dumps(fields), *more]


def run(folder, dataset, *more, **config):
    train.main(arguments(folder, dataset, *more, **config))
    return load_file(folder / "model.safetensors")


def count_extractions(monkeypatch):
    seen = []
    for extractor in (features.PictureExtractor, features.TextExtractor):
        load = extractor.load

        def counted(self, place, load=load):
            seen.append(type(self).__name__)
            return load(self, place)

        monkeypatch.setattr(extractor, "load", counted)
    return seen


@pytest.mark.parametrize(
    ("more", "config"),
    [
        ((), {}),
        ((), {"text_pooling": "mean", "fusion": "gated"}),
        ((), {"text_pooling": "mean", "fusion": "cross_attention", "fusion_size": 16, "fusion_heads": 2}),
        ((*VARIED, "--feature_views", "2"), {}),
        (("--crop_size", "24", "--feature_views", "1"), {}),
    ],
    ids=["lstm", "pooled", "tokens", "two random views", "a size of their own"],
)
def test_training_on_kept_features_equals_training_on_pictures_and_words(tmp_path, small_dataset, more, config):
    kept = run(tmp_path / "kept", small_dataset, "--frozen_features", "store", *more, **config)
    plain = run(tmp_path / "plain", small_dataset, "--frozen_features", "recompute", *more, **config)
    # Picture and title, two splits; where pictures vary, the familiar ones are training pictures as they are.
    assert len(list((tmp_path / "features").glob(f"*/{FINISHED}"))) == 4 + ("--feature_views" in more)
    for name, value in plain.items():
        assert torch.allclose(value, kept[name], atol=1e-5), name
    scores = [read_metrics(tmp_path / name)["selection"] for name in ("kept", "plain")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_samples_of_kept_features_hold_them_under_their_own_names(tmp_path, small_dataset, monkeypatch):
    batches = []
    forward = FlavourForClassification.forward

    def seen(self, **batch):
        batches.append({name: value.shape[1:] for name, value in batch.items() if value is not None})
        return forward(self, **batch)

    monkeypatch.setattr(FlavourForClassification, "forward", seen)
    run(tmp_path / "run", small_dataset, "--num_train_epochs", "1", text_pooling="mean", fusion="gated")
    assert batches
    for batch in batches:
        assert not {"pixel_values", "input_ids", "inputs_embeds"} & batch.keys()
        assert batch["image_features"] == (8,)
        assert batch["text_features"] == (16,)


@pytest.mark.parametrize("decoder", ["transformer", "merge"])
def test_captioners_learn_the_same_from_kept_features(tmp_path, small_dataset, decoder):
    settings = {"decoder_type": decoder, "hidden_size": 16, "intermediate_size": 16, "dropout": 0.0}
    settings |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    configuration = tmp_path / "captioner.yaml"
    configuration.write_text("task: captioning\nmodality: image\ntokenizer: words\nlabel_column: title\n")
    weights = []
    for how in ("store", "recompute"):
        options = arguments(tmp_path / how, small_dataset, "--frozen_features", how, "--config", json.dumps(settings))
        train.main([str(configuration), *options[1:]])
        weights.append(load_file(tmp_path / how / "model.safetensors"))
    assert (tmp_path / "features").is_dir()
    for name, value in weights[1].items():
        assert torch.allclose(value, weights[0][name], atol=1e-5), name


def test_later_runs_and_other_models_read_what_is_on_disk(tmp_path, small_dataset, monkeypatch):
    seen = count_extractions(monkeypatch)
    run(tmp_path / "first", small_dataset)
    # 60 + 30 rows of each part, and one of each file that tells the shape.
    assert len(seen) == 2 * (90 + 2)
    run(tmp_path / "again", small_dataset, "--learning_rate", "0.01", fusion="gated")
    assert len(seen) == 2 * (90 + 2)
    # Another preparation of the pictures is another file; the words are the same.
    run(tmp_path / "larger", small_dataset, "--image_size", "40")
    assert seen.count("TextExtractor") == 92
    assert seen.count("PictureExtractor") == 2 * 92


def test_scoring_reads_what_training_computed(tmp_path, small_dataset, monkeypatch):
    run(tmp_path / "run", small_dataset, "--ema_decay", "0.9")
    seen = count_extractions(monkeypatch)
    for split in ("train", "validation"):
        score.main([str(tmp_path / "run"), str(small_dataset), "--split", split, "--out", str(tmp_path / split)])
    assert seen == []


def test_a_zero_that_lost_its_sign_is_the_same_backbone():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    for module, zero in ((one, -0.0), (other, 0.0)):
        module.config = PreTrainedConfig()
        for value in module.parameters():
            torch.nn.init.constant_(value, zero)
    assert features.backbone_key(one) == features.backbone_key(other)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (VARIED, "--feature_views K keeps K random views"),
        (("--crop_size", "24"), "--feature_views K keeps K random views"),
        (
            ("--feature_views", "2"),
            "feature_views keeps random views for a frozen backbone, and no picture varies",
        ),
        (("--trainable_image_layers", "1"), "trainable_image_layers lets the last layers"),
        (("--word_dropout", "0.3"), "word_dropout makes other words unknown"),
        (("--freeze_image", "false", "--freeze_text", "false"), "freezes no backbone"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_reason(tmp_path, small_dataset, capsys, more, reason):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "run", small_dataset, "--frozen_features", "store", *more)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_by_default_what_cannot_be_kept_is_computed_and_the_reason_is_said(tmp_path, small_dataset, capsys):
    run(tmp_path / "run", small_dataset, *VARIED, "--num_train_epochs", "1")
    assert "the frozen image backbone is computed in every epoch: pictures vary at random" in capsys.readouterr().out


def test_the_saved_model_still_reads_pictures(tmp_path, small_dataset):
    run(tmp_path / "run", small_dataset)
    model = FlavourForClassification.from_pretrained(tmp_path / "run").eval()
    tokens = torch.tensor([[1, 2, 3]])
    assert model(input_ids=tokens, pixel_values=torch.zeros(1, 3, 32, 32)).logits.shape == (1, 5)


def test_the_graph_says_what_the_backbone_says(small_dataset, tmp_path):
    configuration = parse_configuration(arguments(tmp_path / "run", small_dataset, "--modality", "image"))
    data = training_run.load_training_data(configuration)
    model, _ = data.task.build(configuration, data)
    pytest.importorskip("onnxruntime")
    backbone = Backbone(model.image_encoder).eval()
    pictures = torch.rand(2, 3, 32, 32)
    session = onnx_session(backbone, pictures[:1])
    with torch.no_grad():
        expected = backbone(pictures)
    for row in range(2):
        found = session.run(None, {"pixel_values": pictures[row : row + 1].numpy()})[0]
        assert torch.allclose(torch.from_numpy(found), expected[row : row + 1], atol=1e-5)


@pytest.mark.parametrize(("factor", "trusted"), [(1 + 5e-6, True), (1 + 2e-5, False)])
def test_a_graph_that_differs_by_more_than_a_hundred_thousandth_is_not_used(monkeypatch, factor, trusted):
    monkeypatch.setattr(engines, "has_onnxruntime", lambda: True)
    encoder = FlavourForClassification.from_parts(image=json.loads(VISION), image_dense_sizes=[]).image_encoder.eval()
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = ImageEngine(encoder, False, 1).batch(picture[None])

    class Session:
        """Answers with another factor on all values, as another order of additions may."""

        def run(self, outputs, inputs):
            return [expected * factor]

    monkeypatch.setattr(engines, "onnx_session", lambda backbone, example: Session())
    engine = ImageEngine(encoder, False, engines.WORTH_A_GRAPH)
    engine.prepare(picture)
    assert engine.by_picture is trusted
