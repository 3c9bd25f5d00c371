"""Every target and experiment of the configuration by its own name; those asked for most stand in the Snakefile."""

for _name in (*PLAN.configuration.targets, *PLAN.configuration.experiments):
    if not workflow.is_rule(_name):

        rule:
            name:
                _name
            input:
                JOBS.target(_name),
