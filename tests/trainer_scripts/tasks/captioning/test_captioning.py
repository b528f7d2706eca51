"""Captioning in the trainer: freezing, the road from a table to scores, what is refused."""

import contextlib
import csv
import json
import shutil

import datasets
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from dataset_builder.engines.local import LocalEngine
from dataset_builder.errors import BadInputError
from dataset_builder.importers import import_table
from model_cards.runs import CONFIGURATION
from modeling_flavour.modeling_flavour_captioning import FlavourForTransformerCaptioning
from modeling_flavour.processing_flavour import FlavourProcessor
from tests.modeling_flavour.test_captioning import tiny_captioner
from tests.modeling_flavour.tiny import tiny_resnet
from tests.trainer_scripts.conftest import ROWS, make_row
from tests.trainer_scripts.tasks.captioning.conftest import tiny_arguments, tiny_processor_of
from trainer_scripts import compare, predict, score, train
from trainer_scripts.data.pictures import evaluation_picture
from trainer_scripts.data.tokenizer import wordpiece_vocabulary
from trainer_scripts.demos import all_cores
from trainer_scripts.evaluation.lines import MODEL, Line
from trainer_scripts.scoring.saved_model import load_model, load_table, load_train
from trainer_scripts.scoring.scored_models import LoadedModels
from trainer_scripts.scoring.spread import Answering, spread
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.captioning.comparing import faults
from trainer_scripts.tasks.captioning.samples import CaptionSamples
from trainer_scripts.tasks.captioning.scores import meteor_missing
from trainer_scripts.tasks.captioning.text import SPECIAL_TOKENS, train_caption_tokenizer
from trainer_scripts.tasks.captioning.trainer import FrozenImageFirst, SelfCritical
from trainer_scripts.tasks.captioning.training import (
    build,
    collator,
    read_captions,
)
from trainer_scripts.tasks.common.task import ScoringOptions
from trainer_scripts.training.data import load_training_data
from trainer_scripts.training.vocabulary_record import VOCABULARY_SOURCE


