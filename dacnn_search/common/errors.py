"""Every error this package raises on purpose. A command prints the message alone and exits with `exit_code`."""


class DacnnSearchError(Exception):
    """Root of all errors of this package."""

    exit_code = 1


class InputError(DacnnSearchError):
    """Something the user gave breaks a rule; the message states the rule and the value."""

    exit_code = 2


class YamlError(InputError):
    """A YAML file that can't be read safely: syntax, size, depth, duplicate keys, tags."""


class SpaceError(InputError):
    """A search space or training config that breaks rules: one line per broken rule, with `file:line`."""


class ArchitectureError(InputError):
    """A network that can't be built."""


class DataError(InputError):
    """Images, labels or splits that are missing, damaged or can't be used."""


class RunDirectoryError(InputError):
    """A run directory that is in use, damaged, of another search or of an unknown format."""


class ExportError(DacnnSearchError):
    """A network that can't be exported, or an exported file that does not do what its network does."""


class TrainingError(DacnnSearchError):
    """A training that can't go on: a loss that is not finite, no memory left."""
