"""What leaves a run: networks as files of several formats, checked, with a model card."""
