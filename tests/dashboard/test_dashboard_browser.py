"""The dashboard in a real browser, offline: what one can do with it, without an error on the console or a request."""

import csv
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from synthetic_run import INPUT_SHAPE, teach, write_c_metrics, write_ledger, write_networks, write_run

from dacnn_search.common.yaml import read_yaml
from dacnn_search.dashboard.page import write_comparison, write_dashboard, write_figure, write_index
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import estimate_cost
from dacnn_search.storage.front import best_under, front_of
from dacnn_search.storage.ledger import read_ledger
from dacnn_search.storage.trained import group_retrained

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

pytestmark = pytest.mark.browser

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
REFERENCES = [{"name": "a known network", "parameters": 70_000, "accuracy": 0.972}]
Opener = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield instance
        instance.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Opener]:
    """Opens a page from disk, fully drawn; fails the test for an error, a dialog or a request."""
    faults: list[str] = []
    contexts = []

    def watch(page: Any) -> None:
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on(
            "console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else faults.append(request.url),
        )

    def opened(path: Path, *, drawn: bool = True, clock: bool = False, fragment: str = "", **options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 900}, "offline": True, **options}
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        watch(page)
        if clock:
            page.clock.install()
        page.goto(path.as_uri() + fragment)
        if drawn:
            page.wait_for_selector("html[data-drawn=all]", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("results") / "digits"
    records = write_run(folder, trials=120, seed=10, references=REFERENCES)
    return write_dashboard(folder), records


def test_answers_first(open_page: Opener, tmp_path: Path) -> None:
    records = write_run(tmp_path / "digits", trials=120, retrained=False)
    page = open_page(write_dashboard(tmp_path / "digits"))
    front = front_of(records)
    expect(page.locator("h1")).to_contain_text("digits")
    expect(page.locator("#state")).to_have_text("Finished")
    best = front[-1]["accuracy"]
    images = 359
    share = (best * images + 2) / (images + 4)
    error = (share * (1 - share) / (images + 4)) ** 0.5
    suggested = next(r for r in front if r["accuracy"] >= best - error)
    expect(page.locator("#card-kicker")).to_contain_text("Suggested")
    expect(page.locator("#card-figures")).to_contain_text(f"{100 * suggested['accuracy']:.1f}%")
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {suggested['trial']}")
    expect(page.locator("#why")).to_contain_text("No finished network with as few parameters is as accurate")
    expect(page.locator("#drawing svg")).to_have_attribute(
        "aria-label", re.compile("Drawing of the network: section 1")
    )


NARROW, WIDENING = (Section(6, 8),), (Section(4, 8, "block"), Section(5, 16))
FAMILIES = [  # a network, the letters in the boxes of its drawing, and what its legend says of them
    (
        Architecture(WIDENING, "second", shortcuts="block"),
        "S - A - A T B - B - B",
        [
            "A shared kernel of 576 weights, used in 2 layers",
            "B shared kernel of 2.3 k weights, used in 3 layers",
            "4 layers with kernels of their own",
            "S stem",
            "T transition to another width",
            "◆ regulator (1×1 convolution)",
            "shortcut",
            "shortcut through a 1×1 convolution",
            "2×2 max pooling",
        ],
    ),
    (
        Architecture(NARROW, anchors=2, mixing="learned", shortcuts="block"),
        "S A+B A+B A+B A+B A+B A+B",
        ["A+B learned mix of 2 shared kernels of 576 weights each, in 6 layers", "S stem", "shortcut"],
    ),
    (
        Architecture(NARROW, anchors=4, mixing="learned"),
        "S A–D A–D A–D A–D A–D A–D",
        ["A–D learned mix of 4 shared kernels of 576 weights each, in 6 layers", "S stem"],
    ),
    (
        Architecture(NARROW, shortcuts="history", history=3),
        "S A A A A A A",
        [
            "A shared kernel of 576 weights, used in 6 layers",
            "S stem",
            "history: a layer adds its last inputs, 3 at most, each times a learned scalar",
        ],
    ),
    (
        Architecture(WIDENING, "second", 2, mixing="learned", shortcuts="history", history=1),
        "S - - - - T A+B - A+B - A+B",
        [
            "A+B learned mix of 2 shared kernels of 2.3 k weights each, in 3 layers",
            "6 layers with kernels of their own",
            "S stem",
            "T transition to another width",
            "◆ regulator (1×1 convolution)",
            "history: a layer adds its input, times a learned scalar",
            "2×2 max pooling",
        ],
    ),
    (
        Architecture(NARROW, shortcuts="block", convolutions="separable"),
        "S A A A A A A",
        [
            "A shared kernel of 136 weights, used in 6 layers",
            "S stem",
            "shortcut",
            "kernels outside of the stem are separable: a 3×3 kernel per channel, then a 1×1 convolution",
        ],
    ),
]


@pytest.mark.parametrize("trial", range(len(FAMILIES)), ids=["second", "mix-2", "mix-4", "history", "all", "separable"])
def test_drawing_legend_and_text_of_each_family(open_page: Opener, tmp_path: Path, trial: int) -> None:
    records = write_networks(tmp_path, [architecture for architecture, _, _ in FAMILIES])
    architecture, letters, legend = FAMILIES[trial]
    page = open_page(write_dashboard(tmp_path), fragment=f"#trial-{records[trial]['trial']}")
    boxes = page.locator("#drawing g:has(> rect.layer)")
    drawn = [box.locator("text").all_text_contents() for box in boxes.all()]
    assert " ".join(text[0] if text else "-" for text in drawn) == letters
    items = page.locator("#kernels li").all_text_contents()
    assert [item.strip().replace("\N{NO-BREAK SPACE}", " ") for item in items] == legend
    layers = [layer for block in architecture.blocks for layer in block.layers]
    for title, layer in zip(boxes.locator("title").all_text_contents()[1:], layers, strict=True):  # after the stem's
        assert ("learned mix" in title) == (len(layer.kernels) > 1)
        added = {0: "", 1: "; adds its input"}.get(layer.history, f"; adds its last {layer.history} inputs")
        assert title.partition("; ")[2] == added.removeprefix("; ")
    label = page.locator("#drawing svg").get_attribute("aria-label")
    assert ("mixes" in label) == ("mix" in " ".join(legend))
    longest = max(layer.history for layer in layers)
    assert ("adds" in label) == (longest > 0)
    joints = page.locator("#drawing .joint").evaluate_all("paths => paths.map(path => path.getAttribute('d'))")
    assert "".join(joints).count("M") == sum(layer.history for layer in layers)
    config = tmp_path / "config.yaml"
    config.write_text(page.locator("#config").inner_text())
    described = read_yaml(config).data["architecture"]
    assert Architecture.from_dict(described).fingerprint == architecture.fingerprint


def test_families_on_the_front(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0])
    histories = {r["trial"] for r in run[1] if r["architecture"]["shortcuts"] == "history"}
    button = page.locator("[data-family=history]")
    expect(button).to_have_text(f"history {sum(r['trial'] in histories for r in front_of(run[1]))}")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(button).to_be_focused()
    expect(page.locator("#table-count")).to_have_text(f"{len(histories)} of 120 trials, those with history")
    rows = page.locator("#table-body tr td:first-child")
    assert {int(trial) for trial in rows.all_text_contents()} == histories
    front = "document.getElementById('front').data[4].marker.opacity"
    faded = [0.08 if r["trial"] not in histories else 1 for r in front_of(run[1])]
    page.reload()
    page.wait_for_selector("html[data-drawn=all]", state="attached")
    assert page.evaluate(front) == faded
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#table-count")).to_have_text("120 trials")


