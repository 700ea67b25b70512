import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor

from dacnn_search.common.errors import ArchitectureError, DataError, TrainingError
from dacnn_search.data.dataset import DataConfig, ImageData, Split
from dacnn_search.data.dataset import load as load_data
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.training.device_data import ResidentData, pick_device
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.trainer import TEMPERATURE, EpochResult, Training, build_seeded, evaluate

CPU = torch.device("cpu")
TINY = Architecture((Section(1, 4),))
SMALL = Architecture((Section(2, 8), Section(2, 16)), shortcuts="block")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_data(DataConfig(name="digits"))


def make_data(
    train: int = 20, validation: int = 7, shape: tuple[int, int, int] = (1, 8, 8), *, flip: bool = False
) -> ImageData:
    """Read-only random images of 3 classes, (C, H, W) in shape."""
    channels, height, width = shape
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = random.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
        labels = np.arange(count) % 3
        images.flags.writeable = labels.flags.writeable = False
        return Split(images, labels)

    mean, std = tuple(0.4 + 0.1 * c for c in range(channels)), tuple(0.2 + 0.1 * c for c in range(channels))
    names = ("a", "b", "c")
    return ImageData("random", names, split(train), split(validation), split(0), mean, std, flip)


def make_training(data: ImageData, architecture: Architecture = TINY, seed: int = 0, **recipe: object) -> Training:
    model = build_seeded(architecture, data.num_classes, data.input_shape[0], seed=0)
    return Training(model, ResidentData(data, "cpu"), Recipe.model_validate(recipe), seed=seed)


def finish(training: Training) -> list[EpochResult]:
    results = []
    while not training.finished:
        results.append(training.run_epoch())
    return results


def run(training: Training) -> list[tuple[float, float | None, float | None]]:
    return [(epoch.train_loss, epoch.validation_loss, epoch.validation_accuracy) for epoch in finish(training)]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_small_network_learns_the_digits(digits: ImageData) -> None:
    model = build_seeded(Architecture((Section(2, 16),)), 10, 1, seed=0)
    data = ResidentData(digits, "cpu")
    results = finish(Training(model, data, Recipe(epochs=4, precision="float32")))
    assert [result.epoch for result in results] == [1, 2, 3, 4]
    assert results[-1].train_loss < results[0].train_loss / 2
    assert results[-1].validation_accuracy is not None
    assert results[-1].validation_accuracy > 0.9
    assert all(0 < result.images_per_second < math.inf and result.seconds > 0 for result in results)
    final = evaluate(model, data)
    assert (final.loss, final.accuracy) == (results[-1].validation_loss, results[-1].validation_accuracy)
    assert evaluate(model, data, "test").accuracy > 0.9


def test_an_evaluation_does_not_move_a_model_that_is_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_seeded(TINY, 3, 1, seed=0)
    monkeypatch.setattr(model, "to", None)  # a call would fail
    assert evaluate(model, ResidentData(make_data(), "cpu")).loss > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_a_stored_training_carries_on_to_the_same_last_bit(optimizer: str, precision: str) -> None:
    data = make_data(50, shape=(3, 8, 8))
    recipe = {
        "optimizer": optimizer,
        "learning_rate": 0.01,
        "epochs": 3,
        "batch_size": 16,
        "flip": True,
        "crop": 1,
    }
    recipe |= {"precision": precision}
    whole = make_training(data, SMALL, **recipe)
    expected = run(whole)

    first = make_training(data, SMALL, **recipe)
    first.run_epoch()
    stored = save(first.state_dict())
    first.run_epoch()  # must not change what was stored
    other_model = make_training(data, SMALL, **recipe)
    torch.nn.init.zeros_(other_model.model.classifier.weight)
    other_model.load_state_dict(load(stored))
    assert other_model.epoch == 1
    assert run(other_model) == expected[1:]
    assert same(other_model.state_dict(), whole.state_dict())


