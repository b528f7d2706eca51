"""Hyperparameter search by Optuna, through the Trainer's `hyperparameter_search`: trials are runs of `train.py`.

Each trial trains as `train.py` would with its values, is scored on the selection split, and is stopped early where that
score is below the median of earlier trials at the same evaluation. The test split is not read. Trials are kept in a
database, so that a search that was interrupted goes on; the values of the best one are written as a configuration.
"""

import importlib.util
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import transformers
import yaml
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dataset_builder.errors import BadInputError
from dataset_builder.files import sole_writer, write_json
from dataset_builder.messages import echo, one_line
from trainer_scripts.features.frozen import features_once
from trainer_scripts.improving.search_space import Space, default_space, read_space, with_values
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.settings.checks import refuse_idle_options
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.common.task import TrainingData
from trainer_scripts.training.data import load_training_data
from trainer_scripts.training.descriptions import describe
from trainer_scripts.training.run import (
    Prepare,
    ensure_dataset,
    finished_scores,
    prepare_trainer,
    trainer_arguments,
)
from trainer_scripts.training.whole_checkpoints import WholeCheckpoint

if TYPE_CHECKING:
    import optuna

DATABASE, RESULTS, BEST, SETTINGS, TRIALS = "search.db", "search.json", "best.yaml", "search.yaml", "trials"
STUDY = "search"
LEFT_OUT = "left out"
PROBLEM = "problem"  # attribute of a trial that could not be trained
OWN = ("search", "search_space", "output_dir", "overwrite", "soup", "seeds")


def search(configuration: Configuration, prepare: Prepare) -> None:
    """Run the trials of a configuration that are left, and write the best values as `best.yaml`.

    Raises:
        BadInputError: Optuna is missing, the folder holds something else, or no trial could be finished.
    """
    training, folder = configuration.training, configuration.output_dir
    if importlib.util.find_spec("optuna") is None:
        raise BadInputError('search needs optuna: pip install "flavour-fusion[search]"')
    if training.world_size > 1 or training.seeds > 1 or training.overwrite:
        raise BadInputError("search runs one trial after another: launch one process, leave out seeds and overwrite")
    refuse_idle_options(configuration)
    space = read_space(Path(training.search_space), configuration) if training.search_space else None
    space = space or default_space(configuration)
    check_values(configuration, space)
    check_folder(configuration, space)
    ensure_dataset(configuration)
    data = load_training_data(configuration, with_test=False)
    echo(describe(data))
    data = prepare(configuration, data)
    with sole_writer(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS).write_text(_settings(configuration, space), encoding="utf-8")
        for path in (folder / TRIALS).glob("*/"):  # of a trial during which the search was killed
            shutil.rmtree(path, ignore_errors=True)
        with readable_database(folder):
            run_trials(configuration, space, data)


