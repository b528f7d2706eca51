"""Fine-tuning of real pipelines with random weights, and what stock diffusers makes of the results."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, StableDiffusionPipeline
from diffusers.training_utils import compute_snr
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from PIL import Image
from safetensors.torch import load_file

from dataset_builder import cli
from dataset_builder.errors import BadInputError
from dataset_builder.local_hub.store import card_errors
from dataset_builder.plating.pipeline import draw_plate
from dataset_builder.publishing.release import publish_model
from tests import tiny_pipelines
from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tiny_runs import interrupted_after
from trainer_scripts import train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.text_to_image.conditions import loss_weights
from trainer_scripts.tasks.text_to_image.model import attention_of
from trainer_scripts.tasks.text_to_image.samples import PromptSamples, collate
from trainer_scripts.tasks.text_to_image.scratch import denoiser_settings, load_autoencoder
from trainer_scripts.training.data import load_training_data

COMMON = (
    *("--task", "text_to_image", "--image_size", "64", "--max_train_samples", "16", "--precision", "fp32"),
    *("--per_device_train_batch_size", "8", "--eval_strategy", "steps", "--save_strategy", "steps"),
    *("--eval_steps", "2", "--save_steps", "2", "--max_steps", "4", "--learning_rate", "2e-3", "--lr_scheduler_type"),
    *("constant", "--warmup_steps", "0", "--use_cpu", "true", "--logging_steps", "1"),
)
KINDS = ("tiny_stable_diffusion", "tiny_stable_diffusion_xl", "tiny_pixart")


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines")
    return {kind: tiny_pipelines.save(getattr(tiny_pipelines, kind)(), folder / kind) for kind in KINDS}


@pytest.fixture
def fine_tune(small_dataset, tmp_path):
    """A function that trains and returns the folder of the run; all runs share the stored latents."""

    def run(name, *arguments, configuration="text_to_image_stable_diffusion"):
        folder = tmp_path / name
        stored = ("--features_dir", str(tmp_path / "features"), "--gradient_checkpointing", "false")
        quiet = ("--sample_pictures", "0", "--ema_decay", "none", "--warmup_steps", "0")
        given = ("--dataset", str(small_dataset), "--output_dir", str(folder), *COMMON, *stored, *quiet, *arguments)
        train.main([configuration, *given])
        return folder

    return run


def drawn(pipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    more = {} if hasattr(pipeline, "unet") else {"clean_caption": False, "use_resolution_binning": False}
    generator = torch.Generator().manual_seed(0)
    given = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np", **more}
    return pipeline("cake: tomato", generator=generator, **given).images[0]


def test_a_pipeline_learns_draws_and_goes_on_after_an_interruption(pipelines, fine_tune, monkeypatch):
    given = ("--pipeline", pipelines[KINDS[0]], "--max_steps", "8", "--ema_decay", "0.5")
    # Whole, with pictures of two prompts after each evaluation.
    whole = fine_tune("whole", *given, "--sample_pictures", "2", "--sample_steps", "2")
    metrics = read_metrics(whole)
    losses = [line["eval_denoising_loss"] for line in metrics["history"] if "eval_denoising_loss" in line]
    assert metrics["selection"]["denoising_loss"] == pytest.approx(min(losses))
    assert min(losses) < losses[0]
    assert metrics["trainable_parameters"] < metrics["parameters"]
    with Image.open(whole / "grid.png") as sheet:
        assert sheet.size == (2 * 64, 4 * 64)  # a row at steps 2, 4, 6 and 8
    assert not np.allclose(drawn(DiffusionPipeline.from_pretrained(pipelines[KINDS[0]])), drawn_from(whole), atol=0.02)
    card = (whole / "README.md").read_text()
    assert "pipeline_tag: text-to-image" in card
    assert "library_name: diffusers" in card
    assert "trust_remote_code" not in card

    with monkeypatch.context() as patch, interrupted_after(patch, 5):
        fine_tune("stopped", *given)
    # A checkpoint draws too.
    drawn_from(tmp := next((whole.parent / "stopped").glob("checkpoint-4")))
    assert (tmp / "metrics.json").is_file()
    resumed = fine_tune("stopped", *given)
    for name, value in load_file(whole / "unet" / "diffusion_pytorch_model.safetensors").items():
        assert torch.equal(value, load_file(resumed / "unet" / "diffusion_pytorch_model.safetensors")[name]), name


def drawn_from(folder) -> np.ndarray:
    return drawn(DiffusionPipeline.from_pretrained(folder))


def run_blocks_of(repo, monkeypatch, folder, *training) -> dict:
    """Run each block of a published card in a folder of its own; return what the Python one has defined."""
    card = Path(hf_hub_download(repo, "README.md", revision="v1.0.0")).read_text()
    assert card_errors(card) == []
    folder.mkdir()
    (folder / "recipes.csv").write_text("title,ingredients\nLemon tart,lemon; sugar; flour\n")
    monkeypatch.chdir(folder)
    names: dict = {}
    blocks = re.findall("```(\\w+)\n(.*?)```", ModelCard(card).text, re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "bash", "yaml"]  # the last one is the configuration
    exec(blocks[0][1], names)
    program, *words = shlex.split(blocks[1][1])
    if program == "flavour-sd":
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--steps", "1"])
        assert ended.value.code == 0
        assert (folder / "pictures" / "manifest.json").is_file()
    else:
        assert (program, words.pop(0)) == ("python", "trainer_scripts/train.py")
        train.main([*words, *training])
    return names


@pytest.mark.parametrize("kind", KINDS[:2])
def test_lora_weights_load_on_their_base_and_draw_as_the_merged_pipeline(
    pipelines, fine_tune, kind, connected_hub, monkeypatch, tmp_path
):
    # Other seeds of adapters would differ, so one run writes both.
    given = ("--pipeline", pipelines[kind], "--lora_rank", "2", "--lora_merge", "true", "--train_text_encoder", "true")
    folder = fine_tune("merged", *given)
    assert {path.name for path in (folder / "adapter").iterdir()} >= {"pytorch_lora_weights.safetensors"}
    base = DiffusionPipeline.from_pretrained(pipelines[kind])
    before = drawn(base)
    base.load_lora_weights(folder / "adapter")
    assert np.abs(drawn(base) - before).max() > 0.01
    assert np.abs(drawn(base) - drawn_from(folder)).max() < 1e-3
    if kind != KINDS[0]:
        return
    publish_model(folder, "org/drawer", "1.0.0", private=True)
    info = HfApi().model_info("org/drawer")
    assert info.private
    names = run_blocks_of("org/drawer", monkeypatch, tmp_path / "stranger")
    assert np.array_equal(drawn(names["pipeline"]), drawn_from(folder))
    # Its base was a folder of this machine, of which others learn the name alone.
    assert json.loads(Path(hf_hub_download("org/drawer", "config.json")).read_text())["base"] == kind
    assert str(tmp_path.parent) not in Path(hf_hub_download("org/drawer", "README.md")).read_text()
    assert not [one.rfilename for one in info.siblings if "adapter" in one.rfilename]
    # A part that the next version lacks goes with it, and a file of somebody's own stays.
    for name in ("safety_checker/config.json", "onnx/model.onnx"):
        HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo=name, repo_id="org/drawer")
    publish_model(folder, "org/drawer", "1.1.0")
    assert {"safety_checker/config.json", "onnx/model.onnx"} & set(HfApi().list_repo_files("org/drawer")) == {
        "onnx/model.onnx"
    }


def test_lora_weights_alone_and_their_card(pipelines, fine_tune, connected_hub, monkeypatch, tmp_path):
    base = pipelines[KINDS[0]]
    folder = fine_tune("lora", "--pipeline", base, configuration="text_to_image_stable_diffusion_lora")
    assert not (folder / "unet").exists()
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.load_lora_weights(folder)
    assert pipeline.get_list_adapters()
    with pytest.raises(BadInputError, match="give its id as base"):
        publish_model(folder, "org/look", "1.0.0")
    HfApi().create_repo("org/base")
    commit = HfApi().upload_folder(repo_id="org/base", folder_path=base).oid
    publish_model(folder, "org/look", "1.0.0", base="org/base", base_revision=commit)
    assert HfApi().model_info("org/look").card_data.base_model == "org/base"
    names = run_blocks_of("org/look", monkeypatch, tmp_path / "stranger")
    assert np.array_equal(drawn(names["pipeline"]), drawn(pipeline))


def test_a_diffusion_transformer_is_adapted_and_merged(pipelines, fine_tune, small_dataset, tmp_path, capsys):
    folder = fine_tune("dit", "--pipeline", pipelines["tiny_pixart"], "--lora_rank", "2")
    assert np.abs(drawn_from(folder) - drawn(DiffusionPipeline.from_pretrained(pipelines["tiny_pixart"]))).max() > 0.005


def test_stored_latents_and_texts_give_the_loss_of_computed_ones(pipelines, fine_tune):
    given = ("--pipeline", pipelines["tiny_stable_diffusion_xl"], "--max_steps", "2", "--prompt_template", "none")
    given = (*given, "--min_snr_gamma", "5", "--noise_offset", "0.1")
    stored, computed = (
        read_metrics(fine_tune(kind, *given, "--frozen_features", kind))["history"] for kind in ("store", "recompute")
    )
    first = [next(line["loss"] for line in history if "loss" in line) for history in (stored, computed)]
    assert first[0] == pytest.approx(first[1], rel=1e-4)
    evaluated = [next(line["eval_loss"] for line in each if "eval_loss" in line) for each in (stored, computed)]
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-4)


def test_a_pipeline_from_scratch_reads_our_words_in_stock_diffusers(fine_tune, tmp_path):
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, sample_size=64, mid_block_add_attention=False,
    )  # fmt: skip
    vae.save_pretrained(tmp_path / "vae")
    parts = {"unet": {"block_out_channels": [16, 16], "norm_num_groups": 8}}
    given = ("--vae", str(tmp_path / "vae"), "--config", json.dumps(parts), "--frozen_features", "auto")
    given = (
        *given,
        "--image_size",
        "32",
        "--text_config",
        '{"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}',
    )
    folder = fine_tune("scratch", *given, "--max_steps", "2", configuration="text_to_image_tiny")
    pipeline = DiffusionPipeline.from_pretrained(folder)
    assert type(pipeline) is StableDiffusionPipeline
    # A common ingredient is one word, and any other text is spelled.
    assert len(pipeline.tokenizer("tomato", add_special_tokens=False)["input_ids"]) == 1
    words = pipeline.tokenizer("zzyzx; tomato", add_special_tokens=False)["input_ids"]
    assert pipeline.tokenizer.decode(words).replace(" ", "") == "zzyzx;tomato"
    assert drawn(pipeline).shape == (64, 64, 3)


def test_a_denoiser_has_as_many_levels_as_channels_and_reads_words_in_the_smallest_two():
    settings = denoiser_settings({})
    assert settings["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
    settings = denoiser_settings({"block_out_channels": [32, 96], "attention_head_dim": 4})
    assert settings["up_block_types"] == ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
    assert settings["attention_head_dim"] == 4
    assert denoiser_settings({"block_out_channels": [16]})["down_block_types"] == ["CrossAttnDownBlock2D"]


def test_small_latents_on_a_cpu_are_attended_to_by_plain_products_in_training_alone():
    query = torch.randn(2, 1, 16, 8, requires_grad=True)
    fused = torch.nn.functional.scaled_dot_product_attention(query, query, query)
    with attention_of(torch.zeros(2, 4, 24, 24))():
        assert not torch.backends.cuda.flash_sdp_enabled()  # one switch for the kernels of all devices
        plain = torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert torch.backends.cuda.flash_sdp_enabled()
    torch.testing.assert_close(plain, fused)
    with attention_of(torch.zeros(2, 4, 64, 64))():
        assert torch.backends.cuda.flash_sdp_enabled()
    with torch.no_grad(), attention_of(torch.zeros(2, 4, 24, 24))():
        assert torch.backends.cuda.flash_sdp_enabled()


def test_the_autoencoder_of_the_package_keeps_a_plate_and_other_names_are_refused():
    vae = load_autoencoder("package:plates-autoencoder", None)
    plate, *_ = draw_plate("plate: tomato, feta, olive", 96, np.random.default_rng(0))
    pixels = torch.from_numpy(plate).permute(2, 0, 1)[None].float() * 2 - 1
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mean
        error = (vae.decode(latents).sample - pixels).abs().mean()
    assert latents.shape == (1, 4, 24, 24)
    assert error < 0.12
    for other in ("plates-vae", "plates-resnet18"):
        with pytest.raises(BadInputError, match=f"vae: no package of weights is called '{other}'; there are plates"):
            load_autoencoder(f"package:{other}", None)


def test_each_epoch_takes_one_of_the_captions_and_leaves_some_out(small_dataset):
    configuration = parse_configuration(["text_to_image_tiny", "--dataset", str(small_dataset)])
    table = load_training_data(configuration, with_test=False).train.first(8)
    prompts = [[f"{row} as a", f"{row} as b"] for row in range(8)]
    samples = PromptSamples(table, prompts, 32, text_dropout=0.25, choose=True, seed=3)
    seen = []
    for samples.epoch in range(40):
        seen += [samples[row]["prompt"] for row in range(8)]
    assert set(seen) == {"", *(each for row in prompts for each in row)}
    assert 0.15 < seen.count("") / len(seen) < 0.35
    again = PromptSamples(table, prompts, 32, text_dropout=0.25, choose=True, seed=3)
    again.epoch = 39
    assert [again[row]["prompt"] for row in range(8)] == seen[-8:]
    assert [PromptSamples(table, prompts, 32)[row]["prompt"] for row in (0, 5)] == ["0 as a", "5 as a"]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_the_paper(prediction):
    schedule = DDPMScheduler(prediction_type=prediction)
    ratio = compute_snr(schedule, torch.arange(1000))
    capped = torch.minimum(ratio, torch.tensor(5.0))
    expected = capped / ratio if prediction == "epsilon" else capped / (ratio + 1)
    assert torch.allclose(loss_weights(schedule, 5.0), expected, rtol=1e-4)


REFUSED = {
    "needs a start": ((), "starts from a pipeline"),
    "not a program": (("--pipeline", "plating"), "learns nothing"),
    "nothing there": (("--pipeline", "/nowhere/at/all"), "/nowhere/at/all"),
    "a size that does not fit": (("--pipeline", "SD", "--image_size", "65"), "multiple of 4; 64 is near"),
    "a layer that is not there": (("--pipeline", "SD", "--lora_rank", "2", "--lora_targets", "query"), "'query'"),
    "a template without its column": (
        ("--pipeline", "SD", "--columns", '{"title": "label_source", "ingredients": "nothing"}'),
        "no column 'nothing'",
    ),
    "adapters that it cannot load": (
        ("--pipeline", "DIT", "--lora_rank", "2", "--lora_merge", "false"),
        "loads no LoRA weights",
    ),
    "a stream": (("--pipeline", "SD", "--streaming", "true"), "streaming is for other tasks"),
    "a part of other models": (("--pipeline", "SD", "--freeze_text", "true"), "freeze_text is for other tasks"),
    "half of a row": (("--pipeline", "SD", "--modality", "image"), "reads texts and pictures"),
    "another task": (("--task", "captioning", "--noise_offset", "0.1"), "text_to_image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_line(case, pipelines, small_dataset, tmp_path, capsys):
    given, message = REFUSED[case]
    names = {"SD": pipelines[KINDS[0]], "DIT": pipelines["tiny_pixart"]}
    words = [names.get(word, word) for word in given]
    start = [] if "--pipeline" in words or case != "needs a start" else ["--pipeline", "none"]
    folder = tmp_path / "run"
    said = refused(
        capsys, train, "text_to_image_stable_diffusion", "--dataset", small_dataset, "--output_dir", folder, *COMMON,
        "--precision", "fp32", *start, *words,
    )  # fmt: skip
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not folder.exists()


def test_a_flow_is_no_noise_and_the_line_says_so(small_dataset, tmp_path, capsys):
    name = tiny_pipelines.save(tiny_pipelines.tiny_stable_diffusion_3(), tmp_path / "sd3")
    given = ("--dataset", small_dataset, "--output_dir", tmp_path / "run", *COMMON, "--pipeline", name)
    assert "SD3Transformer2DModel is not trained here" in refused(
        capsys, train, "text_to_image_stable_diffusion", *given
    )


def test_an_autoencoder_learns_and_its_latents_are_normal(small_dataset, tmp_path, connected_hub, monkeypatch):
    parts = {"block_out_channels": [8, 8], "norm_num_groups": 4, "latent_channels": 4}
    parts["perceptual"] = "package:plates-resnet18"
    folder = tmp_path / "run"
    given = ("--dataset", str(small_dataset), "--output_dir", str(folder), *COMMON[2:], "--image_size", "32")
    given = (
        *given,
        "--config",
        json.dumps(parts),
        "--ema_decay",
        "none",
        "--max_steps",
        "8",
        "--learning_rate",
        "5e-3",
    )
    train.main(["plates_autoencoder", *given])
    metrics = read_metrics(folder)
    errors = [line["eval_reconstruction_l1"] for line in metrics["history"] if "eval_reconstruction_l1" in line]
    assert errors[-1] < 0.92 * errors[0]
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    configuration = parse_configuration(["plates_autoencoder", *given])
    data = load_training_data(configuration, with_test=False)
    samples = PromptSamples(data.train, [[""]] * len(data.train), 32)
    pictures = collate([samples[row] for row in range(len(samples))])["pixel_values"]
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mean
        error = (vae.decode(latents).sample - pictures).abs().mean()
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.05
    assert (latents.std(dim=(0, 2, 3)) - 1).abs().max() < 0.05
    # Normalising the latents has not changed what they decode to.
    assert error < 1.2 * errors[-1]
    publish_model(folder, "org/plates", "1.0.0")
    training = ("--config", '{"unet": {"block_out_channels": [16, 16], "norm_num_groups": 8}}', *COMMON[2:])
    training = (*training, "--image_size", "32", "--max_steps", "2", "--text_config")
    training = (*training, '{"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}')
    training = (*training, "--dataset", str(small_dataset), "--output_dir", str(tmp_path / "drawer"))
    names = run_blocks_of("org/plates", monkeypatch, tmp_path / "stranger", *training, "--sample_pictures", "0")
    assert names["vae"].config.latent_channels == 4
    assert read_metrics(tmp_path / "drawer")["dishes"]