def test_a_state_taken_before_the_first_epoch_will_do() -> None:
    data = make_data()
    training = make_training(data, epochs=2)
    state = training.state_dict()
    expected = run(training)
    other = make_training(data, epochs=2)
    torch.nn.init.zeros_(other.model.classifier.weight)
    other.load_state_dict(state)
    assert run(other) == expected


def test_a_state_of_another_network_is_refused() -> None:
    data = make_data()
    with pytest.raises(TrainingError, match="must be of the same network"):
        make_training(data, SMALL).load_state_dict(make_training(data, TINY).state_dict())


def test_the_seed_decides_and_global_random_numbers_stay() -> None:
    data = make_data(40)
    before = torch.get_rng_state()
    recipe = {"epochs": 2, "batch_size": 8, "crop": 1, "cutout": 2}
    results = [run(make_training(data, seed=seed, **recipe)) for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_seeded() -> None:
    models = [build_seeded(SMALL, 3, 1, seed).state_dict() for seed in (0, 0, 1)]
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_each_epoch_has_an_order_of_its_own() -> None:
    training = make_training(make_data(40), batch_size=8, learning_rate=1e-30, weight_decay=0.0, schedule="constant")
    orders = []
    cut = training.data.batches
    training.data.batches = lambda split, order, count: orders.append(order) or cut(split, order, count)  # type: ignore
    training.run_epoch()
    training.run_epoch()
    first, second = orders
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(40))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("name", ["nan", "inf"])
def test_a_loss_that_is_not_finite_is_told_with_its_epoch(name: str) -> None:
    training = make_training(make_data(), batch_norm_free(), epochs=5, schedule="constant")
    training.run_epoch()
    with torch.no_grad():
        training.model.classifier.bias[0] = float(name)
    with pytest.raises(TrainingError, match="training loss is nan in epoch 2"):
        training.run_epoch()


def test_a_validation_loss_that_is_not_finite_is_told() -> None:
    training = make_training(make_data(), epochs=5)
    norm = training.model.stem_norm
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert norm.running_mean is not None
    norm.running_mean[0] = math.nan  # not used in training
    with pytest.raises(TrainingError, match="validation loss is nan in epoch 1"):
        training.run_epoch()


def batch_norm_free() -> Architecture:
    return dataclasses.replace(TINY, batch_norm=False)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_told_with_an_estimate(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(make_data(), batch_size=64)

    def fail(images: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(training.model, "forward", fail)
    with pytest.raises(TrainingError, match=r"out of memory: a step with 64 images needs about \d.* kB"):
        training.run_epoch()


def test_another_runtime_error_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(make_data())
    monkeypatch.setattr(training.model, "forward", lambda images: torch.ones(2, 3) @ images[0, 0])
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        training.run_epoch()


@pytest.mark.parametrize("images", [2, 3, 5, 17])
@pytest.mark.parametrize("batch_size", [2, 4, 16])
def test_few_images_make_batches_of_two_or_more(images: int, batch_size: int) -> None:
    sizes: list[int] = []
    data = make_data(images, validation=0, shape=(1, 1, 1))
    training = make_training(data, epochs=1, batch_size=batch_size)
    training.model.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    training.run_epoch()
    assert sum(sizes) == images
    assert min(sizes) >= 2
    assert max(sizes) <= max(batch_size, 3)


def test_one_image_is_too_few() -> None:
    with pytest.raises(DataError, match="at least 2 images, but got 1"):
        make_training(make_data(1))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (3, 1, 1), (2, 33, 12)])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_any_shape_of_images_trains(shape: tuple[int, int, int], batch_norm: bool) -> None:
    training = make_training(
        make_data(9, 3, shape),
        dataclasses.replace(TINY, batch_norm=batch_norm),
        epochs=1,
        batch_size=4,
        crop=2,
        flip=True,
    )
    (losses,) = run(training)
    assert all(value is not None and math.isfinite(value) for value in losses)