@contextmanager
def readable_database(folder: Path) -> Iterator[None]:
    """Turn what a damaged or full database of trials raises into one line."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        what = one_line(str(getattr(cause, "orig", None) or error))
        raise BadInputError(
            f"{folder / DATABASE} cannot be used ({what}); put back a copy of it, or search in another --output_dir"
        ) from error


def check_values(configuration: Configuration, space: Space) -> None:
    """Raise BadInputError for a value of the space that its option does not take, before any trial meets it."""
    with tempfile.TemporaryDirectory() as folder:
        for name, each in space.items():
            for value in each.ends():
                try:
                    trial_configuration(configuration, {name: value}, Path(folder) / "trial.yaml", Path(folder))
                except BadInputError as error:
                    reason = one_line(str(error)).replace(str(Path(folder) / "trial.yaml"), "an option")
                    raise BadInputError(f"search_space: {name} cannot be {value!r} ({reason}); correct it") from error


def check_folder(configuration: Configuration, space: Space) -> None:
    """Raise BadInputError unless the folder is empty or holds this search; its number of trials may have changed."""
    folder = configuration.output_dir
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / SETTINGS).is_file():
        raise BadInputError(f"{folder} is not empty and holds no search; give another --output_dir")
    if (folder / SETTINGS).read_text(encoding="utf-8") != _settings(configuration, space):
        raise BadInputError(
            f"{folder} holds a search with other settings or another space; give another --output_dir, or the settings "
            f"in {folder / SETTINGS}"
        )


def _settings(configuration: Configuration, space: Space) -> str:
    """Return what the trials of a search have in common, and what they try, as text."""
    settings = {name: value for name, value in configuration.as_mapping().items() if name not in OWN}
    tried = {name: str(values) for name, values in space.items()}
    return yaml.safe_dump({**settings, "space": tried}, sort_keys=False, allow_unicode=True)


def open_study(folder: Path, direction: Literal["maximize", "minimize"], seed: int) -> tuple[dict[str, Any], Any]:
    """Return the arguments with which Optuna opens the study of a folder, and the study.

    Trials that were running when the search was interrupted are tried again.
    """
    import optuna
    from sqlalchemy.engine import URL

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # A path may hold characters that mean something in an address.
    address = URL.create("sqlite", database=str(folder.resolve() / DATABASE)).render_as_string()
    storage = optuna.storages.RDBStorage(address)
    given: dict[str, Any] = {"storage": storage, "study_name": STUDY, "load_if_exists": True}
    study = optuna.create_study(direction=direction, **given)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params, skip_if_exists=True)
    done = len(finished(study))
    # A search that goes on must not draw the values of its first trials again.
    given |= {"sampler": optuna.samplers.TPESampler(seed=seed + done), "pruner": optuna.pruners.MedianPruner(3, 1)}
    return given, study


def finished(study: "optuna.Study") -> list[Any]:
    """Return the trials that were completed or stopped early."""
    return [trial for trial in study.get_trials() if trial.state.name in ("COMPLETE", "PRUNED")]


class Placeholder(nn.Linear):
    """Stands for the models in the Trainer of a search: every trial makes its own."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.config = transformers.PreTrainedConfig()


class SearchTrainer(transformers.Trainer):
    """A Trainer whose training of a trial is a run of its own; the search itself is that of transformers.

    Args:
        run_trial: trial and values -> score.
        args: of the search.
    """

    def __init__(self, run_trial: Callable[["optuna.Trial", dict[str, Any]], float], args: TrainingArguments):
        # The trials evaluate, and the Trainer refuses arguments of evaluations without rows for them.
        super().__init__(model_init=Placeholder, args=args, eval_dataset=[0])
        self._run_trial = run_trial
        self.objective: float | None = None

    def train(self, resume_from_checkpoint: Any = None, trial: Any = None, **kwargs: object) -> Any:
        """Run a trial with the values that the space suggests."""
        self.objective = self._run_trial(trial, self.hp_space(trial))


class ReportToTrial(TrainerCallback):
    """Tells a trial the score of each evaluation, and stops it where the trial is not worth going on with.

    Args:
        trial: of Optuna.
        metric: name of the score that chooses, with its prefix `eval_`.
    """

    def __init__(self, trial: "optuna.Trial", metric: str):
        self._trial = trial
        self._metric = metric
        self._evaluations = 0
        self.stopped = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: object,
    ) -> None:
        """Report the score; a stopped trial takes no further step."""
        if self.stopped:
            return
        self._trial.report(metrics[self._metric], self._evaluations)
        self._evaluations += 1
        if self._trial.should_prune():
            self.stopped = control.should_training_stop = True


def run_trials(configuration: Configuration, space: Space, data: TrainingData) -> None:
    """Run the trials that are left, and write results and the best configuration."""
    import optuna

    training, folder = configuration.training, configuration.output_dir
    name, greater = selection(configuration, data)
    given, study = open_study(folder, "maximize" if greater else "minimize", training.seed)
    problems: list[str] = []

    def run_trial(trial: "optuna.Trial", values: dict[str, Any]) -> float:
        shown = ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                          for key, value in values.items())  # fmt: skip
        echo(f"trial {trial.number}: {shown}")
        try:
            return score_trial(configuration, data, trial, values)
        except BadInputError as error:
            # Values at which training diverges, or whose model is too large, are poor ones and not the end.
            problems.append(one_line(str(error)))
            trial.set_user_attr(PROBLEM, problems[-1])
            echo(f"trial {trial.number} is left out: {problems[-1]}")
            raise optuna.TrialPruned from error
        finally:
            shutil.rmtree(folder / TRIALS / f"trial-{trial.number}", ignore_errors=True)

    left = training.search - len(finished(study))
    try:
        if left > 0:
            SearchTrainer(run_trial, trainer_arguments(configuration, data)).hyperparameter_search(
                hp_space=lambda trial: {name: each.suggest(name, trial) for name, each in space.items()},
                compute_objective=lambda scores: scores[name],
                n_trials=left,
                direction="maximize" if greater else "minimize",
                backend="optuna",
                **given,
            )
        best = study.best_trial
    except ValueError as error:  # of Optuna, where no trial was completed
        if not problems:
            raise
        raise BadInputError(f"no trial of the search could be finished; the last one: {problems[-1]}") from error
    write_results(configuration, study, best, space, name.removeprefix("eval_"), data)


