from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, where the suite runs in several processes, what shares expensive fixtures: the tests of a
    module, of a kind of server, and of an engine version, which share its jobs."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        module_or_server = f"{item.module.__name__} {parameters.get('server', '')}".rstrip()
        item.add_marker(pytest.mark.xdist_group(parameters.get("spec", module_or_server)))