def test_without_validation_images_there_are_no_figures_of_them() -> None:
    result = make_training(make_data(validation=0), epochs=1).run_epoch()
    assert (result.validation_loss, result.validation_accuracy) == (None, None)


def test_a_finished_training_does_not_go_on() -> None:
    training = make_training(make_data(), epochs=1)
    assert not training.finished
    training.run_epoch()
    assert training.finished
    with pytest.raises(RuntimeError, match="a training of 1 epochs has no epoch 2"):
        training.run_epoch()


def test_data_that_do_not_suit_the_network_are_refused() -> None:
    data = ResidentData(make_data(), "cpu")
    with pytest.raises(DataError, match="for 3 channels and 3 classes, but the data have 1 and 3"):
        Training(build_seeded(TINY, 3, 3, 0), data, Recipe())
    with pytest.raises(DataError, match="for 1 channels and 4 classes, but the data have 1 and 3"):
        evaluate(build_seeded(TINY, 4, 1, 0), data)
    with pytest.raises(ArchitectureError, match="halvings"):
        make_training(make_data(shape=(1, 1, 1)), SMALL)


def test_norms_and_biases_do_not_decay() -> None:
    training = make_training(
        make_data(), optimizer="sgd", learning_rate=1e-6, momentum=0.0, weight_decay=1.0, schedule="constant"
    )
    groups = training._optimizer.param_groups
    decay = {p: group["weight_decay"] for group in groups for p in group["params"]}
    found = {name: decay[parameter] for name, parameter in training.model.named_parameters()}
    assert found == {name: float(name.startswith("kernels") or name == "classifier.weight") for name in found}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_one_step_is_that_of_the_plain_optimiser(optimizer: str) -> None:
    """The fused optimisers work on raw memory: weight, gradient and state must lie there in one order."""
    data = make_data(20, shape=(3, 8, 8))
    training = make_training(
        data,
        SMALL,
        optimizer=optimizer,
        learning_rate=0.01,
        batch_size=20,
        schedule="constant",
        epochs=3,
        precision="float32",
        label_smoothing=0.0,
    )
    model = build_seeded(SMALL, 3, 3, seed=0)
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad}
    more = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
    groups = [
        {
            "params": [p for p in model.parameters() if p.ndim > 1],
            "weight_decay": training.recipe.weight_decay,
        },
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0},
    ]
    plain = kinds[optimizer](groups, lr=0.01, foreach=False, **more)
    images = torch.tensor(data.train.images).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(3, 1, 1)
    labels = torch.tensor(data.train.labels)
    for _ in range(3):
        loss = F.cross_entropy(model(images), labels)
        plain.zero_grad()
        loss.backward()
        plain.step()
        assert training.run_epoch().train_loss == pytest.approx(loss.item(), rel=1e-3)
    for name, parameter in training.model.named_parameters():
        expected = model.get_parameter(name)
        assert (parameter - expected).abs().max() < 0.005, name


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_the_loss_is_the_cross_entropy_of_smoothed_labels(smoothing: float) -> None:
    training = make_training(make_data(), label_smoothing=smoothing)
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).mul(10).requires_grad_()
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    found = training._loss(logits, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-6)


def make_taught(data: ImageData, *, teacher_seed: int = 9, device: str = "cpu", **recipe: object) -> Training:
    """A training of TINY that SMALL teaches, which was trained for an epoch."""
    teacher = build_seeded(SMALL, data.num_classes, data.input_shape[0], teacher_seed)
    Training(teacher, ResidentData(data, "cpu"), Recipe(epochs=1, precision="float32")).run_epoch()
    model = build_seeded(TINY, data.num_classes, data.input_shape[0], seed=0)
    return Training(model, ResidentData(data, device), Recipe.model_validate(recipe), teacher=teacher)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("share", [0.25, 0.9])
