"""A small latent diffusion pipeline from scratch, around an autoencoder, which a stock StableDiffusionPipeline runs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from huggingface_hub import snapshot_download
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dataset_builder.boundaries import outside
from dataset_builder.catalogue.ingredients import VESSELS, ingredients
from dataset_builder.errors import BadInputError
from trainer_scripts.settings.arguments import PREFIX, ModelArguments
from trainer_scripts.tasks.common.package_weights import package_folder

# Of a Hub: in the root, or in the folder `vae`.
AUTOENCODER_FILES = ("config.json", "diffusion_pytorch_model*.safetensors*")
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
# Letters and signs that any prompt may hold; others become the unknown token.
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789,.:;'-&()"
# The denoiser and schedule unless the configuration says otherwise, for latents of 24 x 24.
UNET = {
    "block_out_channels": [32, 64, 128],
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "time_embedding_dim": 256,
}
HEAD_WIDTH = 32
READING_LEVELS = 2  # the smallest ones, where attention over all places is cheap
TEXT = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4}
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def vocabulary_of(texts: Iterable[str], size: int, length: int) -> CLIPTokenizer:
    """Return a tokenizer of CLIP's kind (byte pairs of lower-case words) trained on texts.

    Args:
        texts: that it learns frequent words from.
        size: largest vocabulary.
        length: longest prompt in tokens.
    """
    learned = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix=END_OF_WORD, unk_token=END))
    learned.normalizer = tokenizers.normalizers.Lowercase()
    learned.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=[BEGIN, END],
        initial_alphabet=list(ALPHABET),
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learned.train_from_iterator([*texts, *ALPHABET], trainer)
    model = json.loads(learned.to_str())["model"]
    return CLIPTokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        unk_token=END,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        model_max_length=length,
    )


def catalogue_texts() -> list[str]:
    """Return the names of all ingredients and vessels of the catalogue, which any prompt may name."""
    return [*VESSELS, *(item.name for item in ingredients())]


def load_autoencoder(name: str, revision: str | None) -> Any:
    """Return an autoencoder: that of this package (`package:NAME`), a folder or Hub id, or the one in a pipeline.

    Raises:
        BadInputError: there is none.
    """
    folder = package_folder(name.removeprefix(PREFIX), "vae") if name.startswith(PREFIX) else Path(name).expanduser()
    remedy = "give the folder or Hub id of an AutoencoderKL, or of a pipeline that has one"
    with outside(f"autoencoder {name!r} cannot be loaded", remedy):
        if not folder.is_dir():
            kept, left = [f"{place}{each}" for place in ("", "vae/") for each in AUTOENCODER_FILES], ["*.fp16.*"]
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=kept, ignore_patterns=left))
        inside = {"subfolder": "vae"} if (folder / "vae").is_dir() else {}
        return AutoencoderKL.from_pretrained(folder, use_safetensors=True, trust_remote_code=False, **inside)


def denoiser_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a denoiser: those given, and for the rest as many levels as it has channels.

    Args:
        given: fields of `UNet2DConditionModel`.
    """
    settings = {**UNET, **given}
    depth = len(settings["block_out_channels"])
    plain = max(0, depth - READING_LEVELS)
    derived = {
        "down_block_types": ["DownBlock2D"] * plain + ["CrossAttnDownBlock2D"] * (depth - plain),
        "up_block_types": ["CrossAttnUpBlock2D"] * (depth - plain) + ["UpBlock2D"] * plain,
        # The number of heads: by this name diffusers means it, and not their width.
        "attention_head_dim": [max(1, width // HEAD_WIDTH) for width in settings["block_out_channels"]],
    }
    return {**derived, **settings}


def fresh_pipeline(arguments: ModelArguments, texts: Sequence[str] = ()) -> StableDiffusionPipeline:
    """Return an untrained pipeline around a trained autoencoder.

    Args:
        arguments: `vae` names the autoencoder; `text_config` and the entries `unet` and `scheduler` of `config` change
            the parts.
        texts: training texts, whose frequent words the vocabulary takes in whole.

    Raises:
        BadInputError: there is no such autoencoder, or a part cannot be made.
    """
    assert arguments.vae is not None
    unknown = set(arguments.config) - {"unet", "scheduler"}
    if unknown:
        raise BadInputError(f"config: a pipeline has the parts unet and scheduler, and no {sorted(unknown)[0]!r}")
    vae = load_autoencoder(arguments.vae, arguments.model_revision)
    tokenizer = vocabulary_of([*catalogue_texts(), *texts], arguments.vocabulary_size, arguments.max_length)
    with outside("the parts of the pipeline cannot be made", "correct unet and scheduler in config, or text_config"):
        text = CLIPTextConfig(
            **{
                **TEXT,
                **{name: value for name, value in arguments.text_config.items() if name != "model_type"},
                "vocab_size": len(tokenizer),
                "max_position_embeddings": arguments.max_length,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            }
        )
        latent = {
            "sample_size": vae.config.sample_size // 2 ** (len(vae.config.block_out_channels) - 1),
            "in_channels": vae.config.latent_channels,
            "out_channels": vae.config.latent_channels,
            "cross_attention_dim": text.hidden_size,
        }
        return StableDiffusionPipeline(
            vae=vae,
            text_encoder=CLIPTextModel(text),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(**{**denoiser_settings(arguments.config.get("unet", {})), **latent}),
            scheduler=DDIMScheduler(**{**SCHEDULE, **arguments.config.get("scheduler", {})}),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
