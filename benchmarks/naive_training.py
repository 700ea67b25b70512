"""A training as a good user of torch and torchvision writes it, in full: what the benchmarks compare with."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dacnn_search.data.dataset import ImageData, Split
from dacnn_search.training.recipe import Recipe


class Images(Dataset):
    """Images as torchvision's data sets have them: an array in memory, each made a PIL image and transformed."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images = split.images
        self.labels = split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].squeeze())), self.labels[index]


class NaiveTraining:
    """A DataLoader, AdamW, a one-cycle schedule and the usual two loops, in float32 or, `tuned`, in bfloat16."""

    def __init__(self, model: nn.Module, data: ImageData, recipe: Recipe, tuned: bool = False) -> None:
        plain = [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
        augmented: list[Any] = []
        if recipe.crop:
            augmented.append(transforms.RandomCrop(data.input_shape[1:], padding=recipe.crop))
        if data.flip:
            augmented.append(transforms.RandomHorizontalFlip())
        train = Images(data.train, transforms.Compose([*augmented, *plain]))
        validation = Images(data.validation, transforms.Compose(plain))
        self.train_loader = DataLoader(train, recipe.batch_size, shuffle=True)
        self.validation_loader = DataLoader(validation, 256)
        self.model = model.to(memory_format=torch.channels_last) if tuned else model
        device = next(model.parameters()).device.type
        self.autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=tuned)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.learning_rate, epochs=recipe.epochs, steps_per_epoch=len(self.train_loader)
        )

    def run_epoch(self) -> tuple[float, float]:
        """Train for an epoch and return training loss and validation accuracy."""
        self.model.train()
        total_loss = 0.0
        for images, labels in self.train_loader:
            self.optimizer.zero_grad()
            with self.autocast():
                loss = self.criterion(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            total_loss += loss.item() * len(labels)
        return total_loss / len(self.train_loader.dataset), self.evaluate()  # type: ignore[arg-type]

    def evaluate(self) -> float:
        self.model.eval()
        correct = 0
        with torch.no_grad(), self.autocast():
            for images, labels in self.validation_loader:
                correct += (self.model(images).argmax(1) == labels).sum().item()
        return correct / len(self.validation_loader.dataset)  # type: ignore[arg-type]
