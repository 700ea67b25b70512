"""What a training is made of: data on the device, augmentation, optimisers, evaluation, weights."""
