"""The dumps of slime, and of miles, which began as a copy of it: files, samples, steps and ranks."""
