"""For every test: the same random numbers each time, hypothesis without a clock, a data set."""

from importlib.util import find_spec

import pytest
import torch
from hypothesis import settings

import tiny

settings.register_profile("unicross", deadline=None, derandomize=True)
settings.load_profile("unicross")

pytest_plugins = ["milvus_server"]
if find_spec("playwright") and find_spec("fastapi"):
    pytest_plugins.append("browsing")


def pytest_collection_modifyitems(items):
    """Workers take a file at a time, since its tests share fixtures; one takes all of the Milvus server."""
    for item in items:
        server = "milvus_server" in item.name
        item.add_marker(pytest.mark.xdist_group("milvus_server" if server else item.path.name))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The folder of tiny's data set: 24 pictures to train on, 8 to validate on."""
    return tiny.write_set(tmp_path_factory.mktemp("photos"))
