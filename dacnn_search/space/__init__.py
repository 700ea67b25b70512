"""Search spaces: what their YAML files say, and the networks they hold."""
