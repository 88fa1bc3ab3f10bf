"""What is here besides tests imports KerasHub, which need not be installed."""

collect_ignore = ["backbones.py", "small_tasks.py"]