def test_the_command_of_a_taught_network_names_its_teacher(open_page: Opener, tmp_path: Path) -> None:
    write_run(tmp_path, trials=30)
    teach(tmp_path)
    page = open_page(write_dashboard(tmp_path))
    page.fill("#budget-number", "1")
    page.press("#budget-number", "Enter")
    expect(page.locator("#command")).to_contain_text(
        re.compile(r"--config \S+/best/01-\d+/config.yaml --teacher \S+/best/03-\d+$")
    )
    page.fill("#budget-number", "1000000")
    page.press("#budget-number", "Enter")
    expect(page.locator("#command")).to_contain_text(re.compile(r"--config \S+/best/03-\d+/config.yaml$"))


@pytest.mark.parametrize(
    ("tested", "chosen"),
    [
        ([[0.978], [0.983], [0.97]], 0),  # the second is better by less than the error of 360 test images, 0.9 points
        ([[0.95], [0.985], [0.99]], 1),
        ([[0.95], [0.96], [0.99]], 2),
        ([[0.96, 0.96], [0.965, 0.965], [0.96, 1.0]], 0),  # the seeds of the best differ by 4 points
        ([[None], [0.96], [None]], None),  # one alone can't be compared
    ],
)
def test_suggest_judges_retrained_networks_by_their_test_accuracies(
    open_page: Opener, tmp_path: Path, tested: list[list[float | None]], chosen: int | None
) -> None:
    write_run(tmp_path, trials=120)
    retrained = tmp_path / "retrained.jsonl"
    networks = group_retrained(read_ledger(retrained))
    lines = [
        {**record, "test_accuracy": accuracy}
        for of_network, accuracies in zip(networks, tested, strict=True)
        for record, accuracy in zip(of_network, accuracies, strict=False)
    ]
    write_ledger(retrained, [{**line, "sequence": number} for number, line in enumerate(lines, 1)])
    page = open_page(write_dashboard(tmp_path))
    if chosen is None:
        expect(page.locator("#card-kicker")).to_contain_text("of the best, by the validation images")
        return
    page.fill("#budget-number", "1")
    page.click("#suggest")
    trial = networks[chosen][0]["trial"]
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {trial}")
    expect(page.locator("#card-kicker")).to_contain_text("the one with the fewest parameters of 3 retrained")
    expect(page.locator("#card-kicker")).to_contain_text("seeds" if len(tested[0]) > 1 else "of the test images)")
    page.reload()
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {trial}")