@pytest.fixture(scope="module")
def trained(caption_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "captioner"
    train.main(tiny_arguments("transformer", caption_data, out, "--num_train_epochs", "25", "--learning_rate", "5e-3",
                              "--ema_decay", "0.8", "--flip", "false", "--color_jitter", "0",
                              "--crop_scale", "1"))  # fmt: skip
    return out


def test_tokenizer_has_seen_training_captions_only(trained):
    vocabulary = json.loads((trained / "tokenizer.json").read_text())["model"]["vocab"]
    assert "rose" in vocabulary
    assert "unheardof" not in vocabulary
    assert not any("unh" in word for word in vocabulary)


def test_a_captioner_keeps_what_its_vocabulary_saw(trained):
    record = json.loads((trained / VOCABULARY_SOURCE).read_text())
    assert (record["split"], bool(record["texts"])) == ("train", True)


def test_training_chooses_on_validation_and_learns_to_name_what_it_sees(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["selection_split"] == "validation"
    assert metrics["selection_metric"] == "cider"
    assert metrics["selection"]["perplexity"] == pytest.approx(np.exp(metrics["selection"]["cross_entropy"]))
    history = [line["eval_cider"] for line in metrics["history"] if "eval_cider" in line]
    assert metrics["selection"]["cider"] == pytest.approx(max(history))


def test_scores_come_with_baselines_ablations_and_files(trained, caption_data, tmp_path, with_java, capsys):
    score.main([str(trained), str(caption_data), "--out", str(tmp_path)])
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["faults"] == []
    assert {"most frequent caption", "nearest picture by features"} <= set(content["baselines"])
    assert set(content["ablations"]) == {"image shuffled", "image blank"}
    assert content["metrics"]["cider"]["value"] > content["ablations"]["image shuffled"]["cider"]["value"]
    assert set(content["metrics"]["ingredient_f1"]) == {"value", "low", "high"}
    assert set(content["leads"]["most frequent caption"]["ingredient_f1"]) == {"value", "low", "high", "p"}
    assert content["details"]["truth"]["round_trip"]["rows"] == ROWS["test"]
    assert all((tmp_path / name).is_file() for name in content["files"])
    assert (meteor_missing() is None) is ("meteor" in content["metrics"])
    rows = list(csv.DictReader((tmp_path / "captions.csv").open()))
    assert len(rows) == ROWS["test"]
    assert all(row["Caption"][0].isupper() and "[" not in row["Caption"] for row in rows)
    results = json.loads((tmp_path / "captions.json").read_text())
    assert set(results[0]) == {"image_id", "caption"}
    assert (tmp_path / "contact_sheet.png").stat().st_size > 1000
    assert (tmp_path / "word_maps.png").stat().st_size > 1000
    assert "captioner" in capsys.readouterr().out


def test_workers_give_the_captions_of_one_process(trained, caption_data, monkeypatch):
    monkeypatch.setattr("trainer_scripts.scoring.spread.BATCHES_PER_UNIT", 1)
    saved = load_model(str(trained))
    table = load_table(saved, str(caption_data), "test")
    alone = saved.task.answers(saved, table, 16).parts
    asked = Answering(str(trained), "main", None, False, str(caption_data), "test", None, ScoringOptions(16))
    spread(LocalEngine(1), saved, table, asked)
    saved.model = None  # it answers no more
    answered = saved.task.answers(saved, table, 16).parts
    assert answered["captions"] == alone["captions"]
    assert np.array_equal(answered["tokens"][1], alone["tokens"][1])


def test_baselines_read_the_rows_of_training_at_the_given_revision(trained, caption_data, tmp_path, monkeypatch):
    revisions = []

    def recorded(name, revision=None, streaming=False):
        revisions.append(revision)
        return datasets.load_dataset(name, streaming=streaming)

    monkeypatch.setattr("trainer_scripts.data.splits.load_tables", recorded)
    # A run that learned from three rows alone: the nearest training pictures are among these.
    few = tmp_path / "few"
    shutil.copytree(trained, few)
    settings = yaml.safe_load((few / CONFIGURATION).read_text())
    (few / CONFIGURATION).write_text(yaml.safe_dump({**settings, "max_train_samples": 3}))
    asked = ["--dataset_revision", "v2", "--out", str(tmp_path / "scores")]
    score.main([str(few), str(caption_data), *asked])
    assert set(revisions) == {"v2"}
    model = load_model(str(few))
    known = {caption for row in load_train(model, str(caption_data), "v2").labels for caption in row}
    table = load_table(model, str(caption_data), "test")
    line = Line(model.name, MODEL, "image", model.task.answers(model, table, 64))
    compared = LoadedModels({model.name: model}, [line], {}, {model.name: table}, str(caption_data), "test")
    assert len(compared.train) == 3
    for line in model.task.baselines(compared):
        assert set(line.predictions.parts["captions"][1]) <= known, line.name


def test_score_and_compare_give_the_same_scores_intervals_and_baselines(trained, caption_data, tmp_path):
    score.main([str(trained), str(caption_data), "--out", str(tmp_path / "scores")])
    compare.main([str(trained), str(caption_data), "--out", str(tmp_path / "compared")])
    scored = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    compared = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    entries = compared["entries"]
    for name, value in scored["metrics"].items():
        if name != "meteor":
            assert value == pytest.approx(as_entry(entries["captioner"]["scores"][name])), name
    for line, values in scored["baselines"].items():
        for name in ("cider", "bleu_4", "ingredient_f1", "only_visible"):
            assert values[name]["value"] == pytest.approx(as_entry(entries[line]["scores"][name])["value"]), (
                line,
                name,
            )
        lead = scored["leads"][line]["ingredient_f1"]
        assert lead == pytest.approx(compared["differences"][line]["ingredient_f1"])
    losses = compared["ablations"]["captioner"]["losses"]
    assert scored["leads"]["image blank"]["cider"] == pytest.approx(losses["image blank"])


def as_entry(value):
    return value if isinstance(value, dict) else {"value": value}


def test_two_captioners_stand_side_by_side_by_picture(trained, caption_data, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(trained, twin)
    compare.main([str(trained), str(twin), str(caption_data), "--out", str(tmp_path / "out")])
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    lines = content["entries"]
    assert {"captioner", "twin", "most frequent caption", "nearest picture by features"} <= set(lines)
    assert {"cider", "bleu_4", "rouge_l", "ingredient_f1", "perplexity", "identical"} <= set(lines["twin"]["scores"])
    assert "perplexity" not in lines["most frequent caption"]["scores"]
    difference = content["differences"]["twin"]["cider"]
    assert (difference["value"], difference["p"]) == (0, 1)
    assert (
        content["ablations"]["captioner"]["scores"]["image blank"]["value"]
        < lines["captioner"]["scores"]["cider"]["value"]
    )
    assert any(line.startswith("- captioner: image is used") for line in content["verdicts"])
    rows = list(csv.DictReader((tmp_path / "out" / "by_row.csv").open()))
    assert np.mean([float(row["captioner: cider"]) for row in rows]) == pytest.approx(
        lines["captioner"]["scores"]["cider"]["value"], abs=1e-4
    )
    assert [row["captioner"] for row in rows] == [row["twin"] for row in rows]
    assert "## Beside other models" in (trained / "README.md").read_text()


def test_predictions_are_csv_and_coco_results(trained, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        (images / f"{number:012d}.png").write_bytes(make_row("test", number + 1)["image"]["bytes"])
    listing = tmp_path / "table.csv"
    listing.write_text("ImageID\n" + "".join(f"{number:012d}.png\n" for number in range(3)))
    out = tmp_path / "captions.csv"
    predict.main([str(trained), str(listing), "--images", str(images), "--out", str(out)])
    assert [row["ImageID"] for row in csv.DictReader(out.open())] == [f"{number:012d}.png" for number in range(3)]
    assert [each["image_id"] for each in json.loads(out.with_suffix(".json").read_text())] == [0, 1, 2]
    (images / f"{1:012d}.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as stop:
        predict.main([str(trained), str(listing), "--images", str(images), "--out", str(out)])
    assert stop.value.code == 2


def test_a_captioner_that_has_learned_nothing_fails_its_health_check(caption_data, tmp_path, capsys):
    out = tmp_path / "run"
    train.main(tiny_arguments("merge", caption_data, out, "--max_steps", "1", "--learning_rate", "1e-9"))
    with pytest.raises(SystemExit) as stop:
        score.main([str(out), str(caption_data), "--out", str(tmp_path / "scores")])
    assert stop.value.code == 2
    assert "fails the health check" in capsys.readouterr().err


def test_each_fault_is_named():
    assert faults(["a", "b"], ["a", "a"], True) == []
    assert "all 10 captions are equal" in faults(["a"] * 10, ["b"] * 10, True)[0]
    assert faults(["a", "a"], ["b", "b"], True) == []  # two alike pictures
    assert "all 2 captions are equal" in faults(["a", "a"], ["a", "a"], True)[0]
    assert "the pictures are not used" in faults(["a", "b"], ["a", "b"], True)[0]
    assert faults(["a"], ["a"], True) == []  # by chance
    assert "can be copied" in faults(["a", "b"], ["b", "b"], False)[0]


def test_drawn_captions_are_rewarded_against_their_siblings(table):
    processor = tiny_processor_of(table)
    references = [("A rose thing on the left.",), ("An umber thing on the right.",)]
    critic = SelfCritical(references, processor.tokenizer, draws=2)
    texts = ["a rose thing on the left .", "a umber thing .", "an umber thing on the right .", "a rose"]
    ids = processor.tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    advantages = critic.advantages(ids, [0, 0, 1, 1])
    assert advantages[0] > 0
    assert advantages[2] > 0
    torch.testing.assert_close(advantages[0::2], -advantages[1::2])


def test_self_critical_steps_raise_the_reward_of_what_is_drawn(trained, table):
    torch.manual_seed(0)
    model = FlavourForTransformerCaptioning.from_pretrained(trained).train()
    processor = FlavourProcessor.from_pretrained(trained)
    samples = CaptionSamples(table, processor, evaluation_picture(processor.image_processor), numbered=True)
    batch = collator(processor)([samples[row] for row in range(10)])
    assert batch["rows"].tolist() == list(range(10))
    critic = SelfCritical(samples.references(), processor.tokenizer, draws=5)
    rewards, score = [], critic.cider.scores

    def scores(texts, rows):
        rewards.append(score(texts, rows))
        return rewards[-1]

    critic.cider.scores = scores
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for _ in range(30):
        optimizer.zero_grad()
        critic.loss(model, model, batch["pixel_values"], batch["rows"]).backward()
        optimizer.step()
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.2


@pytest.mark.slow
def test_self_critical_configuration_goes_on_from_a_captioner_in_two_processes(
    trained, caption_data, tmp_path, monkeypatch
):
    monkeypatch.setattr(all_cores, "process_count", lambda rows: 2)
    critical = ["captioner_resnet18_transformer_self_critical_tiny", "--model_name_or_path", str(trained), "--dataset",
                str(caption_data), "--output_dir", str(tmp_path / "run"), "--crop_size", "32", "--use_cpu", "true",
                "--disable_tqdm", "true", "--max_steps", "2", "--generation", '{"num_beams": 2}']  # fmt: skip
    # DDP refuses its second step where a frozen part surprises it.
    all_cores.train_on_all_cores(critical)
    weights = [load_file(folder / "model.safetensors") for folder in (trained, tmp_path / "run")]
    changed = {name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])}
    assert any(name.startswith("decoder.") for name in changed)
    assert not any(name.startswith("image_encoder.model.") for name in changed)
    for more in (["--self_critical_draws", "1"], ["--quarter_turns", "true"]):
        with pytest.raises(SystemExit):
            train.main([*critical, *more, "--overwrite", "true"])


def test_a_captioner_goes_on_with_the_settings_that_fit_it(trained, caption_data, tmp_path):
    def go_on(config, *more):
        given = ["--model_name_or_path", str(trained), "--config", config, *more]
        configuration = parse_configuration(tiny_arguments("transformer", caption_data, tmp_path / "run", *given))
        return build(configuration, load_training_data(configuration))

    model, _ = go_on('{"dropout": 0.4}', "--label_smoothing_factor", "0.2", "--freeze_image", "true")
    assert (model.config.dropout, model.config.label_smoothing, model.config.freeze_image) == (0.4, 0.2, True)
    assert not any(parameter.requires_grad for parameter in model.image_encoder.model.parameters())
    for config, message in (
        ('{"place_loss_weight": 2.0}', "place_loss_weight: the masks show 6 classes .* has no head for them"),
        ('{"hidden_size": 64}', r"config.hidden_size 64 \(the checkpoint: 32\)"),
        ('{"decoder_type": "merge"}', r"config.decoder_type 'merge' \(the checkpoint: 'transformer'\)"),
    ):
        with pytest.raises(BadInputError, match=message):
            go_on(config)


def test_visual_side_is_fixed_for_the_first_epochs_only():
    model = tiny_captioner(FlavourForTransformerCaptioning, vision_config=tiny_resnet()).train()
    callback, state = FrozenImageFirst(2.0), TrainerState(epoch=0.0)
    callback.on_train_begin(None, state, TrainerControl(), model=model)
    backbone = model.image_encoder.model
    for epoch, frozen in ((0.0, True), (1.5, True), (2.0, False), (2.5, False)):
        state.epoch = epoch
        callback.on_step_begin(None, state, TrainerControl(), model=model)
        model.train()
        assert all(value.requires_grad != frozen for value in backbone.parameters())
        assert backbone.training != frozen
        assert model.decoder.training
    callback.on_train_end(None, state, TrainerControl(), model=model)
    assert not model.config.freeze_image


def test_bad_captions_and_settings_are_named(table, caption_data, tmp_path):
    with pytest.raises(Exception, match="row b: captions is empty"):
        read_captions({"captions": [["a"], [" "]]}, "captions", [], ["a", "b"], "here")
    with pytest.raises(Exception, match="holds no sentences"):
        read_captions({"captions": [[1]]}, "captions", [], ["a"], "here")
    assert read_captions({"caption": ["One."]}, "caption", [], ["a"], "here")[0] == ("One.",)
    for more, message in (
        (["--generation", '{"beams": 3}'], "generate.. has no setting 'beams'"),
        (["--modality", "fusion"], "reads pictures alone"),
        (["--config", '{"decoder_type": "rnn"}'], "decoder_type 'rnn' is none of transformer, merge"),
        (["--class_weights", "true"], "captions have no classes"),
    ):
        configuration = parse_configuration(tiny_arguments("transformer", caption_data, tmp_path / "run", *more))
        with pytest.raises(Exception, match=message):
            build(configuration, load_training_data(configuration))


def test_flickr8k_sample_from_import_to_scores(shared_data, tmp_path):
    import_table("flickr8k", shared_data / "flickr8k_sample", tmp_path / "data")
    out = tmp_path / "run"
    train.main(tiny_arguments("transformer", tmp_path / "data", out, "--num_train_epochs", "3", "--learning_rate",
                              "3e-3", "--captions_per_picture", "all", "--ema_decay", "0.5", "--generation",
                              '{"min_new_tokens": 5, "max_new_tokens": 12}'))  # fmt: skip
    # A hundred photographs teach no captioner, and the health check may well say so.
    with contextlib.suppress(SystemExit):
        score.main([str(out), str(tmp_path / "data"), "--split", "validation", "--out", str(tmp_path / "scores")])
    content = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert content["rows"] == 13
    assert content["details"]["truth"] is None
    assert content["metrics"]["bleu_1"]["value"] > 0
    assert content["metrics"]["perplexity"]["value"] < 200


def test_the_same_captions_give_the_same_word_pieces_in_every_process():
    captions = ["a bowl of rice with peas", "a plate of rice and beans", "two eggs on a bed of beans"] * 3
    tokenizer = train_caption_tokenizer(captions, "wordpiece", 80, 20)
    assert tokenizer.get_vocab() == wordpiece_vocabulary(captions, 80, SPECIAL_TOKENS)
