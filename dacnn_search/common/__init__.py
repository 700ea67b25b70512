"""What every room uses: errors, units, files, YAML, signals, commands, the machine."""