def test_the_mode_bar_hides_nothing_and_uploads_nothing(
    open_page: Opener, run: tuple[Path, list[dict[str, Any]]]
) -> None:
    page = open_page(run[0])
    plots = page.locator(".plot:has(.modebar)")
    assert plots.count() >= 7
    bar = "e => getComputedStyle(e).{}"
    for plot in plots.all():
        page.mouse.move(2, 2)
        parts = plot.locator(".modebar, .modebar-group")
        for group in plot.locator(".modebar-group").all():
            expect(group).to_have_css("opacity", "0")  # once it has faded
        plot.hover()
        assert {part.evaluate(bar.format("backgroundColor")) for part in parts.all()} == {"rgba(0, 0, 0, 0)"}
    titles = page.locator(".modebar-btn").evaluate_all("buttons => buttons.map(button => button.dataset.title)")
    assert set(titles) == {"Download plot as a PNG", "Reset axes"}


def test_slider_and_number_find_the_best_network(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0])
    front = front_of(run[1])
    for typed, budget in (("5 k", 5000), ("48 kB", 12_000), ("48 KiB", 12_288), ("12,000", 12_000), ("0.1M", 100_000)):
        page.fill("#budget-number", typed)
        chosen = best_under(front, budget)
        assert chosen is not None
        expect(page.locator("#network-title")).to_have_text(f"The network of trial {chosen['trial']}")
        expect(page.locator("#card-kicker")).to_contain_text(f"at most {budget:,} parameters")
    page.fill("#budget-number", "1")
    expect(page.locator("#card-kicker")).to_contain_text("No finished network has at most 1 parameters")
    page.fill("#budget-number", "rubbish")
    expect(page.locator("#budget-number")).to_have_attribute("aria-invalid", "true")
    page.locator("#budget").fill("1000")
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {front[-1]['trial']}")
    page.locator("#budget").focus()
    page.keyboard.press("Home")
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {front[0]['trial']}")


