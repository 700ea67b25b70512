"""Keep passwords, tokens and the paths of a user's machine out of files that are shown or shared."""

import re
from collections.abc import Iterable
from pathlib import Path

MASK = "***"
_SECRET_NAME = r"[\w.-]*(?:token|key|secret|passw|pwd|credential|signature)[\w.-]*"
# Up to the last @, as a password may hold any character; a path with an @ behind a port is masked too, which is safe.
_CREDENTIALS = re.compile(r"(://)(?:[^\s/?#]*|[^\s/:]*:\S*)@")
_ASSIGNMENT = re.compile(rf"\b({_SECRET_NAME})=[^\s&;#]+", re.IGNORECASE)
_OPTION = re.compile(rf"--?{_SECRET_NAME}", re.IGNORECASE)
# A path at the end of a text: alone, after a word (`folder /home/me/images`), an option or the scheme of a file.
_ABSOLUTE_PATH = re.compile(r"((?:[^/]*[ =])?(?:sqlite:///|file://)?)(/.*)", re.DOTALL)


def mask_secrets(text: str) -> str:
    """Replace credentials in URLs (`user:password@`) and values of tokens, keys and passwords (`token=...`) by ***."""
    return _ASSIGNMENT.sub(rf"\1={MASK}", _CREDENTIALS.sub(rf"\1{MASK}@", text))


def mask_command(arguments: Iterable[str]) -> list[str]:
    """Mask the secrets of a command line, also where an option and its value are two arguments (`--token VALUE`)."""
    masked: list[str] = []
    names_secret = False
    for argument in arguments:
        masked.append(MASK if names_secret and not argument.startswith("-") else mask_secrets(argument))
        names_secret = _OPTION.fullmatch(argument) is not None
    return masked


def relative_path(text: str) -> str:
    """Rewrite an absolute path at the end of `text` relative to the working directory, or as its last name alone if it
    lies elsewhere."""
    match = _ABSOLUTE_PATH.fullmatch(text)
    if match is None:
        return text
    path = Path(match[2])
    working = Path.cwd()
    return match[1] + (str(path.relative_to(working)) if path.is_relative_to(working) else path.name)
