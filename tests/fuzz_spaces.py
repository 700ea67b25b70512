"""Mutates search spaces and gives them to the command: `python fuzz_spaces.py COUNT FOLDER`.

Every mutant must be previewed or refused with a message, soon, without a traceback; none may leave anything behind.
"""

import contextlib
import io
import random
import signal
import sys
from pathlib import Path

from dacnn_search.common.errors import InputError
from dacnn_search.search.request import prepare
from dacnn_search.space.__main__ import main as preview

SPACES = Path(__file__).parents[1] / "search_spaces"
SECONDS = 60
WORDS = r"""0 -1 1 2.5 1e-3 1e400 .inf .nan null ~ true no 9999999999999999999999 50k "" 'x' [] {} [1,[2]] - : ? | >
    % @ ` !!python/object:os &a *a <<: # é 図 ../../etc /dev/zero"""
TOKENS = [
    *WORDS.split(),
    *["{a: 1}", "{choice: []}", "{choice: [1, 1]}", "{choice: [network, 3]}", "{range: {low: 5, high: 1}}"],
    *["{range: {low: 1, high: 2, step: 0}}", "{range: {low: 1, high: 1000000000}}", "\t", "\n", "  ", "\x00", "\ud7ff"],
]


def mutate(text: str, generator: random.Random) -> bytes:
    """A space with some lines, words or bytes changed."""
    lines = text.split("\n")
    for _ in range(generator.randint(1, 4)):
        index = generator.randrange(len(lines))
        kind = generator.randrange(6)
        if kind == 0:
            del lines[index]
        elif kind == 1:
            lines.insert(index, generator.choice(lines))
        elif kind == 2:
            lines[index] = generator.choice(["", " ", "  ", "    "]) + lines[index]
        elif kind == 3 and ":" in lines[index]:
            lines[index] = lines[index].split(":", 1)[0] + ": " + generator.choice(TOKENS)
        elif kind == 4:
            words = lines[index].split(" ")
            words[generator.randrange(len(words))] = generator.choice(TOKENS)
            lines[index] = " ".join(words)
        else:
            cut = generator.randrange(len(lines[index]) + 1)
            lines[index] = lines[index][:cut] + generator.choice(TOKENS) + lines[index][cut:]
        lines = lines or [""]
    data = bytearray("\n".join(lines).encode(errors="replace"))
    if data and generator.random() < 0.1:
        data[generator.randrange(len(data))] = generator.randrange(256)
    return bytes(data)


def outcome(path: Path, results: Path) -> str:
    """How a space is taken: `refused` or `accepted`. Raises what must not be raised."""
    try:
        prepare(path, results=results, settings={})
    except InputError as error:
        if not str(error):
            raise AssertionError("an empty message") from error
        return "refused"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            preview([str(path)])
        except SystemExit as ended:
            if ended.code:
                raise AssertionError(f"prepared, but the preview ends with {ended.code}") from ended
    return "accepted"


def main(count: int, folder: Path) -> None:
    """Report the first mutant that is taken badly, with its number."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(SPACES.glob("*.yaml"))]
    outcomes = {"refused": 0, "accepted": 0}
    for number in range(count):
        generator = random.Random(number)
        path = folder / "mutant.yaml"
        path.write_bytes(mutate(generator.choice(texts), generator))
        signal.alarm(SECONDS)  # a hang ends the process
        try:
            outcomes[outcome(path, folder / "results")] += 1
        except Exception:
            print(f"mutant {number}: {path}")
            raise
        signal.alarm(0)
    assert sorted(entry.name for entry in folder.iterdir()) == ["mutant.yaml"], "something was left behind"
    print(f"{count} mutants: {outcomes}")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
