collect_ignore = ["everything.py"]  # a script, that finds its neighbor by its own folder
