"""Ray: its processes, their share of the machine, trainings on them."""
