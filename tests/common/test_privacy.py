"""Secrets and paths of the user's machine."""

from pathlib import Path

import pytest

from dacnn_search.common.privacy import mask_command, mask_secrets, relative_path


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://me:secret@host:5000/a", "https://***@host:5000/a"),
        ("--mlflow=https://me:secret@host", "--mlflow=https://***@host"),
        ("postgresql://me:se/cr@et@host/db", "postgresql://***@host/db"),
        ("https://secret@host", "https://***@host"),
        ("https://host/?token=secret&page=2", "https://host/?token=***&page=2"),
        ("https://host/x?a=1&X-Amz-Signature=secret", "https://host/x?a=1&X-Amz-Signature=***"),
        ("--api-key=secret", "--api-key=***"),
        ("WANDB_API_KEY=secret", "WANDB_API_KEY=***"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("https://host:5000/path", "https://host:5000/path"),
        ("results/digits --trials=4", "results/digits --trials=4"),
    ],
)
def test_secrets_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked
    assert mask_secrets(masked) == masked


def test_a_secret_behind_its_option_is_masked() -> None:
    command = ["train.py", "--api-token", "secret", "--trials", "4", "--password", "--verbose"]
    assert mask_command(command) == ["train.py", "--api-token", "***", "--trials", "4", "--password", "--verbose"]


def test_absolute_paths_become_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    assert relative_path(f"{here}/spaces/a.yaml") == "spaces/a.yaml"
    assert relative_path(f"--space={here}/a.yaml") == "--space=a.yaml"
    assert relative_path(f"folder {here}/my images") == "folder my images"
    assert relative_path("/home/someone/images") == "images"
    assert relative_path("sqlite:////home/someone/mlflow.db") == "sqlite:///mlflow.db"
    for same in ("results/digits", "https://host/a/b", "digits", "sqlite:///mlflow.db", "5/6"):
        assert relative_path(same) == same
