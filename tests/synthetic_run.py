"""Writes run directories of searches that never ran, with known contents, for the tests of what reads them."""

import dataclasses
import json
import math
import random
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import estimate_cost
from dacnn_search.storage.front import Scale, front_of, spread
from dacnn_search.storage.ledger import read_ledger

INPUT_SHAPE = (1, 8, 8)
EPOCHS = 12
SPACE = "# A synthetic space.\nname: synthetic\n"


def write_run(
    folder: Path,
    *,
    trials: int = 60,
    seed: int = 0,
    name: str | None = None,
    state: str = "finished",
    sampler: str = "tpe",
    class_names: Sequence[str] = tuple("0123456789"),
    retrained: bool = True,
    failing: float = 0.05,
    reason: str = "TrainingError: the loss must be finite, but is nan",
    references: Sequence[Mapping[str, Any]] = (),
    constraint: int = 200_000,
) -> list[dict[str, Any]]:
    """Write a run directory of `trials` finished trials and return the records of its ledger.

    failing: share of the trials that fail, with `reason`. state: that of status.json. retrained: whether three
    networks of the front were trained again, with two seeds each. constraint: most parameters of a network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = _trials(trials, seed, failing, reason, constraint)
    records.sort(key=lambda record: record["finished"])
    records = [{"sequence": number, **record} for number, record in enumerate(records, 1)]
    environment = _environment(name or folder.name, seed, sampler, trials, class_names, constraint)
    environment["references"] = [dict(reference) for reference in references]
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "space.yaml").write_text(SPACE)
    write_ledger(folder / "trials.jsonl", records)
    if retrained:
        write_ledger(folder / "retrained.jsonl", _retrained(folder, records, seed))
    (folder / "status.json").write_text(json.dumps(_status(records, state, trials, environment["space"])))
    return records


def write_networks(folder: Path, architectures: Sequence[Architecture]) -> list[dict[str, Any]]:
    """Write a run whose trials, all finished, have these networks, and return its records in their order."""
    records = write_run(folder, trials=len(architectures), failing=0, retrained=False)
    for record, architecture in zip(records, architectures, strict=True):
        cost = estimate_cost(architecture, INPUT_SHAPE, 10)
        record |= {"architecture": architecture.to_dict(), "fingerprint": architecture.fingerprint}
        record |= {"parameters": cost.parameters, "macs": cost.macs, "state": "COMPLETE", "reason": None}
    write_ledger(folder / "trials.jsonl", records)
    return records


def write_ledger(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as the ledger does, without its fsync per line."""
    lines = []
    for record in records:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        lines.append(text[:-1] + b',"check":"%08x"}\n' % zlib.crc32(text))
    path.write_bytes(b"".join(lines))


def write_c_metrics(folder: Path) -> None:
    """Write what two exports, of the first with images to measure it on, leave in the folders of a run's networks."""
    first, second, third = sorted(folder.glob("best/*"))
    measured = {"accuracy": 0.9721, "float_accuracy": 0.9749, "part": "test", "images": 359, "flash": 3012, "ram": 640}
    (first / "metrics.json").write_text(json.dumps({"c": measured}))
    (second / "metrics.json").write_text(json.dumps({"c": {"accuracy": None, "flash": 9000}}))
    (third / "metrics.json").write_text("{}")


def _environment(
    name: str, seed: int, sampler: str, trials: int, class_names: Sequence[str], constraint: int
) -> dict[str, Any]:
    return {
        "format": 1,
        "name": name,
        "started": "2026-03-14T09:26:53Z",
        "seed": seed,
        "sampler": sampler,
        "stopping": "front",
        "command": ["python", "-m", "dacnn_search.run", "search_spaces/synthetic.yaml"],
        "versions": {
            "python": "3.11.9",
            "torch": "2.15.0",
            "ray": "2.60.0",
            "optuna": "5.0.0",
            "dacnn_search": "0.1.0",
        },
        "machine": {"host": "synthetic", "platform": "Linux", "cpu": "a processor", "cpus": 2, "gpus": []},
        "git_commit": None,
        "data": {
            "name": "digits",
            "input_shape": list(INPUT_SHAPE),
            "num_classes": len(class_names),
            "class_names": list(class_names),
            "train": 1078,
            "validation": 359,
            "test": 360,
        },
        "space": {
            "networks": 77_770,
            "least": 250,
            "most": constraint,
            "constraints": {"parameters": constraint, "macs": None},
        },
        "epochs": EPOCHS,
        "trials": trials,
        "recipe": {
            "optimizer": "adamw",
            "learning_rate": 0.01,
            "schedule": "one_cycle",
            "epochs": EPOCHS,
            "batch_size": 64,
        },
    }


