"""`dacnn-search COMMAND ...`: the commands of the package."""

from dacnn_search.common.command import CommandGroup

COMMANDS = {  # command -> module, what it does
    "run": ("dacnn_search.run", "search a space, retrain the front, export it"),
    "space": ("dacnn_search.space.__main__", "check a search space and preview it"),
    "train": ("dacnn_search.train", "train one network alone"),
    "export": (
        "dacnn_search.export.__main__",
        "export trained networks as safetensors, ONNX, torch.export files or C code",
    ),
    "predict": ("dacnn_search.predict", "classify images"),
    "dashboard": ("dacnn_search.dashboard.__main__", "show a run in the browser"),
    "replay": ("dacnn_search.replay", "ask the sampler of a search again"),
    "paper": ("dacnn_search.paper.__main__", "train the paper's networks and compare with its tables and figures"),
}

main = CommandGroup(
    COMMANDS,
    name="dacnn-search",
    help="Search for small CNNs that share their weights. `dacnn-search COMMAND --help` tells more.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

if __name__ == "__main__":
    main()