def test_keys_move_along_the_front(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0])
    front = front_of(run[1])
    title = page.locator("#network-title")
    page.locator("#front").focus()
    page.keyboard.press("Home")
    expect(title).to_have_text(f"The network of trial {front[0]['trial']}")
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text(f"The network of trial {front[1]['trial']}")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(title).to_have_text(f"The network of trial {front[0]['trial']}")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(title).to_have_text(f"The network of trial {front[-1]['trial']}")
    expect(title).to_be_focused()
    assert page.url.endswith(f"#trial-{front[-1]['trial']}")


def test_click_on_a_point_opens_its_card(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0])
    for record in front_of(run[1])[1:4]:
        click_point(page, record)
        expect(page.locator("#network-title")).to_have_text(f"The network of trial {record['trial']}")
        expect(page.locator(f"#table-body tr[data-index='{record['sequence'] - 1}']")).to_have_attribute(
            "aria-selected", "true"
        )


def click_point(page: Any, record: dict[str, Any]) -> None:
    """A real click where a trial stands in the plot of the front."""
    page.locator("#front").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([parameters, accuracy]) => {
            const plot = document.getElementById("front"), box = plot.getBoundingClientRect();
            const { xaxis, yaxis } = plot._fullLayout;
            return [box.left + xaxis._offset + xaxis.d2p(parameters), box.top + yaxis._offset + yaxis.d2p(accuracy)];
        }""",
        [record["parameters"], record["accuracy"]],
    )
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    page.wait_for_timeout(150)  # Plotly looks for the nearest point at most every 50 ms
    page.mouse.click(x, y)


def front_by(records: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The front of accuracy against another cost than parameters."""
    costs = [estimate_cost(Architecture.from_dict(r["architecture"]), INPUT_SHAPE, 10) for r in records]
    return front_of(r | {"parameters": getattr(cost, name)} for r, cost in zip(records, costs, strict=True))


