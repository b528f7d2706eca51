"""Self-critical training: captions are drawn, scored by CIDEr-D, and made likelier where they beat their siblings."""

from collections.abc import Sequence
from typing import Any

import torch

from modeling_flavour.captioning_pipeline_flavour import as_sentence
from modeling_flavour.modeling_flavour_captioning import FlavourCaptioner
from trainer_scripts.caption_scores import CiderD


class SelfCritical:
    """The loss of self-critical sequence training (Rennie et al. 2017), each draw judged by the others of its picture.

    For every picture some captions are drawn from the model itself. A caption's advantage is its CIDEr-D less the mean
    of the picture's other draws (Luo 2020, "A better variant of self-critical sequence training"), so that no second
    decoding is needed; the loss is minus advantage times log-probability. What the scores of a test would be is thus
    trained for directly, and with it how much a caption should name. Starts from a captioner that was trained on words.

    Args:
        references: captions of each picture, numbered as the batches' `rows` are.
        tokenizer: of the captioner.
        draws: captions per picture, at least 2.
    """

    def __init__(self, references: Sequence[Sequence[str]], tokenizer: Any, draws: int):
        self.cider = CiderD(references)
        self.tokenizer = tokenizer
        self.draws = draws

    def loss(self, model: Any, captioner: FlavourCaptioner, pixels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the loss of one batch, a mean over the tokens of all draws.

        Args:
            model: the captioner as it is trained, wrapped or not.
            captioner: the same, unwrapped, to draw from.
            pixels: `(batch, 3, height, width)`.
            rows: `(batch,)` number of each picture's references.
        """
        sequences = self.draw(captioner, pixels)
        advantages = self.advantages(sequences, rows.repeat_interleave(self.draws).tolist()).to(pixels.device)
        targets = sequences[:, 1:]
        real = targets != captioner.config.pad_token_id
        # One pass through the picture side serves all draws of a picture; its gradients sum up in DDP all the same.
        owners = torch.arange(len(pixels), device=pixels.device).repeat_interleave(self.draws)
        encoded = captioner.get_encoder()(pixels).of(owners)
        outputs = model(encoder_outputs=encoded, decoder_input_ids=sequences[:, :-1], use_cache=False)
        said = outputs.logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        return -(advantages[:, None] * said * real).sum() / real.sum()

    @torch.no_grad()
    def draw(self, captioner: FlavourCaptioner, pixels: torch.Tensor) -> torch.Tensor:
        """Return `draws` sequences per picture, `(batch * draws, length)`, drawn without dropout."""
        training = captioner.training
        captioner.eval()
        sequences = captioner.generate(
            encoder_outputs=captioner.get_encoder()(pixels),
            do_sample=True,
            num_beams=1,
            top_k=0,
            no_repeat_ngram_size=0,
            num_return_sequences=self.draws,
        )
        captioner.train(training)
        return sequences

    def advantages(self, sequences: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Return each draw's CIDEr-D less the mean of the other draws of its picture."""
        texts = [as_sentence(text) for text in self.tokenizer.batch_decode(sequences, skip_special_tokens=True)]
        rewards = torch.from_numpy(self.cider.scores(texts, rows)).float().unflatten(0, (-1, self.draws))
        others = (rewards.sum(1, keepdim=True) - rewards) / (self.draws - 1)
        return (rewards - others).flatten()
