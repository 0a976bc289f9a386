"""mismatchscope: is the policy that samples still the policy that trains?

    import mismatchscope as ms

    ms.audit(...)         sample, score and compare: the whole way        -> Report
    ms.probe(name, ...)   change one thing at a time, on the same tokens  -> Report
    ms.compare(mu, pi)    measure two traces of the same tokens           -> Report
    ms.analyze(logs)      measure what the logs of a run hold             -> Report
    ms.write_trace(...)   the log-probs of a trainer's batch, on disk     -> Trace
    ms.Recorder(path)     those of every batch of a run, as a log: .log(...)
    ms.open_trace(path)   a trace as tables: .sequences(), .tokens()      -> Trace
    ms.load_report(path)  a finished report; .to_frame() is its table     -> Report
    ms.divergences(p, q)  TV, KL and the ratio from two blocks of logits
    ms.errors             every exception that these raise on purpose

Whatever else the package holds is private. docs/python.md shows each at work. Importing the package imports
nothing else: engines import it in interpreters of their own, where little is installed.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Recorder",
    "Report",
    "Trace",
    "analyze",
    "audit",
    "compare",
    "divergences",
    "errors",
    "load_report",
    "open_trace",
    "probe",
    "write_trace",
]

# Where each name lives; it is imported when it is first asked for.
_HOMES = {
    "Recorder": "logs.recorder:Recorder",
    "Report": "reports.document:Report",
    "Trace": "traces.reader:Trace",
    "analyze": "api.analyzing:analyze",
    "audit": "api.auditing:audit",
    "compare": "api.comparing:compare",
    "divergences": "api.comparing:divergences",
    "errors": "errors",
    "load_report": "api.comparing:load_report",
    "open_trace": "api.comparing:open_trace",
    "probe": "api.probing:probe",
    "write_trace": "traces.writing:write_trace",
}

if TYPE_CHECKING:  # type checkers and editors see the names without running `__getattr__`
    from . import errors
    from .api.analyzing import analyze
    from .api.auditing import audit
    from .api.comparing import compare, divergences, load_report, open_trace
    from .api.probing import probe
    from .logs.recorder import Recorder
    from .reports.document import Report
    from .traces.reader import Trace
    from .traces.writing import write_trace
else:

    def __getattr__(name):
        from pkgutil import resolve_name

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = resolve_name(f"{__name__}.{_HOMES[name]}")
        return globals()[name]

    def __dir__():
        return [*__all__, "__doc__", "__version__"]