def _trials(count: int, seed: int, failing: float, reason: str, most: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    records: list[dict[str, Any]] = []
    known: set[str] = set()
    clock, duplicates = [0.0, 0.0], 0
    while len(records) < count:
        choices = _choices(rng, len(records) / max(count, 1))
        architecture = _build(choices)
        if architecture.fingerprint in known:
            duplicates += 1
            continue
        if estimate_cost(architecture, INPUT_SHAPE, 10).parameters > most:
            continue
        known.add(architecture.fingerprint)
        record = _trial(rng, len(records), architecture, choices, failing, reason)
        worker = clock.index(min(clock))
        record["started"] = round(clock[worker] + 0.03, 3)
        clock[worker] = record["finished"] = round(record["started"] + record["seconds"], 3)
        record |= {"worker": f"synthetic:{4000 + worker}", "duplicates": duplicates}
        duplicates = 0
        records.append(record)
    return records


def _choices(rng: random.Random, progress: float) -> dict[str, Any]:
    """What a sampler might draw; late in the search it has learned that small, regulated networks pay."""
    sections = rng.choice([1, 2, 2, 3, 3])
    choices: dict[str, Any] = {"sections": sections}
    for number in range(1, sections + 1):
        choices[f"depth_{number}"] = rng.randint(1, 6)
    widths = [4, 8, 12, 16, 24, 32] if rng.random() < 0.3 + 0.6 * progress else [16, 24, 32, 48, 64]
    choices["width"] = rng.choice(widths)
    choices["growth"] = rng.choice([1, 2]) if sections > 1 else 1
    choices["sharing"] = (
        rng.choice(["network", "section", "second", "none"])
        if choices["growth"] == 1
        else rng.choice(["section", "second", "none"])
    )
    if choices["sharing"] != "none":
        choices["anchors"] = rng.randint(1, 3)
        if choices["anchors"] > 1:
            choices["mixing"] = rng.choice(["turn", "learned"])
    choices["regulators"] = rng.choice(["none", "block", "layer"])
    choices["shortcuts"] = rng.choice(["block", "history", "none"])
    if choices["shortcuts"] == "history":
        choices["history"] = rng.randint(1, 5)
    return choices


def _build(choices: Mapping[str, Any]) -> Architecture:
    sections = tuple(
        Section(choices[f"depth_{i + 1}"], choices["width"] * choices["growth"] ** i, choices["regulators"])
        for i in range(choices["sections"])
    )
    chosen = {key: choices[key] for key in ("sharing", "anchors", "shortcuts", "mixing", "history") if key in choices}
    return Architecture(sections, **chosen).canonical()


def _trial(
    rng: random.Random,
    number: int,
    architecture: Architecture,
    choices: dict[str, Any],
    failing: float,
    reason: str,
) -> dict[str, Any]:
    cost = estimate_cost(architecture, INPUT_SHAPE, 10)
    final = _accuracy(rng, cost.parameters, choices)
    failed = rng.random() < failing
    stopped = not failed and number > 8 and final < _accuracy(None, cost.parameters, None) and rng.random() < 0.7
    epochs = rng.randint(0, 4) if failed else rng.choice([2, 4, 6]) if stopped else EPOCHS
    curve = _curve(rng, final, epochs)
    state = "FAIL" if failed else "PRUNED" if stopped else "COMPLETE"
    why = reason if failed else f"at epoch {epochs} no better than 3 networks that are smaller" if stopped else None
    return {
        "trial": number,
        "state": state,
        "fingerprint": architecture.fingerprint,
        "architecture": architecture.to_dict(),
        "choices": choices,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "accuracy": None if failed or not epochs else curve["accuracy"][-1],
        "loss": None if failed or not epochs else curve["loss"][-1],
        "epochs": epochs,
        "seconds": round((0.02 + 6e-8 * cost.macs) * max(epochs, 1) * rng.uniform(0.9, 1.2), 3),
        "reason": why,
        "curve": curve,
        "seed": number,
        "time": f"2026-03-14T09:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "peak_bytes": 330_000_000,
    }


def _accuracy(rng: random.Random | None, parameters: int, choices: Mapping[str, Any] | None) -> float:
    error = 0.006 + 0.55 * math.exp(-1.15 * (math.log10(parameters) - 2.0) * 1.5)
    if rng is None or choices is None:
        return 1 - error
    error *= {"none": 1.35, "block": 0.95, "layer": 0.85}[choices["regulators"]]
    error *= {"network": 0.9, "section": 0.9, "second": 1.0, "none": 1.3}[choices["sharing"]]
    error *= 1.05 if choices["shortcuts"] == "none" else 0.93
    error *= math.exp(rng.gauss(0, 0.16))
    if rng.random() < 0.02:
        error = 0.85
    return round((1 - min(error, 0.9)) * 359) / 359


def _curve(rng: random.Random, final: float, epochs: int) -> dict[str, list[float]]:
    accuracy, loss, train_loss = [], [], []
    for epoch in range(1, epochs + 1):
        value = final - (final - 0.1) * math.exp(-0.75 * epoch) * (1 + rng.gauss(0, 0.08))
        value = final if epoch == EPOCHS else min(max(value, 0.05), 1.0)
        accuracy.append(round(value, 6))
        loss.append(round(2.3 * (1 - value) ** 0.8 + 0.02, 6))
        train_loss.append(round(2.3 * (1 - value) ** 0.95 * 0.9 + 0.005, 6))
    return {"accuracy": accuracy, "loss": loss, "train_loss": train_loss}


def teach(folder: Path) -> None:
    """Let the largest retrained network be the teacher of the others."""
    file = folder / "retrained.jsonl"
    lines = read_ledger(file)
    teacher = lines[-1]["fingerprint"]
    write_ledger(file, [{**line, "teacher": None if line["fingerprint"] == teacher else teacher} for line in lines])


def _retrained(folder: Path, records: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed + 1)
    kept = ("trial", "fingerprint", "architecture", "parameters", "macs", "accuracy")
    lines: list[dict[str, Any]] = []
    recipe = {"optimizer": "sgd", "learning_rate": 0.2, "epochs": 25}
    for rank, record in enumerate(spread(front_of(records), 3), 1):
        best = f"best/{rank:02d}-{record['parameters']}"
        (folder / best).mkdir(parents=True, exist_ok=True)
        (folder / best / "config.yaml").write_text("# The config of a retrained network.\ndata: digits\n")
        for repeat in range(2):
            test = round((record["accuracy"] + rng.gauss(0.001, 0.003)) * 360) / 360
            line = {**{key: record[key] for key in kept}, "seed": repeat, "epochs": 25, "recipe": recipe}
            line |= {"test_accuracy": min(test, 1.0), "test_loss": 0.05, "seconds": 3 * record["seconds"]}
            line |= {"curve": {"train_loss": [round(2.3 * 0.8**epoch, 4) for epoch in range(25)]}}
            lines.append({"sequence": len(lines) + 1, **line, "time": "2026-03-14T10:00:00Z"})
    return lines


def _status(records: Sequence[Mapping[str, Any]], state: str, trials: int, space: Mapping[str, Any]) -> dict[str, Any]:
    elapsed = max((r["finished"] for r in records), default=0.0)
    running: list[dict[str, Any]] = []
    if state == "searching":
        architecture = Architecture((Section(3, 16, "block"), Section(2, 32)))
        cost = dataclasses.asdict(estimate_cost(architecture, INPUT_SHAPE, 10))
        for number, accuracy in enumerate([0.912, None]):
            running.append({"trial": len(records) + number, "fingerprint": architecture.fingerprint})
            running[-1] |= {
                "parameters": cost["parameters"],
                "epoch": 5 * (1 - number),
                "epochs": EPOCHS,
                "accuracy": accuracy,
            }
    return {
        "state": state,
        "message": None,
        "elapsed": elapsed,
        "remaining": 95.0 if state == "searching" else None,
        "finished": len(records),
        "trials": trials * 2 if state == "searching" else trials,
        "running": running,
        "hypervolume": round(Scale(space["least"], space["most"], 0.1).hypervolume(front_of(records)), 4),
        "updated": datetime.now(UTC).isoformat(timespec="seconds"),
    }
