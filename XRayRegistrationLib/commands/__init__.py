"""One file a command of ``xrayreg``: each has ``run(args) -> exit status``."""
