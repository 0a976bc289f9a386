"""How a report is shown. Every renderer sees a finished `Report` and nothing else."""
