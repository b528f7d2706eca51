"""Pictures drawn from texts by latent diffusion: fine-tuning of pipelines of diffusers."""
