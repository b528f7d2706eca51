"""What a search tries: for some options of training, the values or the range that trials draw from."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builder.boundaries import parse_yaml, read_text
from dataset_builder.errors import BadInputError
from trainer_scripts.settings.arguments import VARIATION, Configuration, DataArguments
from trainer_scripts.settings.options import options_of

if TYPE_CHECKING:
    import optuna

ADVICE = "give lines such as `learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}` or `weight_decay: [0, 0.1]`"
# Options that decide what is compared, on which rows and by what, or where it is written.
COMPARED = (
    "modality",
    "task",
    "seed",
    "seeds",
    "soup",
    "search",
    "search_space",
    "overwrite",
    "output_dir",
    "teacher",
    "teacher_revision",
    "teacher_share",
    "metric_for_best_model",
    "greater_is_better",
    "eval_strategy",
    "save_strategy",
    "load_best_model_at_end",
)
FIELD = "config."  # of the names of fields of the model's configuration


@dataclass(frozen=True)
class Span:
    """Numbers from `low` to `high`; whole ones where both are, spread evenly by their logarithm with `log`."""

    low: float
    high: float
    log: bool = False

    def ends(self) -> list[Any]:
        """Return values of which each must be one that the option takes."""
        return [self.low, self.high]

    def suggest(self, name: str, trial: "optuna.trial.BaseTrial") -> Any:
        """Return the number that a trial tries."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Choices:
    """Some values, as JSON: a list of layer sizes may be one."""

    values: tuple[str, ...]

    def ends(self) -> list[Any]:
        """Return values of which each must be one that the option takes."""
        return [json.loads(value) for value in self.values]

    def suggest(self, name: str, trial: "optuna.trial.BaseTrial") -> Any:
        """Return the value that a trial tries."""
        return json.loads(trial.suggest_categorical(name, list(self.values)))


Space = Mapping[str, Span | Choices]


def default_space(configuration: Configuration) -> Space:
    """Return what is tried unless a file says otherwise: rates around the given ones, decay and dropout."""
    training = configuration.training
    space: dict[str, Span | Choices] = {}
    for name in ("learning_rate", "text_learning_rate", "image_learning_rate"):
        rate = getattr(training, name)
        if rate:
            space[name] = Span(rate / 5, rate * 5, log=True)
    space["weight_decay"] = Choices(("0.0", "0.01", "0.05", "0.1"))
    if "dropout" in configuration.model.config:
        space[f"{FIELD}dropout"] = Span(0.0, 0.6)
    return space


def read_space(path: Path, configuration: Configuration) -> Space:
    """Return the search space in a YAML file: `option: [value, ...]` or `option: {low: X, high: Y, log: true}`.

    Raises:
        BadInputError: an unknown option, one that decides what is compared, or no range.
    """
    try:
        content = parse_yaml(read_text(path, ADVICE), str(path), ADVICE)
    except FileNotFoundError as error:
        raise BadInputError(f"search_space: there is no file {path}; {ADVICE}") from error
    if not isinstance(content, dict) or not content:
        raise BadInputError(f"{path} must hold a line per option; {ADVICE}")
    variation = {name for name, option in options_of(DataArguments).items() if option.group == VARIATION}
    data = set(options_of(DataArguments)) - variation - {"target_share", "feature_views"}
    space: dict[str, Span | Choices] = {}
    for name, given in content.items():
        if not str(name).startswith(FIELD) and name not in configuration.options:
            raise BadInputError(f"{path}: {name} is no option of train.py, nor a field of config ({FIELD}NAME)")
        if name in COMPARED or name in data:
            raise BadInputError(f"{path}: {name} decides what trials are compared by, so it is the same in all of them")
        space[name] = _range(str(name), given, path)
    return space


def _range(name: str, given: Any, path: Path) -> Span | Choices:
    if isinstance(given, dict) and set(given) == {"choices"}:
        given = given["choices"]
    if isinstance(given, list) and given:
        try:
            return Choices(tuple(dict.fromkeys(json.dumps(value, allow_nan=False) for value in given)))
        except (TypeError, ValueError) as error:  # YAML has dates and more, which no option takes
            raise BadInputError(f"{path}: {name} has a value that no option takes ({error}); {ADVICE}") from error
    if isinstance(given, dict) and {"low", "high"} <= set(given) <= {"low", "high", "log"}:
        low, high = (_number(given[end]) for end in ("low", "high"))
        log = given.get("log", False)
        ordered = low is not None and high is not None and low < high
        if ordered and isinstance(log, bool) and (low > 0 or not log):  # type: ignore[operator]
            return Span(low, high, log)  # type: ignore[arg-type]
    raise BadInputError(f"{path}: {name} is {given!r}; {ADVICE}")


def _number(value: Any) -> float | int | None:
    """Return a finite number, also where YAML reads a text such as 1e-3."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def with_values(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run with the values of a trial; those of `config.NAME` go into its mapping."""
    changed = dict(settings)
    for name, value in values.items():
        if name.startswith(FIELD):
            changed["config"] = {**(changed.get("config") or {}), name.removeprefix(FIELD): value}
        else:
            changed[name] = value
    return changed
