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
    FluxPipeline,
    FluxTransformer2DModel,
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


def tiny_flux() -> FluxPipeline:
    """Return a `FluxPipeline` (joint attention with rotary positions) for pictures of 64 x 64."""
    torch.manual_seed(0)
    clip, t5 = clip_tokenizer(), _t5_tokenizer()
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    _sharpen(transformer)
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        text_encoder=CLIPTextModel(_clip_text_config(clip)).eval(),
        tokenizer=clip,
        text_encoder_2=_t5_encoder(t5, 32),
        tokenizer_2=t5,
    )


def save(pipeline: DiffusionPipeline, folder: Path) -> str:
    """Save a pipeline as a folder that `DiffusionPipeline.from_pretrained` reads, and return its name."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    return str(folder)


def ldm_weights(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """Return the weights of a tiny Stable Diffusion by the names that single-file checkpoints have.

    The names are those of the latent diffusion code (Rombach et al. 2022), of two blocks with one layer each.
    """
    both = [("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3")]
    both += [("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection")]
    unet = [("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2")]
    unet += [("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2")]
    unet += [("mid_block.attentions.0", "middle_block.1"), ("mid_block.resnets.0", "middle_block.0")]
    unet += [("mid_block.resnets.1", "middle_block.2"), ("down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op")]
    # The sampler of a block with attention comes after both.
    unet += [("up_blocks.0.upsamplers.0", "output_blocks.1.2")]
    for block in range(2):
        unet.append((f"down_blocks.{block}.resnets.0", f"input_blocks.{2 * block + 1}.0"))
        unet.append((f"down_blocks.{block}.attentions.0", f"input_blocks.{2 * block + 1}.1"))
        for layer in range(2):
            unet.append((f"up_blocks.{block}.resnets.{layer}", f"output_blocks.{2 * block + layer}.0"))
            unet.append((f"up_blocks.{block}.attentions.{layer}", f"output_blocks.{2 * block + layer}.1"))
    vae = [("conv_norm_out", "norm_out"), ("mid_block.attentions.0", "mid.attn_1"), ("conv_shortcut", "nin_shortcut")]
    vae += [("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"), ("group_norm", "norm")]
    vae += [("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")]
    for block in range(2):
        vae.append((f"down_blocks.{block}.downsamplers.0", f"down.{block}.downsample"))
        vae.append((f"up_blocks.{block}.upsamplers.0", f"up.{1 - block}.upsample"))
        for layer in range(2):
            vae.append((f"down_blocks.{block}.resnets.{layer}", f"down.{block}.block.{layer}"))
            vae.append((f"up_blocks.{block}.resnets.{layer}", f"up.{1 - block}.block.{layer}"))

    def renamed(name: str, pairs: list[tuple[str, str]]) -> str:
        for ours, theirs in pairs:
            name = f".{name}.".replace(f".{ours}.", f".{theirs}.").strip(".")
        return name

    weights = {}
    for name, value in pipeline.unet.state_dict().items():
        theirs = renamed(name, unet)
        weights[f"model.diffusion_model.{renamed(theirs, both) if 'resnets' in name else theirs}"] = value
    for name, value in pipeline.vae.state_dict().items():
        weights[f"first_stage_model.{renamed(name, vae)}"] = value
    for name, value in pipeline.text_encoder.state_dict().items():
        weights[f"cond_stage_model.transformer.text_model.{name}"] = value
    return {name: value.contiguous() for name, value in weights.items()}
