"""TensorBoard event files with the learning curves of a run, made from its ledger: one folder per trial."""

import datetime
import shutil
from collections.abc import Sequence
from pathlib import Path

from dacnn_search.common.files import new_folder
from dacnn_search.network.cost import COSTS
from dacnn_search.storage.front import Record

CURVES = {"accuracy": "accuracy/validation", "loss": "loss/validation", "train_loss": "loss/training"}


def write_tensorboard(run: Path, records: Sequence[Record], *, anew: bool = False) -> Path:
    """Write the trials into the folder `tensorboard/` of a run directory, and return that.

    The choices of a trial are its hyperparameters. Trials that are there stay, unless all are written `anew`.
    """
    folder = run / "tensorboard"
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    for record in records:
        trial = folder / f"trial-{record['trial']:04d}"
        if not trial.exists():
            with new_folder(trial) as new:
                _write_trial(new, record)
    return folder


def _write_trial(folder: Path, record: Record) -> None:
    from tensorboardX import SummaryWriter  # not at the top: the dashboard answers without it
    from tensorboardX.summary import hparams

    end = datetime.datetime.fromisoformat(record["time"]).timestamp()
    per_epoch = record["seconds"] / max(record["epochs"], 1)
    with SummaryWriter(str(folder)) as writer:
        for kind, tag in CURVES.items():
            for epoch, value in enumerate(record["curve"][kind], 1):
                if value is not None:
                    writer.add_scalar(tag, value, epoch, end - per_epoch * (record["epochs"] - epoch))
        kinds = ("accuracy", *COSTS)
        results = {f"trial/{kind}": record[kind] for kind in kinds if record.get(kind) is not None}
        for summary in hparams({"state": record["state"], **record["choices"]}, results):
            writer.file_writer.add_summary(summary)
        for tag, value in results.items():
            writer.add_scalar(tag, value, record["epochs"], end)
