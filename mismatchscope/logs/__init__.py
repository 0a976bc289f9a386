"""What trainers write of a run, read as rows of one form (`columns`); `formats/` has one file a trainer."""
