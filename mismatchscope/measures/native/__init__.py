"""The mismatch metrics that trainers log, by the trainers' own definitions: one file a trainer."""
