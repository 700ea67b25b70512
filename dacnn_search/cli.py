"""`dacnn-search COMMAND ...`: the commands of the package, each of which is a module with a `main`."""

import importlib
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

COMMANDS = {  # command -> module, what it does
    "run": ("dacnn_search.run", "search a space, retrain the front, export it"),
    "space": ("dacnn_search.space.__main__", "check a search space and preview it"),
    "train": ("dacnn_search.train", "train one network alone"),
    "export": ("dacnn_search.export.__main__", "export trained networks as safetensors, ONNX and torch.export files"),
    "predict": ("dacnn_search.predict", "classify images"),
    "dashboard": ("dacnn_search.dashboard.__main__", "show a run in the browser"),
    "replay": ("dacnn_search.replay", "ask the sampler of a search again"),
    "paper": ("dacnn_search.paper.__main__", "train the paper's networks and compare with its tables and figures"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Ends the process, as the command's own main does."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_usage())
        sys.exit(0 if given else 2)
    name, *rest = given
    if name not in COMMANDS:
        print(f"dacnn-search: the command must be one of {', '.join(COMMANDS)}, but is {name!r}", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(COMMANDS[name][0]).main(rest)


def _usage() -> str:
    lines = [f"  {name:<10} {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(["usage: dacnn-search COMMAND ...", "", *lines, "", "dacnn-search COMMAND --help tells more."])


if __name__ == "__main__":
    main()
