"""The base of all rooms: errors, units, files, YAML, signals, commands, the machine."""