def test_a_student_follows_labels_and_teacher_by_their_shares(share: float, smoothing: float) -> None:
    """One step of plain gradient descent, against the formula of Hinton et al. on the whole data set."""
    data = make_data(20, shape=(3, 8, 8))
    rate, given = 0.1, {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    given |= {"batch_size": 20, "epochs": 1, "precision": "float32", "label_smoothing": smoothing}
    training = make_taught(data, learning_rate=rate, distillation=share, **given)
    teacher, model = training._teacher, build_seeded(TINY, 3, 3, seed=0)
    assert teacher is not None
    images, labels = training.data.batch(training.data.train, slice(None))
    log_p, p = (f(teacher(images).detach() / TEMPERATURE, dim=1) for f in (torch.log_softmax, torch.softmax))
    logits = model(images)
    log_q = torch.log_softmax(logits / TEMPERATURE, dim=1)
    label_loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    divergence = (p * (log_p - log_q)).sum(1).mean()
    ((1 - share) * label_loss + share * TEMPERATURE**2 * divergence).backward()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    assert training.run_epoch().train_loss == pytest.approx(label_loss.item(), rel=1e-4)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = parameter - rate * parameter.grad
        torch.testing.assert_close(training.model.get_parameter(name), expected, rtol=1e-3, atol=1e-6)
    assert same(teacher.state_dict(), before)
    assert not teacher.training


def test_the_teacher_sees_the_augmented_batch_of_the_student() -> None:
    training = make_taught(make_data(40, flip=True), distillation=0.5, crop=2, cutout=2, batch_size=16, epochs=1)
    seen: dict[str, list[Tensor]] = {"teacher": [], "student": []}
    assert training._teacher is not None
    for role, model in (("teacher", training._teacher), ("student", training.model)):
        model.register_forward_pre_hook(lambda _, given, role=role: seen[role].append(given[0].clone()))
    training._train_epoch()
    assert len(seen["teacher"]) == 3
    assert all(torch.equal(*images) for images in zip(*seen.values(), strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_taught_training_is_repeatable_and_carries_on_to_the_same_last_bit(precision: str) -> None:
    data = make_data(50, shape=(3, 8, 8), flip=True)
    recipe = {"distillation": 0.7, "epochs": 3, "batch_size": 16, "crop": 1, "precision": precision}
    whole = make_taught(data, **recipe)
    expected = run(whole)
    assert run(make_taught(data, **recipe)) == expected != run(make_taught(data, teacher_seed=8, **recipe))
    first = make_taught(data, **recipe)
    first.run_epoch()
    rest = make_taught(data, **recipe)
    rest.load_state_dict(load(save(first.state_dict())))
    assert run(rest) == expected[1:]
    assert same(rest.state_dict(), whole.state_dict())


def test_without_teacher_or_share_a_training_is_what_it_was() -> None:
    data, recipe = make_data(40), {"epochs": 2, "batch_size": 16}
    expected = run(make_training(data, **recipe))
    assert run(make_training(data, distillation=0.7, **recipe)) == expected
    assert run(make_taught(data, distillation=0.0, **recipe)) == expected


def test_a_teacher_of_other_images_is_refused() -> None:
    data = ResidentData(make_data(), "cpu")
    model, recipe = build_seeded(TINY, 3, 1, 0), Recipe(distillation=0.5)
    with pytest.raises(DataError, match="the teacher is for 3 channels and 3 classes, but the data have 1 and 3"):
        Training(model, data, recipe, teacher=build_seeded(TINY, 3, 3, 0))
    with pytest.raises(DataError, match="the teacher is for 1 channels and 4 classes, but the data have 1 and 3"):
        Training(model, data, recipe, teacher=build_seeded(TINY, 4, 1, 0))


@pytest.mark.parametrize("flip", ["auto", True, False])
@pytest.mark.parametrize("keeps_label", [True, False])
def test_flip_is_decided_by_the_data_unless_given(flip: object, keeps_label: bool) -> None:
    data = make_data(flip=keeps_label)
    plain = run(make_training(data, epochs=1, flip=False))
    assert (run(make_training(data, epochs=1, flip=flip)) != plain) == (keeps_label if flip == "auto" else flip)


def test_the_learning_rate_follows_the_schedule() -> None:
    training = make_training(make_data(), epochs=4, learning_rate=0.02, schedule="step", milestones=[0.5], batch_size=7)
    assert [training.run_epoch().learning_rate for _ in range(4)] == pytest.approx([0.02, 0.02, 0.002, 0.002])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7)])
