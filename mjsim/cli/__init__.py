"""The commands: what the scripts and `mjsim` run."""
