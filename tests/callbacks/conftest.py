import pytest

from tests.callbacks.tiny import QUIET


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/callbacks" in str(item.path):
            for text in QUIET:
                item.add_marker(pytest.mark.filterwarnings(text))
