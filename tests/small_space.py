"""Search spaces made of the parts of a YAML file, for small grey images."""

from dacnn_search.data.dataset import DataSummary
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings
from dacnn_search.space.validation import validate

GREY = DataSummary((1, 8, 8), 10, 1000, 400, 300)


def make_space(parts, constraints=None, summary=GREY):
    data = {"data": {"name": "digits"}, "architecture": parts, "constraints": constraints or {}}
    return SearchSpace(validate(data, SpaceSettings), summary)
