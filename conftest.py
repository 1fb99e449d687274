"""Two tiers: `pytest` runs the quick tests, `pytest --slow` runs all (docs/testing.md)."""


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests that are marked slow (docs/testing.md)")


def pytest_collection_modifyitems(config, items):
    """Leaves out slow tests, except those that the command line names."""
    if config.getoption("--slow"):
        return
    named = tuple(arg for arg in config.args if "::" in arg)
    left_out = {item for item in items if item.get_closest_marker("slow") and not _is_named(item, named)}
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


def _is_named(item, named):
    return any(item.nodeid.split("/")[-1].startswith(name.split("/")[-1]) for name in named)
