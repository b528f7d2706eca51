"""Where a model starts from: parts named by folder or Hub id, and errors that say which of them does not fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from dataset_builder.errors import BadInputError
from trainer_scripts.arguments import ModelArguments
from trainer_scripts.recipe_reading import recipe_names

SOURCES = ("model_name_or_path", "text_encoder", "image_encoder", "init_image_encoder", "init_segmenter")

# How folders begin, ours included: nobody should wait for a Hub to say that it does not know them.
FOLDERS = (".", "~", "/", "outputs/")


@contextmanager
def building() -> Iterator[None]:
    """Turn what configs and backbones refuse into bad input; timm refuses names that it does not know as RuntimeError.

    Raises:
        BadInputError: says why the model of a recipe cannot be built.
    """
    try:
        yield
    except BadInputError:
        raise
    except (TypeError, ValueError, RuntimeError, StrictDataclassError) as error:
        raise BadInputError(f"the model of this recipe cannot be built: {error}") from error


def open_sources(arguments: ModelArguments) -> dict[str, Any]:
    """Return the config of every checkpoint that the recipe names, by option.

    Raises:
        BadInputError: names the option, its value and why nothing can be loaded from there.
    """
    found = {}
    unread = {"text": {"image_encoder"}, "image": {"text_encoder"}, "fusion": set()}[arguments.modality]
    if arguments.model_name_or_path:  # all parts come from it
        unread = {"text_encoder", "image_encoder", "init_segmenter"}
    for option in SOURCES:
        value = getattr(arguments, option)
        if not value or option in unread:
            continue
        if not Path(value).exists() and (value.count("/") > 1 or value.startswith(FOLDERS)):
            name = Path(value).name
            first = f"; train it first: `train.py {name}`" if name in recipe_names() else ""
            raise BadInputError(
                f"{option}: there is no folder {value!r}; give a checkpoint's folder or a Hub id{first}"
            )
        own = option in ("model_name_or_path", "init_segmenter")
        try:
            found[option] = AutoConfig.from_pretrained(
                value, revision=arguments.model_revision or "main" if own else "main"
            )
        except (OSError, ValueError, StrictDataclassError) as error:
            reason = str(error).split("\n")[0]
            raise BadInputError(
                f"{option}: nothing can be loaded from {value!r}, neither as a folder nor from the Hub ({reason})"
            ) from error
    return found