@pytest.mark.parametrize(("name", "unit"), [("flash", "bytes of flash"), ("ram", "bytes of RAM"), ("macs", "MACs")])
def test_another_cost_on_the_horizontal_axis(
    open_page: Opener, run: tuple[Path, list[dict[str, Any]]], name: str, unit: str
) -> None:
    page = open_page(run[0])
    chosen = page.locator("#network-title").inner_text()
    expect(page.locator("#cost-note")).to_have_text("The search looked for this front.")
    page.focus(f"[data-cost={name}]")
    page.keyboard.press("Enter")
    expect(page.locator(f"[data-cost={name}]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#cost-note")).to_contain_text("The search looked for the front by parameters; this one by")
    expect(page.locator("#front .xtitle")).to_have_text(f"{unit} (log scale)")
    expect(page.locator("#network-title")).to_have_text(chosen)
    front = front_by(run[1], name)
    points = "(() => { const line = document.getElementById('front').data[3]; return [[...line.x], [...line.y]]; })()"
    costs = [r["parameters"] for r in front]
    assert page.evaluate(points) == [costs, pytest.approx([r["accuracy"] for r in front], abs=1e-5)]
    drawn = "document.getElementById('front').data.flatMap((trace) => trace.text ?? [])"
    assert not any("a known network" in text for text in page.evaluate(drawn))  # only its parameters are known
    page.select_option("#show", "front")
    expect(page.locator("#table-body tr")).to_have_count(len(front))
    page.fill("#budget-number", str(costs[1]))
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {front[1]['trial']}")
    expect(page.locator("#card-kicker")).to_contain_text(f"at most {costs[1]:,} {unit}")
    click_point(page, front[2])
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {front[2]['trial']}")
    page.reload()
    page.wait_for_selector("html[data-drawn=all]", state="attached")
    expect(page.locator(f"[data-cost={name}]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {front[2]['trial']}")
    assert page.evaluate(points)[0] == costs
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_search_for_flash_shows_flash_first(open_page: Opener, tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=40, retrained=False)
    environment = json.loads((tmp_path / "environment.json").read_text()) | {"objective": "flash"}
    environment["space"]["constraints"]["flash"] = 32_000
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    page = open_page(write_dashboard(tmp_path))
    expect(page.locator("[data-cost=flash]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#cost-note")).to_contain_text("The search looked for this front.")
    expect(page.locator("#front")).to_contain_text("limit 32\u00a0k")
    page.click("[data-cost=macs]")
    expect(page.locator("#cost-note")).to_contain_text("the front by flash; this one by MACs")
    expect(page.locator("#front")).not_to_contain_text("limit")
    page.click("[data-cost=flash]")
    page.fill("#budget-number", "4 kB")
    best = [r for r in front_by(records, "flash") if r["parameters"] <= 4000][-1]
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {best['trial']}")


def test_a_run_of_unknown_image_size_has_no_flash(open_page: Opener, tmp_path: Path) -> None:
    write_run(tmp_path, trials=10, retrained=False)
    (tmp_path / "environment.json").write_text('{"format": 1}')
    page = open_page(write_dashboard(tmp_path))
    expect(page.locator("[data-cost=ram]")).to_be_hidden()
    expect(page.locator("[data-cost=macs]")).to_be_visible()
    expect(page.locator("#card-figures")).not_to_contain_text("flash")


def test_the_card_tells_the_accuracy_of_c_code(open_page: Opener, tmp_path: Path) -> None:
    write_run(tmp_path, trials=40)
    write_c_metrics(tmp_path)
    page = open_page(write_dashboard(tmp_path))
    page.locator("#front").focus()
    page.keyboard.press("Home")
    expect(page.locator("#card-figures")).to_contain_text("97.2%test accuracy of the int8 C code (float32: 97.5%)")
    expect(page.locator("#card-figures")).to_contain_text("flash (int8 C code)")
    page.keyboard.press("End")
    expect(page.locator("#card-figures")).not_to_contain_text("accuracy of the int8 C code")


def test_modes_of_the_vertical_axis(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0])
    for mode in ("all", "error", "front"):
        page.click(f"[data-mode={mode}]")
        expect(page.locator(f"[data-mode={mode}]")).to_have_attribute("aria-pressed", "true")
    page.click("[data-hypervolume=time]")
    expect(page.locator("#hypervolume")).to_contain_text("minutes of search")


def test_table_sorts_filters_and_selects(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0])
    records = run[1]
    rows = page.locator("#table-body tr")
    expect(rows).to_have_count(100)
    page.click("[data-key=parameters]")
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Parameters")
    smallest = min(r["parameters"] for r in records)
    expect(rows.first).to_contain_text(f"{smallest:,}")
    page.click("[data-key=parameters]")
    expect(rows.first).to_contain_text(f"{max(r['parameters'] for r in records):,}")
    page.select_option("#show", "stopped")
    expect(rows).to_have_count(sum(r["state"] == "PRUNED" for r in records))
    page.fill("#filter", "no such network")
    expect(rows).to_have_count(0)
    page.fill("#filter", "")
    page.select_option("#show", "front")
    expect(rows).to_have_count(len(front_of(records)))
    rows.nth(1).click()
    expect(rows.nth(1)).to_have_attribute("aria-selected", "true")
    trial = rows.nth(1).locator("td").first.inner_text()
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {trial}")


