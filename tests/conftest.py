from __future__ import annotations

import signal

import pytest

# A shell has SIGINT ignored in what it starts in the background, and what that starts inherits it: tests that
# interrupt a command need it as it is in the foreground.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, where the suite runs in several processes, what shares expensive fixtures: the tests of a
    module, of a kind of server, and of an engine version, which share its jobs."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        module_or_server = f"{item.module.__name__} {parameters.get('server', '')}".rstrip()
        item.add_marker(pytest.mark.xdist_group(parameters.get("spec", module_or_server)))
