"""The contract that every model class of the family keeps, as tests to inherit.

Subclass `ModelContract`, name it `Test...`, and give it `build` and `batch`. Weights are drawn afresh before each
comparison: at their initial values the logits hardly depend on the inputs, and equal outputs would show nothing.

Remote code, which needs a process of its own, is tested for all classes at once in `test_remote_code.py`.
"""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, Trainer, TrainingArguments


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Draw weights and running statistics at which outputs depend strongly on inputs; padding vectors stay zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                continue
            if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
                value.uniform_(0.8, 1.2, generator=generator)
            else:
                fan_in = value[0].numel() if value.ndim > 1 else 4
                value.normal_(0, fan_in**-0.5, generator=generator)
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
    return model


def rows(batch: dict[str, torch.Tensor], which) -> dict[str, torch.Tensor]:
    """Some samples of a batch."""
    return {name: value[which] for name, value in batch.items()}


class Samples(torch.utils.data.Dataset):
    """A batch as a data set of single samples, for `Trainer`."""

    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return len(self.batch["labels"])

    def __getitem__(self, number):
        return rows(self.batch, number)


class ModelContract:
    """Tests of one model class at one tiny configuration."""

    # Config fields with values of a wrong type or outside their range.
    wrong_fields: tuple[tuple[str, object], ...] = ()
    # A weight of the head, dropped from a checkpoint to see that only it is drawn anew.
    head_weight = "classifier.weight"
    # Endings of trainable parameters whose gradient is zero by construction: softmax ignores a constant in its keys.
    flat_parameters = ("key.bias", "k_proj.bias")
    tests_attention = False
    overfit_steps = 200
    overfit_rate = 1e-2

    def build(self, **overrides) -> PreTrainedModel:
        """A tiny model without dropout; `overrides` are config fields."""
        raise NotImplementedError

    def batch(self, size: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
        """Inputs with `labels`, incomplete samples and padding included where the model knows them."""
        raise NotImplementedError

    def pad(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
        """The same batch with more padding; `None` where nothing is padded."""
        return None

    def logits(self, model, batch) -> torch.Tensor:
        with torch.no_grad():
            return model(**batch).logits

    def test_config_survives_its_file(self, tmp_path):
        config = self.build().config
        config.save_pretrained(tmp_path)
        again = type(config).from_pretrained(tmp_path)
        saved, loaded = config.to_dict(), again.to_dict()
        for values in (saved, loaded):
            values.pop("_name_or_path", None)
        assert json.dumps(saved, sort_keys=True, default=str) == json.dumps(loaded, sort_keys=True, default=str)

    def test_config_refuses_wrong_values(self):
        config_class = type(self.build().config)
        with pytest.raises(TypeError, match="no field 'no_such_field'"):
            config_class(no_such_field=1)
        for field, value in self.wrong_fields:
            with pytest.raises(Exception, match=field):
                self.build(**{field: value})

    def test_saved_model_is_the_same_model(self, tmp_path):
        model = randomise(self.build()).eval()
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path).eval()
        state = again.state_dict()
        assert set(state) == set(model.state_dict())
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name
        buffers = dict(again.named_buffers())
        for name, value in model.named_buffers():
            assert torch.equal(value, buffers[name]), name
        trainable = [name for name, value in model.named_parameters() if value.requires_grad]
        assert trainable == [name for name, value in again.named_parameters() if value.requires_grad]
        batch = self.batch()
        expected = self.logits(model, batch)
        torch.testing.assert_close(self.logits(again, batch), expected, rtol=1e-3, atol=1e-5)
        # Loaded weights lie in a mapped file, where kernels may add in another order: a copy lies as the original does.
        torch.testing.assert_close(self.logits(copy.deepcopy(again), batch), expected, rtol=0, atol=0)

    def test_missing_weight_is_drawn_anew_alone(self, tmp_path):
        model = randomise(self.build())
        model.save_pretrained(tmp_path)
        file = tmp_path / "model.safetensors"
        weights = load_file(file)
        del weights[self.head_weight]
        save_file(weights, file, metadata={"format": "pt"})
        again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
        assert set(report["missing_keys"]) == {self.head_weight}
        for name, value in model.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]) == (name != self.head_weight), name
        assert again.state_dict()[self.head_weight].isfinite().all()

    def test_trainable_parameters_get_gradients_and_frozen_ones_none(self):
        model = randomise(self.build()).train()
        before = {name: value.clone() for name, value in model.named_buffers()}
        model(**self.batch(8)).loss.backward()
        frozen = {id(value) for module in model.frozen_modules() for value in module.parameters()}
        frozen -= {id(value) for module in model.trainable_modules() for value in module.parameters()}
        for name, value in model.named_parameters():
            if id(value) in frozen:
                assert value.grad is None, f"{name} is frozen"
                continue
            assert value.grad is not None, f"{name} is not reached"
            assert value.grad.isfinite().all(), name
            assert value.grad.abs().sum() > 0 or name.endswith(self.flat_parameters), f"{name} has no gradient"
        frozen_buffers = {id(value) for module in model.frozen_modules() for value in module.buffers()}
        for name, value in model.named_buffers():
            assert id(value) not in frozen_buffers or torch.equal(value, before[name]), f"{name} is frozen and moved"

    def test_batch_equals_its_samples(self):
        model = randomise(self.build()).eval()
        batch = self.batch(4)
        together = self.logits(model, batch)
        assert together.std(dim=0).max() > 1e-3, "the samples must differ for this to show anything"
        for number in range(4):
            alone = self.logits(model, rows(batch, slice(number, number + 1)))
            torch.testing.assert_close(alone[0], together[number], rtol=1e-4, atol=1e-5)

    def test_padding_changes_nothing(self):
        batch = self.batch(4)
        padded = self.pad(batch)
        if padded is None:
            pytest.skip("this model has no padded inputs")
        model = randomise(self.build()).eval()
        torch.testing.assert_close(self.logits(model, padded), self.logits(model, batch), rtol=1e-4, atol=1e-5)

    def test_sdpa_equals_eager(self, monkeypatch):
        if not self.tests_attention:
            pytest.skip("this configuration has no attention of transformers")
        model = randomise(self.build()).eval()
        batch = self.batch(4)
        model.set_attn_implementation("sdpa")
        fused = self.logits(model, batch)
        model.set_attn_implementation("eager")

        def forbidden(*arguments, **settings):
            raise AssertionError("eager attention must not call the fused kernel")

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", forbidden)
        torch.testing.assert_close(self.logits(model, batch), fused, rtol=1e-4, atol=1e-5)

    def trainer(self, model, folder, batch, **arguments) -> Trainer:
        """A Trainer whose every step is repeatable."""
        settings = TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            max_grad_norm=0.0,
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            **{"save_strategy": "no", "optim": "sgd", "learning_rate": 0.1, **arguments},
        )
        return Trainer(model=model, args=settings, train_dataset=Samples(batch))

    def test_accumulated_steps_equal_one_large_step(self, tmp_path):
        batch = self.batch(16)
        trained, losses = [], []
        for size, accumulation in ((16, 1), (4, 4)):
            model = randomise(self.build())
            result = self.trainer(
                model,
                tmp_path,
                batch,
                max_steps=1,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=accumulation,
            ).train()
            losses.append(result.training_loss)
            trained.append({name: value for name, value in model.named_parameters() if value.requires_grad})
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
        start = dict(randomise(self.build()).named_parameters())
        assert any((value - start[name]).abs().max() > 1e-4 for name, value in trained[0].items())
        for name, value in trained[0].items():
            torch.testing.assert_close(
                trained[1][name], value, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )

    def test_resumed_training_equals_unbroken_training(self, tmp_path):
        settings = {"max_steps": 4, "per_device_train_batch_size": 4, "save_steps": 2, "save_strategy": "steps"}
        settings |= {"optim": "adamw_torch", "learning_rate": 1e-3}
        unbroken, resumed = (randomise(self.build()) for _ in range(2))
        self.trainer(unbroken, tmp_path, self.batch(16), **settings).train()
        self.trainer(resumed, tmp_path, self.batch(16), **settings).train(str(tmp_path / "checkpoint-2"))
        for (name, value), other in zip(unbroken.state_dict().items(), resumed.state_dict().values(), strict=True):
            torch.testing.assert_close(other, value, rtol=1e-5, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")

    def test_one_batch_can_be_overfitted(self):
        model = randomise(self.build()).train()
        batch = self.batch(4)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=self.overfit_rate)
        first = loss = None
        for _ in range(self.overfit_steps):
            loss = model(**batch).loss
            first = loss.item() if first is None else first
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert loss.item() < 0.1 * first, f"loss went from {first} to {loss.item()} only"