def test_an_evaluation_is_that_of_a_loop_over_the_images(shape: tuple[int, int, int]) -> None:
    data = make_data(validation=1030, shape=shape)
    model = build_seeded(SMALL, 3, shape[0], seed=0)
    resident = ResidentData(data, "cpu")
    Training(model, resident, Recipe(epochs=1)).run_epoch()
    loss = correct = 0.0
    model.eval()
    for image, label in zip(data.validation.images, data.validation.labels, strict=True):
        x = (image.astype(np.float64) / 255 - data.mean) / data.std
        logits = model(torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None])[0].detach()
        loss -= logits.log_softmax(0)[int(label)].item() / 1030
        correct += int(logits.argmax()) == label
    result = evaluate(model, resident, precision="float32")
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert result.accuracy == pytest.approx(correct / 1030, abs=1e-9)


def test_an_evaluation_leaves_the_model_in_its_mode_and_as_it_was() -> None:
    model = build_seeded(SMALL, 3, 1, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for mode in (True, False):
        model.train(mode)
        evaluate(model, ResidentData(make_data(), "cpu"), "train")
        assert model.training == mode
    assert same(before, model.state_dict())


def test_an_empty_part_is_not_evaluated() -> None:
    with pytest.raises(DataError, match="at least 1 image, but the test part has none"):
        evaluate(build_seeded(TINY, 3, 1, 0), ResidentData(make_data(), "cpu"), "test")


def test_resident_data_use_read_only_arrays_in_place_and_silently() -> None:
    data = make_data()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resident = ResidentData(data, "cpu")
    assert resident.train.images.data_ptr() == data.train.images.ctypes.data
    before = data.train.images.copy()
    images, labels = resident.batch(resident.train, slice(0, 5))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (images.shape, images.dtype, labels.tolist()) == ((5, 1, 8, 8), torch.float32, [0, 1, 2, 0, 1])
    assert np.array_equal(data.train.images, before)


@pytest.mark.parametrize("most", [1, 400, 2**19])  # one batch at a time, two, all
def test_batches_are_the_images_in_that_order_however_many_are_prepared_together(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dacnn_search.training.device_data.MOST_AT_ONCE", most)
    data = ResidentData(make_data(20, shape=(3, 5, 4)), "cpu")
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    images, labels = data.batch(data.train, order)
    batches = list(data.batches(data.train, order, 7))
    assert [len(found) for _, found in batches] == [3, 3, 3, 3, 3, 3, 2]
    assert torch.equal(torch.cat([found for found, _ in batches]), images)
    assert torch.equal(torch.cat([found for _, found in batches]), labels)
    assert all(found.is_contiguous(memory_format=torch.channels_last) for found, _ in batches)


def test_one_resident_data_serves_several_trainings() -> None:
    data = make_data()
    expected = run(make_training(data, epochs=2))
    resident = ResidentData(data, "cpu")
    for _ in range(2):
        assert run(Training(build_seeded(TINY, 3, 1, 0), resident, Recipe(epochs=2))) == expected


@pytest.mark.parametrize(("available", "expected"), [(True, "cuda:2"), (False, "cpu")])
def test_the_default_device_is_the_current_gpu_where_there_is_one(available, expected, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert str(pick_device()) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.25, 0.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_a_gpu_trains_and_carries_on(optimizer: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the data on the GPU, and with data too large for it."""
    monkeypatch.setattr("dacnn_search.training.device_data.GPU_DATA_SHARE", share)
    data = ResidentData(make_data(200, shape=(3, 16, 16), flip=True), "cuda")
    assert data.train.images.device.type == ("cuda" if share else "cpu")
    recipe = Recipe(optimizer=optimizer, learning_rate=0.01, epochs=3, crop=2, cutout=4)
    whole = Training(build_seeded(SMALL, 3, 3, 0), data, recipe)
    assert whole.data.device.type == "cuda"
    expected = run(whole)
    first = Training(build_seeded(SMALL, 3, 3, 0), data, recipe)
    first.run_epoch()
    second = Training(build_seeded(SMALL, 3, 3, 1), data, recipe)
    second.load_state_dict(first.state_dict())
    assert run(second) == expected[1:]


@pytest.mark.gpu
@pytest.mark.parametrize("mixing", ["turn", "learned"])
def test_a_gpu_keeps_layers_with_a_history_in_bfloat16(mixing: Any) -> None:
    architecture = Architecture((Section(4, 8),), anchors=2, shortcuts="history", mixing=mixing)
    network, kinds = build_seeded(architecture, 3, 3, 0).to("cuda"), []
    for block in network.blocks:
        for layer in block.layers:
            layer.register_forward_hook(lambda *given: kinds.append(given[-1].dtype))
    with torch.autocast("cuda", torch.bfloat16):
        network(torch.zeros(2, 3, 16, 16, device="cuda"))
    assert kinds == [torch.bfloat16] * 4


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_trains_with_a_teacher(compiled: bool) -> None:
    data = make_data(200, shape=(3, 16, 16), flip=True)
    recipe = {"distillation": 0.7, "epochs": 2, "crop": 2, "compiled": compiled}
    results = [run(make_taught(data, device="cuda", **recipe)) for _ in range(2)]
    assert results[0] == results[1]
    assert all(math.isfinite(loss) for loss, *_ in results[0])


def test_what_is_kept_and_stored_grows_with_shared_weights_not_with_depth() -> None:
    """Weights, what the optimiser keeps of them, and the checkpoint: ten times as deep, the norms alone add to them."""
    sizes = {}
    for sharing in ("section", "none"):
        for depth in (2, 20):
            architecture = Architecture((Section(depth, 16),), sharing, shortcuts="none")
            training = make_training(make_data(), architecture, epochs=1, batch_size=20)
            training.run_epoch()
            state = training.state_dict()
            kernels = sum(tensor.numel() for name, tensor in state.items() if "kernels." in name and tensor.ndim > 1)
            sizes[sharing, depth] = (kernels, len(save(state)))
    assert sizes["section", 20][0] == sizes["section", 2][0]
    assert sizes["none", 20][0] > 8 * sizes["none", 2][0]
    norms = (
        18 * 16 * (2 * 3 + 2) * 4
    )  # of 18 layers: two weights a channel, each three times with AdamW, two statistics
    assert sizes["section", 20][1] - sizes["section", 2][1] < norms + 18 * 1500  # the header names each tensor


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_that_computes_sections_again_is_the_same(precision: str) -> None:
    data = make_data(40, shape=(3, 8, 8))
    plain = make_training(data, SMALL, epochs=2, batch_size=16, precision=precision)
    again = make_training(data, SMALL, epochs=2, batch_size=16, precision=precision)
    again.model.recomputes = True
    assert run(again) == run(plain)
    assert same(again.state_dict(), plain.state_dict())


@pytest.mark.slow
def test_every_training_of_a_process_is_compiled_as_one_graph_per_size_of_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a backend that only counts: torch gives up after a few networks unless it is told that they are others."""
    compiled, graphs = torch.compile, []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    def compile_whole(model: torch.nn.Module, *, mode: str, dynamic: bool) -> torch.nn.Module:
        return compiled(model, backend=count, fullgraph=True, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", compile_whole)
    data = make_data(25, shape=(3, 8, 8))
    for number in range(1, 11):
        training = make_training(data, SMALL, epochs=1, batch_size=10, compiled=True)  # batches of 9, 8 and 8
        training.run_epoch()
        assert len(graphs) == 2 * number