def test_copy(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0], permissions=["clipboard-read", "clipboard-write"])
    page.locator("#front").focus()
    page.keyboard.press("Home")
    page.click("[data-copy=command]")
    expect(page.locator("[data-copy=command]")).to_have_text("Copied")
    command = page.evaluate("navigator.clipboard.readText()")
    smallest = front_of(run[1])[0]["parameters"]
    folder = os.path.relpath(run[0].parent)  # no path of the user's machine, and it works where it was written
    assert command == f"python -m dacnn_search.train --config {folder}/best/01-{smallest}/config.yaml"
    exported = f"python -m dacnn_search.export {folder} --trial {front_of(run[1])[0]['trial']} --c"
    expect(page.locator("#export-command")).to_have_text(exported)
    page.click("[data-copy=config]")
    expect(page.locator("[data-copy=config]")).to_have_text("Copied")
    assert "data: digits" in page.evaluate("navigator.clipboard.readText()")


def test_download(open_page: Opener, run: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    page = open_page(run[0])
    page.select_option("#show", "finished")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = {int(row["trial"]): row for row in csv.DictReader(file)}
    finished = {r["trial"]: r for r in run[1] if r["state"] == "COMPLETE"}
    assert rows.keys() == finished.keys()
    for trial, row in rows.items():
        assert int(row["parameters"]) == finished[trial]["parameters"]
        assert float(row["accuracy"]) == pytest.approx(finished[trial]["accuracy"], abs=1e-5)
        assert row["sharing"] == finished[trial]["choices"]["sharing"]


def test_live_page_refreshes_and_keeps_what_one_did(open_page: Opener, tmp_path: Path) -> None:
    write_run(tmp_path, trials=40, state="searching", retrained=False)
    page = open_page(write_dashboard(tmp_path), clock=True)
    expect(page.locator("#live-text")).to_contain_text("40 of 80 trials, about 95 s left")
    expect(page.locator("#running li")).to_have_count(2)
    page.click("#theme")
    page.click("[data-mode=error]")
    page.select_option("#show", "finished")
    page.click("[data-key=parameters]")
    page.locator("#table-body tr").nth(2).click()
    page.evaluate("Plotly.relayout('front', {'xaxis.range': [3, 4], 'yaxis.range': [0.5, 1.5]})")
    chosen = page.locator("#network-title").inner_text()
    page.evaluate("window.scrollTo(0, 300)")
    write_run(tmp_path, trials=50, state="searching", retrained=False)
    write_dashboard(tmp_path)
    page.clock.fast_forward(11_000)
    expect(page.locator("#live-text")).to_contain_text("50 of 100 trials")
    page.wait_for_selector("html[data-drawn=all]", state="attached")
    expect(page.locator("#network-title")).to_have_text(chosen)
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("[data-mode=error]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Parameters")
    expect(page.locator("#show")).to_have_value("finished")
    assert page.evaluate("document.getElementById('front').layout.xaxis.range") == [3, 4]
    assert page.evaluate("scrollY") == 300


def test_progress_of_a_retraining_counts_trainings(open_page: Opener, tmp_path: Path) -> None:
    write_run(tmp_path, trials=40, state="retraining", retrained=False)
    for retraining, words in (({"finished": 1, "trainings": 6}, "1 of 6 full trainings"), (None, "40 of 40 full")):
        status = json.loads((tmp_path / "status.json").read_text()) | {"retraining": retraining, "elapsed": 0}
        (tmp_path / "status.json").write_text(json.dumps(status))
        page = open_page(write_dashboard(tmp_path))
        expect(page.locator("#live-text")).to_contain_text(words)
        expect(page.locator("#summary")).to_contain_text("s of search.")


def test_paused_hidden_or_finished_pages_do_not_refresh(open_page: Opener, tmp_path: Path) -> None:
    write_run(tmp_path / "live", trials=10, state="searching", retrained=False)
    write_run(tmp_path / "done", trials=10, retrained=False)
    live, done = (open_page(write_dashboard(tmp_path / name), clock=True) for name in ("live", "done"))
    live.click("#pause")
    expect(live.locator("#pause")).to_have_text("Resume refreshing")
    expect(done.locator("#pause")).to_be_hidden()
    for page in (live, done):
        page.evaluate("window.untouched = true")
        page.clock.fast_forward(60_000)
        page.wait_for_timeout(200)
        assert page.evaluate("window.untouched")


def test_dark_and_light(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0], color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    ink = "document.getElementById('front').layout.font.color"
    dark = page.evaluate(background), page.evaluate(ink)
    page.click("#theme")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    light = page.evaluate(background), page.evaluate(ink)
    assert brightness(dark[0]) < 60 < 200 < brightness(light[0])
    assert brightness(light[1]) < 60 < 200 < brightness(dark[1])


def brightness(color: str) -> float:
    channels = color.removeprefix("rgb(").rstrip(")").split(",")
    return sum(float(channel) for channel in channels) / 3


def test_two_thousand_trials(open_page: Opener, tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=2000)
    page = open_page(write_dashboard(tmp_path))
    page.click("#all-rows")
    expect(page.locator("#table-body tr")).to_have_count(2000)
    record = front_of(records)[2]
    click_point(page, record)
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {record['trial']}")


@pytest.mark.parametrize("drawing", ["dashboard.html", "front.svg"])
def test_names_of_references_stay_apart(open_page: Opener, tmp_path: Path, drawing: str) -> None:
    published = read_yaml(SPACES / "cifar10_50k.yaml").data["references"]
    references = [{**reference, "accuracy": reference["accuracy"] / 4 + 0.7} for reference in published]  # closer
    write_run(tmp_path, trials=40, references=references)
    path = write_dashboard(tmp_path) if drawing == "dashboard.html" else write_figure(tmp_path, tmp_path / drawing)
    page = open_page(path, drawn=drawing == "dashboard.html")
    boxes = [page.locator("svg text", has_text=r["name"]).bounding_box() for r in references]
    for one, other in itertools.combinations(boxes, 2):
        assert one is not None
        assert other is not None
        assert any(
            one[start] + one[length] <= other[start] + 3 or other[start] + other[length] <= one[start] + 3
            for start, length in (("x", "width"), ("y", "height"))
        )


def test_hostile_words(open_page: Opener, tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b> %{x} ${y} \u2028 'quoted'"
    folder = tmp_path / "a run 'with' spaces; $(echo)"
    references = [{"name": hostile, "parameters": 900, "accuracy": 0.9}]
    write_run(
        folder, trials=40, name=hostile, class_names=[hostile] * 10, failing=0.3, reason=hostile, references=references
    )
    page = open_page(write_dashboard(folder))
    assert page.locator("#name").text_content() == hostile
    assert page.title().startswith("</script><script>alert(1)")
    expect(page.locator("#failure-list")).to_contain_text("<b>bold</b>")
    assert page.locator("img").count() == 0
    assert page.locator("#front b, #front script").count() == 0
    failed = page.locator("#table-body tr", has_text="onerror")
    failed.first.click()
    expect(page.locator("#card-facts")).to_contain_text("<img src=x")
    assert "'\\''with'\\''" in page.locator("#command").inner_text()
    write_index(tmp_path)
    index = open_page(tmp_path / "index.html", drawn=False)
    assert index.locator(".runs a").text_content() == hostile
    index.click(".runs a")
    expect(index.locator("#state")).to_have_text("Finished")


@pytest.mark.parametrize(
    ("trials", "failing", "words"),
    [(0, 0.0, "No trial has finished yet"), (1, 0.0, "Suggested"), (12, 1.0, "No trial was trained to the end")],
)
def test_runs_without_much_in_them(open_page: Opener, tmp_path: Path, trials: int, failing: float, words: str) -> None:
    write_run(tmp_path, trials=trials, failing=failing, retrained=False)
    page = open_page(write_dashboard(tmp_path))
    expect(page.locator("#answer")).to_contain_text(words)


def test_phone(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0], viewport={"width": 390, "height": 844}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    click_point(page, front_of(run[1])[1])
    expect(page.locator("#network-title")).to_have_text(f"The network of trial {front_of(run[1])[1]['trial']}")
    page.emulate_media(media="print")
    expect(page.locator("#theme")).to_be_hidden()
    expect(page.locator("#card")).to_be_visible()


def test_dark_page_prints_light_and_narrow(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0], color_scheme="dark")
    layout = "(name) => document.getElementById('front')._fullLayout[name]"
    before = page.evaluate(layout, "width")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert page.evaluate(layout, "width") <= 700
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.wait_for_function(f"(width) => ({layout})('width') === width", arg=before)


def test_nothing_jumps_and_everything_has_a_name(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0])
    shift = page.evaluate(
        """() => new Promise((done) => {
            let sum = 0;
            new PerformanceObserver((list) => list.getEntries().forEach((entry) => (sum += entry.value)))
                .observe({ type: "layout-shift", buffered: true });
            setTimeout(() => done(sum), 300);
        })"""
    )
    assert shift < 0.02
    for role in ("button", "textbox", "searchbox", "combobox", "slider"):
        for element in page.get_by_role(role).all():
            assert element.evaluate("e => (e.ariaLabel || e.labels?.[0]?.textContent || e.textContent).trim()")


