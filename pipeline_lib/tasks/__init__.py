TASKS = ("classification",)
"""Every task: the folders beside this file."""
