"""Attach a `Recorder` to a trainer without patching it by hand: one module a trainer."""
