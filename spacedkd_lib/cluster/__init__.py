"""Where runs are trained: processes of this machine, or jobs of Slurm. No torch here."""
