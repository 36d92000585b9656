"""Where a search shows while it runs: TensorBoard, MLflow, Weights & Biases, as callbacks of Optuna's study and trial."""

import importlib.util
import io
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["MLflow", "TensorBoard", "WandB"]

_METRICS = 1000  # that MLflow takes at once


@dataclass(frozen=True)
class TensorBoard:
    """Show each trial in TensorBoard: its score after each epoch among the scalars, its strengths among the HPARAMS.

    A trial is a run of its own, `trial-0007` in the folder of its study; logged again, it takes the place of what was
    there. TensorFlow is neither needed nor imported.

    Args:
        folder: What `tensorboard --logdir` is given then.

    Raises:
        ImportError: If TensorBoard is not installed.

    Example:
        >>> import regularity as rg
        >>> rg.loggers.TensorBoard("logs")  # as in rg.search(model, x, y, trial_callbacks=rg.loggers.TensorBoard("logs"))
        TensorBoard(folder='logs')
    """

    folder: str | os.PathLike[str]

    def __post_init__(self) -> None:
        _check_installed("TensorBoard", "tensorboard")

    def __call__(self, study: Any, trial: Any) -> None:
        """Write the run of a finished trial.

        Args:
            study: Optuna's study.
            trial: Optuna's trial.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        now, score = time.time(), _taken(_score(study))
        run = Path(re.sub(r"[^\w.-]", "_", study.study_name).strip(".") or "study", _run(trial))
        session = f"{run.name} of {study.study_name}"  # those of one name are averaged
        begin = hparams_pb(trial.params, trial_id=session, start_time_secs=now)
        status = api_pb2.STATUS_FAILURE if trial.state.name == "FAIL" else api_pb2.STATUS_SUCCESS
        ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=now)
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
        end = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
        scalars = [(epoch, score, value) for epoch, value in trial.intermediate_values.items()]
        if trial.value is not None:
            scalars.append((0, f"best/{score}", trial.value))
        events = [
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, summary=begin),
            *(
                Event(wall_time=now, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
                for step, tag, value in scalars
            ),
            Event(wall_time=now, summary=Summary(value=[end])),
        ]
        written = io.BytesIO()
        records = RecordWriter(written)  # TensorBoard's own writer of files imports TensorFlow where there is one
        for event in events:
            records.write(event.SerializeToString())
        file = Path(self.folder, run, "events.out.tfevents.regularity")  # one name, so that nothing is there twice
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(written.getvalue())


@dataclass(frozen=True)
class MLflow:
    """Show each trial in MLflow: a run with its strengths, its score after each epoch, its recipe and what became of it.

    A trial that diverged is a failed run, and one that a pruner stopped a killed one. A run that is active and the
    tracking URI in use stay as they are. Names have `_` where MLflow takes no sign such as `@` or `*`; the tag `recipe`
    has them as they are.

    Args:
        experiment: Name of the one that the runs are in, which is made where there is none; by default that of the study.
        tracking_uri: Of the server or database; by default the one in use when a trial is finished.

    Raises:
        ImportError: If MLflow is not installed.

    Example:
        >>> import regularity as rg
        >>> rg.loggers.MLflow("strengths")  # as in rg.search(model, x, y, trial_callbacks=rg.loggers.MLflow("strengths"))
        MLflow(experiment='strengths')
    """

    experiment: str | None = None
    tracking_uri: str | None = field(default=None, repr=False)  # it may have a password

    def __post_init__(self) -> None:
        _check_installed("MLflow", "mlflow")

    def __call__(self, study: Any, trial: Any) -> None:
        """Log the run of a finished trial.

        Args:
            study: Optuna's study.
            trial: Optuna's trial.
        """
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        client, name = MlflowClient(self.tracking_uri), self.experiment or study.study_name
        known = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if known is None else known.experiment_id
        tags = {
            "study": study.study_name,
            "trial": str(trial.number),
            "state": trial.state.name,
            "recipe": _recipe(trial),
        }
        run = client.create_run(experiment, run_name=_run(trial), tags=tags).info.run_id
        now, score = int(time.time() * 1000), _taken(_score(study))
        metrics = [Metric(score, value, now, epoch) for epoch, value in trial.intermediate_values.items()]
        if trial.value is not None:
            metrics.append(Metric(f"best/{score}", trial.value, now, 0))
        client.log_batch(run, params=[Param(_taken(key), str(value)) for key, value in trial.params.items()])
        for first in range(0, len(metrics), _METRICS):
            client.log_batch(run, metrics=metrics[first : first + _METRICS])
        client.set_terminated(run, {"FAIL": "FAILED", "PRUNED": "KILLED"}.get(trial.state.name, "FINISHED"))


@dataclass(frozen=True, init=False)
class WandB:
    """Show each trial in Weights & Biases: a run in the group of its study, with its strengths as configuration.

    A trial that diverged is a failed run; the summary has the final score, what became of the trial, and its recipe. A run
    that is active stays so. Log in first, with `wandb login`, or give `mode="offline"`.

    Args:
        project: Where the runs are.
        **init: What else `wandb.init` is given, such as `entity="us"`, `mode="offline"` or `tags=["digits"]`.

    Raises:
        ImportError: If wandb is not installed.
        ValueError: If nobody is logged in, and `mode` is not `offline` or `disabled`.

    Example:
        >>> import regularity as rg
        >>> rg.loggers.WandB("strengths", mode="offline")  # to be given to rg.search as trial_callbacks
        WandB(project='strengths')
    """

    project: str
    init: Mapping[str, Any] = field(repr=False)  # it may have a key

    def __init__(self, project: str = "regularity", **init: Any) -> None:
        _check_installed("WandB", "wandb")
        if init.get("mode", os.environ.get("WANDB_MODE", "online")) == "online":
            import wandb

            settings = init.get("settings") or {}
            key = settings.get("api_key") if isinstance(settings, Mapping) else settings.api_key
            if not key and not wandb.login(
                prompt=False
            ):  # it would ask in the middle of the search, where nobody looks
                raise ValueError(
                    "Expected a login to Weights & Biases, or mode='offline'. Received: no key. Run `wandb login` first, or set "
                    "WANDB_MODE=offline."
                )
        object.__setattr__(self, "project", project)
        object.__setattr__(self, "init", init)

    def __call__(self, study: Any, trial: Any) -> None:
        """Log the run of a finished trial.

        Args:
            study: Optuna's study.
            trial: Optuna's trial.
        """
        import wandb

        score = _score(study)
        # the progress of a search is no output of a trial, nor should fifty summaries stand in it
        usual = {
            "project": self.project, "group": study.study_name, "name": _run(trial), "reinit": "create_new",
            "settings": {"console": "off", "silent": True},
        }  # fmt: skip
        run = wandb.init(**{**usual, **self.init})
        try:
            run.config.update(trial.params)
            for epoch, value in trial.intermediate_values.items():
                run.log({score: value}, step=epoch)
            final = {} if trial.value is None else {f"best/{score}": trial.value}
            run.summary.update({**final, "state": trial.state.name, "recipe": _recipe(trial)})
        finally:
            run.finish(exit_code=int(trial.state.name == "FAIL"))


def _check_installed(logger: str, package: str) -> None:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:  # a mere folder of this name, such as wandb writes, is no package
        raise ImportError(f"`rg.loggers.{logger}` needs {package}. Try: pip install 'regularity[loggers]'")


def _run(trial: Any) -> str:
    return f"trial-{trial.number:04d}"


def _score(study: Any) -> str:
    """What the values of a study are; one that `rg.search` did not begin does not say it."""
    return study.user_attrs.get("score", "value")


def _recipe(trial: Any) -> str:
    return json.dumps(trial.user_attrs.get("recipe", {}))


def _taken(name: str) -> str:
    """A name with only such signs as TensorBoard and MLflow take."""
    return re.sub(r"[^\w./ -]", "_", name)
