"""Real text-to-image pipelines with a few thousand random weights, built from configuration alone."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789:,.;-'&()"


def clip_tokenizer() -> CLIPTokenizer:
    """Return a tokenizer of single letters."""
    # Letters alone make every word a run of several tokens, as rare food words are in the real vocabulary.
    pieces = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], model_max_length=77)


def _clip_text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        projection_dim=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def _t5_tokenizer() -> PreTrainedTokenizerFast:
    pieces = ["<pad>", "</s>", "<unk>", *(f"{mark}{letter}" for mark in ("", "▁") for letter in _LETTERS)]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def _t5_encoder(tokenizer: PreTrainedTokenizerFast, width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0)
    ).eval()


def _sharpen(denoiser: torch.nn.Module) -> None:
    # Fresh weights attend to all words alike; trained ones do not.
    for name, layer in denoiser.named_modules():
        if name.endswith(("to_q", "to_k", "add_k_proj")):
            torch.nn.init.normal_(layer.weight, std=0.5)


def _vae(latent_channels: int = 4, **settings) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=[16, 32],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=64,
        **settings,
    ).eval()


def tiny_stable_diffusion() -> StableDiffusionPipeline:
    """Return a `StableDiffusionPipeline` (UNet with cross-attention) for pictures of 64 x 64."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=8,
    ).eval()
    _sharpen(unet)
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip_text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_stable_diffusion_xl() -> StableDiffusionXLPipeline:
    """Return a `StableDiffusionXLPipeline` (two text encoders, size conditioning) for pictures of 64 x 64."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,  # six numbers of eight each, and a text of sixteen
    ).eval()
    _sharpen(unet)
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip_text_config(tokenizer)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_clip_text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(timestep_spacing="trailing"),
        add_watermarker=False,
    )


def tiny_pixart() -> PixArtAlphaPipeline:
    """Return a `PixArtAlphaPipeline` (diffusion transformer with cross-attention layers) for pictures of 64 x 64."""
    torch.manual_seed(0)
    tokenizer = _t5_tokenizer()
    transformer = PixArtTransformer2DModel(
        sample_size=32,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=16,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=16,
        use_additional_conditions=False,
    ).eval()
    _sharpen(transformer)
    # The authors start the last layer at zero, which would make every picture of random weights equal.
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)
    return PixArtAlphaPipeline(
        tokenizer=tokenizer,
        text_encoder=_t5_encoder(tokenizer, 16),
        vae=_vae(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


def tiny_stable_diffusion_3() -> StableDiffusion3Pipeline:
    """Return a `StableDiffusion3Pipeline` (joint attention over picture and text) for pictures of 64 x 64."""
    torch.manual_seed(0)
    clip, t5 = clip_tokenizer(), _t5_tokenizer()
    encoders = [CLIPTextModelWithProjection(_clip_text_config(clip)).eval() for _ in range(2)]
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        out_channels=4,
    ).eval()
    _sharpen(transformer)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        text_encoder=encoders[0],
        tokenizer=clip,
        text_encoder_2=encoders[1],
        tokenizer_2=clip,
        text_encoder_3=_t5_encoder(t5, 32),
        tokenizer_3=t5,
    )


def save(pipeline: DiffusionPipeline, folder: Path) -> str:
    """Save a pipeline as a folder that `DiffusionPipeline.from_pretrained` reads, and return its name."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    return str(folder)
