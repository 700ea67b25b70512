"""The paper's printed figures, and our parameter counts beside them."""

import csv
from pathlib import Path

import pytest

from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.network.cost import count_parameters
from dacnn_search.network.zoo import get, names
from dacnn_search.paper.markup import markdown_table
from dacnn_search.paper.published import EXTRA_TO, PUBLISHED

ROOT = Path(__file__).resolve().parents[2]


def counts(row):
    """Our count and the printed one: extra parameters where the row has them, else those of the whole network."""
    known = KNOWN_SETS[row.dataset]
    size = known.input_shape[0], len(known.train_counts)
    ours = count_parameters(get(row.zoo_name), *size)
    if row.extra_parameters is None:
        return ours, row.parameters
    return ours - count_parameters(get(EXTRA_TO[row.table]), *size), row.extra_parameters


def difference(row):
    """(ours - printed) / printed, with 1 in place of a printed 0 (Table 4's row without regulators)."""
    ours, printed = counts(row) if row.zoo_name else (None, None)
    return None if printed is None else (ours - printed) / max(printed, 1)


def counts_table():
    """All counts as the Markdown table of `docs/paper.md`. Extra parameters have a plus sign."""
    rows = []
    for row in filter(lambda row: row.zoo_name, PUBLISHED):
        sign = "" if row.extra_parameters is None else "+"
        ours, printed = counts(row)
        cells = {"table": row.table, "data set": row.dataset, "model": row.model, "name here": f"`{row.zoo_name}`"}
        cells["ours"] = f"{sign}{ours:,}"
        cells["published"] = None if printed is None else f"{sign}{printed:,}"
        cells["difference"] = None if printed is None else f"{difference(row):+.1%}"
        rows.append({**cells, "why": row.explanation})
    return markdown_table(rows, right=("ours", "published", "difference"))


def test_every_network_of_the_tables_is_in_the_zoo():
    assert {row.zoo_name for row in PUBLISHED} - {""} <= set(names())


def test_each_published_count_is_met_within_3_percent_or_explained():
    assert len([row for row in PUBLISHED if difference(row) is not None]) == 20 + 2 + 9 + 14  # rows of Tables 2 to 6
    for row in PUBLISHED:
        far = abs(difference(row) or 0) > 0.03
        assert far == bool(row.explanation), row
        assert "\n" not in row.explanation


def test_prune_ratios_of_table_8():
    def ratio(name):
        return 1 - count_parameters(get(name), 3, 10) / count_parameters(get("resnet18"), 3, 10)

    plain, mixed = (row for row in PUBLISHED if row.table == 8 and row.zoo_name)
    assert (plain.prune_ratio, mixed.prune_ratio) == (98.5, 49.6)
    assert ratio(plain.zoo_name) == pytest.approx(0.985, abs=0.003)
    assert ratio(mixed.zoo_name) == pytest.approx(0.496, abs=0.01)


def test_the_table_in_the_documentation_is_current():
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- counts -->\n")
    table, _, _ = rest.partition("<!-- /counts -->")
    assert table == counts_table(), "replace it by what counts_table() returns"


def test_published_figures_are_those_of_the_paper():
    path = ROOT.parent / "shared" / "paper" / "published.csv"
    if not path.exists():
        pytest.skip("the transcript of the paper's tables is not here")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sharing"]]
    published = [row for row in PUBLISHED if row.zoo_name]
    assert len(rows) == len(published)
    units = {"K": 1024, "M": 1_000_000}
    for ours, row in zip(published, rows, strict=True):
        assert (str(ours.table), ours.dataset, ours.model) == (row["table"], row["dataset"], row["model"])
        assert ours.top1_error == (float(row["top1_error_percent"]) if row["top1_error_percent"] else None)
        millions, extra = row["parameters_million"], row["extra_parameters"]
        assert ours.parameters == (round(float(millions) * 1e6) if millions else None)
        expected = round(float(extra.rstrip("KM")) * units.get(extra[-1], 1)) if extra else None
        assert ours.extra_parameters == expected
        architecture = get(ours.zoo_name)
        # with one kernel per section or per network, as the row says; shortcuts and regulators as well
        assert architecture.sharing == row["sharing"]
        assert (architecture.decided_shortcuts == "block") == (row["residual"] == "yes")
        assert any(section.regulators != "none" for section in architecture.sections) == (row["regulators"] != "none")
        assert architecture.batch_norm == ("without batch norm" not in row["note"])
