"""The public functions that measure and read; `import mismatchscope as ms` shows them.

Each raises the exceptions of `errors` and no other on purpose: `message` says what happened and why, `hint` what to
do next. Defaults are those of the command line; they stand in `defaults`.
"""
