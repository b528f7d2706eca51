"""The Trainer of captioners: evaluates by generating, and may keep the visual side fixed for the first epochs.

Self-critical training draws captions, scores them by CIDEr-D and makes those likelier that beat their siblings.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState

from modeling_flavour.captioning_pipeline_flavour import as_sentence
from modeling_flavour.modeling_flavour_captioning import FlavourCaptioner
from trainer_scripts.settings.training_arguments import TrainingArguments
from trainer_scripts.tasks.captioning.answers import caption_table, predictions_of, scores_of
from trainer_scripts.tasks.captioning.samples import CaptionSamples
from trainer_scripts.tasks.captioning.scores import CiderD
from trainer_scripts.tasks.common.trainer import WholeTableTrainer, check_finite


class FrozenImageFirst(TrainerCallback):
    """Keeps the image backbone fixed and in evaluation mode for the first epochs, then lets it train.

    Args:
        epochs: how long.
    """

    def __init__(self, epochs: float):
        self.epochs = epochs
        self._frozen_by_config = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        **kwargs: object,
    ) -> None:
        """Freeze the backbone, unless a resumed run is past these epochs."""
        self._frozen_by_config = model.config.freeze_image
        self._set(model, (state.epoch or 0) < self.epochs)

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        **kwargs: object,
    ) -> None:
        """Let the backbone train once the epochs are over."""
        # The epoch is a sum of fractions, which rounding may leave just below a whole number.
        if model.config.freeze_image and (state.epoch or 0) + 1e-6 >= self.epochs:
            self._set(model, False)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        **kwargs: object,
    ) -> None:
        """Leave the model as its configuration describes it."""
        self._set(model, False)

    def _set(self, model: FlavourCaptioner, frozen: bool) -> None:
        if self._frozen_by_config:
            return
        # The model keeps the parts that its config freezes in evaluation mode.
        model.config.freeze_image = frozen
        model.image_encoder.model.requires_grad_(not frozen)
        if model.training:
            model.train()


class CaptionTrainer(WholeTableTrainer):
    """Trainer whose evaluation writes a caption for every picture and scores it against all captions of the picture.

    Args:
        **kwargs: as for `FlavourTrainer`; `eval_dataset` must be `CaptionSamples`.
    """

    def __init__(self, *, args: TrainingArguments, **kwargs: Any):
        if args.frozen_image_epochs > 0:
            # Gradients of the fixed part are absent at first, which DDP otherwise takes for a fault.
            args.ddp_find_unused_parameters = True
        super().__init__(args=args, **kwargs)
        if args.frozen_image_epochs > 0:
            self.add_callback(FrozenImageFirst(args.frozen_image_epochs))
        self._self_critical = None
        if self.args.self_critical_draws:
            samples: Any = self.train_dataset
            self._self_critical = SelfCritical(
                samples.references(), samples.processor.tokenizer, self.args.self_critical_draws
            )
            # This loss is a mean over the batch, which the Trainer divides by accumulated batches.
            self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch: of the given words, or of drawn captions where training is self-critical."""
        if self._self_critical is None:
            if self._teacher is None or not model.training:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            taught = self._teacher.word_loss(outputs.logits, inputs, num_items_in_batch)
            loss = (1 - self._teacher.share) * loss + self._teacher.share * taught
            return (loss, outputs) if return_outputs else loss
        captioner = self.accelerator.unwrap_model(model)
        pictures, features = inputs.get("pixel_values"), inputs.get("image_features")
        return self._self_critical.loss(model, captioner, pictures, inputs["rows"], features)

    def score_samples(self, model: FlavourCaptioner, samples: CaptionSamples) -> tuple[dict[str, float], float]:
        """Return the scores of generated captions, and the cross-entropy of the given ones."""
        assert isinstance(samples, CaptionSamples)
        captions, expected = caption_table(model, samples, self.args.per_device_eval_batch_size)
        # Scores refuse NaN with an error for programmers; a diverged run gets the message with its remedies.
        check_finite(expected)
        scores = scores_of(predictions_of(samples.table, captions, expected))
        return scores, scores["cross_entropy"]


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

    def __init__(self, references: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, draws: int):
        self.cider = CiderD(references)
        self.tokenizer = tokenizer
        self.draws = draws

    def loss(
        self,
        model: torch.nn.Module,
        captioner: FlavourCaptioner,
        pixels: torch.Tensor | None,
        rows: torch.Tensor,
        features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss of one batch, a mean over the tokens of all draws.

        Args:
            model: the captioner as it is trained, wrapped or not.
            captioner: the same, unwrapped, to draw from.
            pixels: `(batch, 3, height, width)`, or None with features.
            rows: `(batch,)` number of each picture's references.
            features: stored outputs of the frozen image backbone in place of pixels.
        """
        sequences = self.draw(captioner, pixels, features)
        advantages = self.advantages(sequences, rows.repeat_interleave(self.draws).tolist()).to(sequences.device)
        targets = sequences[:, 1:]
        real = targets != captioner.config.pad_token_id
        # One pass through the picture side serves all draws of a picture; its gradients sum up in DDP all the same.
        owners = torch.arange(len(rows), device=sequences.device).repeat_interleave(self.draws)
        encoded = captioner.get_encoder()(pixels, features=features).of(owners)
        outputs = model(encoder_outputs=encoded, decoder_input_ids=sequences[:, :-1], use_cache=False)
        likelihoods = outputs.logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        return -(advantages[:, None] * likelihoods * real).sum() / real.sum()

    @torch.no_grad()
    def draw(
        self, captioner: FlavourCaptioner, pixels: torch.Tensor | None, features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return `draws` sequences per picture, `(batch * draws, length)`, drawn without dropout."""
        training = captioner.training
        captioner.eval()
        # From the whole distribution, without limits on tokens: the loss is an expectation under it.
        sequences = captioner.generate(
            encoder_outputs=captioner.get_encoder()(pixels, features=features),
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
        # A mean that contained the draw itself would bias the gradient.
        others = (rewards.sum(1, keepdim=True) - rewards) / (self.draws - 1)
        return (rewards - others).flatten()