def test_link_to_a_trial(open_page: Opener, run: tuple[Path, list[dict[str, Any]]]) -> None:
    page = open_page(run[0], fragment="#trial-7")
    expect(page.locator("#network-title")).to_have_text("The network of trial 7")


def test_an_accuracy_of_several_trainings_says_so(open_page: Opener, tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=40)
    best = front_of(records)[-1]
    confirmed = [r | {"accuracies": [r["accuracy"]] * 3} if r is best else r for r in records]
    write_ledger(tmp_path / "trials.jsonl", confirmed)
    page = open_page(write_dashboard(tmp_path), fragment=f"#trial-{best['trial']}")
    expect(page.locator("#card-figures")).to_contain_text("validation accuracy, mean of 3 trainings")
    expect(page.locator("#card-facts")).to_contain_text(f"3 times {best['epochs']} epochs")
    page = open_page(write_dashboard(tmp_path), fragment=f"#trial-{front_of(records)[0]['trial']}")
    expect(page.locator("#card-figures")).not_to_contain_text("mean of")


def test_figure_as_png(tmp_path: Path) -> None:
    write_run(tmp_path, trials=40)
    with Image.open(write_figure(tmp_path, tmp_path / "front.png")) as image:
        assert image.size == (1920, 1260)
        below_axis = image.convert("L").crop((0, 1140, 1920, 1260))
        assert below_axis.getextrema()[0] < 100  # the legend is in the picture


def test_comparison(open_page: Opener, tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"<b>tpe</b>-{seed}".replace("/", ""), trials=20, seed=seed)
    write_run(tmp_path / "random", trials=20, seed=9, sampler="random")
    write_run(tmp_path / "empty", trials=0, retrained=False, sampler="qmc")
    page = open_page(write_comparison(sorted(path for path in tmp_path.iterdir()), tmp_path / "comparison.html"))
    expect(page.locator("#keys li")).to_have_count(3)
    expect(page.locator("#names th")).to_have_count(6)
    expect(page.locator("#results")).to_contain_text("sampler")
    expect(page.locator("#hypervolume")).to_contain_text("trials that ended")
    page.click("[data-hypervolume=time]")
    expect(page.locator("#hypervolume")).to_contain_text("minutes of search")
    expect(page.locator("[data-hypervolume=time]")).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(page.locator("#hypervolume")).to_contain_text("minutes of search")
    page.click("#theme")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
