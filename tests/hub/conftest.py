"""What is here besides tests imports KerasHub, which need not be installed."""

collect_ignore = ["small_tasks.py"]