def selection(configuration: Configuration, data: TrainingData) -> tuple[str, bool]:
    """Return the name of the score that chooses, with its prefix, and whether more of it is better."""
    arguments = trainer_arguments(configuration, data)
    return str(arguments.metric_for_best_model), bool(arguments.greater_is_better)


def trial_configuration(
    configuration: Configuration, values: dict[str, Any], path: Path, output: Path
) -> Configuration:
    """Write the configuration of a trial to `path` as a file of `train.py`, and return it as that reads it."""
    settings = {name: value for name, value in configuration.as_mapping().items() if name not in OWN}
    path.parent.mkdir(parents=True, exist_ok=True)
    written = {**with_values(settings, values), "output_dir": str(output)}
    path.write_text(yaml.safe_dump(written, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return parse_configuration([str(path)])


def score_trial(
    configuration: Configuration, data: TrainingData, trial: "optuna.Trial", values: dict[str, Any]
) -> float:
    """Train a trial as `train.py` trains its configuration, and return the score of the checkpoint that it chose."""
    import optuna

    folder = configuration.output_dir / TRIALS / f"trial-{trial.number}"
    own = trial_configuration(configuration, values, folder.with_suffix(".yaml"), folder)
    trainer, processor, _ = prepare_trainer(own, data)
    name = str(trainer.args.metric_for_best_model)
    report = ReportToTrial(trial, name)
    trainer.remove_callback(WholeCheckpoint)  # nobody uses the checkpoints of a trial but the trial
    trainer.add_callback(report)
    with features_once(own, trainer):
        trainer.train()
        if report.stopped:
            echo(f"trial {trial.number} is stopped early, below the median of the earlier ones")
            raise optuna.TrialPruned
        report.stopped = True  # what follows is no step of the training
        score = finished_scores(own, data, trainer, processor)[1][name]
    if not math.isfinite(score):
        raise BadInputError(f"its score is {score}")
    echo(f"trial {trial.number}: {name.removeprefix('eval_')} {score:.4f} on {data.selection.split}")
    return score


def write_results(
    configuration: Configuration,
    study: "optuna.Study",
    best: "optuna.trial.FrozenTrial",
    space: Space,
    metric: str,
    data: TrainingData,
) -> None:
    """Write `search.json` and `best.yaml`, and print the best trial and how to train it."""
    folder = configuration.output_dir
    values = best_values(best, space)
    trial_configuration(configuration, values, folder / BEST, folder / "best")
    trials = [
        {"number": each.number, "state": LEFT_OUT if PROBLEM in each.user_attrs else each.state.name.lower(),
         "values": best_values(each, space), metric: each.value if each.state.name == "COMPLETE" else None,
         **each.user_attrs}
        for each in finished(study)
    ]  # fmt: skip
    result = {"metric": metric, "selection_split": data.selection.split, "best": best.number, "trials": trials}
    write_json(folder / RESULTS, result)
    stopped, left_out = (sum(each["state"] == state for each in trials) for state in ("pruned", LEFT_OUT))
    refused = f" and {left_out} left out, as they could not be trained" if left_out else ""
    echo(
        f"{len(trials)} trials, {stopped} of them stopped early{refused}; the best is trial {best.number}, {metric} "
        f"{best.value:.4f} on {data.selection.split}, which chose it and so flatters it\n"
        f"train it: train.py {folder / BEST}"
    )


def best_values(trial: "optuna.trial.FrozenTrial", space: Space) -> dict[str, Any]:
    """Return the values of a finished trial as its configuration had them."""
    import optuna

    fixed = optuna.trial.FixedTrial(trial.params, trial.number)
    return {name: each.suggest(name, fixed) for name, each in space.items() if name in trial.params}
